//! Chooses the versions: what conda's side of the file pins decides how old the rest may be.
//!
//! conda knows which old packages don't get on with later ones, even where a package's own data doesn't say so; the
//! index doesn't. So what a pinned package leans on is taken as it was when that package was published.

use std::collections::{BTreeMap, BTreeSet};

use casemate_model::Fault;
use casemate_sandbox::Network;
use jiff::{SignedDuration, Timestamp};

use super::{
    failure,
    lock::{self, Locked},
    pip_line::PipRequirement,
    plan::{CondaRequirement, Plan},
    session::{IN, OUT, Session},
    version::{Specifier, compare, release_of},
    workshop::{Command, Outcome, Stdout, writable},
};

/// Packages published this long after the pins still count as of their time: sets of packages that belong together
/// are not published in one moment.
const MARGIN: SignedDuration = SignedDuration::from_hours(24);
/// Packages that say nothing about the age of the model's libraries.
const AGELESS: [&str; 2] = [super::plan::SERVER_PACKAGE, "azureml-defaults"];
/// The package that conda's Python brings along, up to a minor version.
const COMPANION: &str = "setuptools";
const LAST_MINOR_WITH_COMPANION: u64 = 12;
/// Most conda entries that are looked at one by one to find the one at fault.
const MAX_DIAGNOSED: usize = 40;
/// The exit code by which uv says that it didn't get as far as choosing.
const UV_OTHER_ERROR: i32 = 2;

/// What was chosen.
pub(super) struct Resolution {
    pub packages: Vec<Locked>,
    pub warnings: Vec<String>,
}

/// How old packages must be.
#[derive(Default)]
struct Limits {
    all: Option<Timestamp>,
    by_name: BTreeMap<String, Timestamp>,
}

/// Chooses versions with uv.
pub(super) struct Resolver<'a> {
    pub session: &'a Session,
    pub plan: &'a Plan,
}

impl Resolver<'_> {
    /// Chooses a version for everything the plan needs, directly or not.
    ///
    /// # Errors
    /// `ImageBuildFailure` naming the entry that can't be had and the choices, or with the installer's own words.
    pub(super) async fn resolve(&self) -> Result<Resolution, Fault> {
        let companion = self.companion();
        let all: Vec<&PipRequirement> = self.plan.requirements().chain(&companion).collect();
        let mut warnings = Vec::new();
        if let Some(packages) = self.as_of_the_pins(&all, companion.as_ref(), &mut warnings).await? {
            return Ok(Resolution { packages, warnings });
        }
        match self.compile(&all, &Limits::default(), Deps::Included, Talk::Shown).await? {
            Ok(packages) => Ok(Resolution { packages, warnings }),
            Err(outcome) => Err(self.explain(&outcome).await?),
        }
    }

    /// What conda's Python brings along and packages of its time use without saying so.
    fn companion(&self) -> Option<PipRequirement> {
        let named = self.plan.requirements().any(|requirement| requirement.name == COMPANION);
        let [_, minor, _] = self.session.python.version;
        if !self.plan.from_file || named || minor > LAST_MINOR_WITH_COMPANION {
            return None;
        }
        self.say(&format!("{COMPANION} is added, since conda's Python brings it along."));
        Some(PipRequirement::new(COMPANION, &Specifier::default()))
    }

    /// Tries to choose by the age of the pins; none when they give no limit or no set of versions keeps to it.
    async fn as_of_the_pins(
        &self,
        all: &[&PipRequirement],
        companion: Option<&PipRequirement>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Vec<Locked>>, Fault> {
        let conda: Vec<&PipRequirement> = self.plan.conda.iter().map(|conda| &conda.requirement).collect();
        let pip: Vec<&PipRequirement> = self.plan.pip.iter().filter(|r| !AGELESS.contains(&r.name.as_str())).collect();
        let pinned = |side: &[&PipRequirement]| side.iter().any(|requirement| requirement.pin);
        let (mut side, other) = if pinned(&conda) { (conda, pip) } else { (pip, Vec::new()) };
        if !pinned(&side) {
            return Ok(None);
        }
        side.extend(companion);
        let Some(limit) = self.limit_of(&side, warnings).await? else { return Ok(None) };
        let limits = Limits { all: Some(limit), ..Limits::default() };
        let leaned_on = self.compile(&side, &limits, Deps::Included, Talk::Kept).await?;
        if let Ok(packages) = leaned_on {
            let own_pins: BTreeSet<&str> = other.iter().filter(|r| r.pin).map(|r| r.name.as_str()).collect();
            let names =
                packages.into_iter().map(|package| package.name).filter(|name| !own_pins.contains(name.as_str()));
            let limits = Limits { by_name: names.map(|name| (name, limit)).collect(), all: None };
            if let Ok(packages) = self.compile(all, &limits, Deps::Included, Talk::Shown).await? {
                return Ok(Some(packages));
            }
        }
        self.say(
            "No set of versions is that old; trying as of the newest version given in the conda file, on either side…",
        );
        let everything: Vec<&PipRequirement> = all.iter().copied().filter(|requirement| requirement.pin).collect();
        if let Some(limit) = self.limit_of(&everything, warnings).await? {
            let limits = Limits { all: Some(limit), ..Limits::default() };
            if let Ok(packages) = self.compile(all, &limits, Deps::Included, Talk::Shown).await? {
                return Ok(Some(packages));
            }
        }
        let warning = "The packages without a version could not be chosen as of the time of those with one; their newest versions are used, which may not work together.";
        self.say(warning);
        warnings.push(warning.to_owned());
        Ok(None)
    }

    /// The time as of which to choose beside the pins among `side`.
    async fn limit_of(&self, side: &[&PipRequirement], warnings: &mut Vec<String>) -> Result<Option<Timestamp>, Fault> {
        let pins: Vec<&PipRequirement> = side.iter().copied().filter(|requirement| requirement.pin).collect();
        let packages = match self.compile(&pins, &Limits::default(), Deps::Left, Talk::Kept).await? {
            Ok(packages) => packages,
            Err(outcome) => return Err(self.explain(&outcome).await?),
        };
        let newest = packages
            .iter()
            .filter_map(|package| Some((package.published?, package)))
            .max_by_key(|(published, _)| *published);
        let Some((published, package)) = newest else {
            let warning = "The package index doesn't tell when versions were published, so packages without a version are taken at their newest.";
            self.say(warning);
            warnings.push(warning.to_owned());
            return Ok(None);
        };
        let limit = published.saturating_add(MARGIN).unwrap_or(Timestamp::MAX);
        if limit >= Timestamp::now() {
            return Ok(None);
        }
        self.say(&format!(
            "Packages without a version that the others lean on are taken as of {}, when {} {} was published.",
            published.strftime("%Y-%m-%d"),
            package.name,
            package.version.as_deref().unwrap_or_default(),
        ));
        Ok(Some(limit))
    }

    /// Lets uv choose. The inner error is uv's refusal; the outer one ends the build.
    async fn compile(
        &self,
        wanted: &[&PipRequirement],
        limits: &Limits,
        deps: Deps,
        talk: Talk,
    ) -> Result<Result<Vec<Locked>, Outcome>, Fault> {
        let outcome = self.run(wanted, limits, deps, talk, "highest").await?;
        match outcome {
            (outcome, Some(packages)) if outcome.succeeded() => Ok(Ok(packages)),
            (outcome, _) if outcome.exit.code == Some(UV_OTHER_ERROR) => Err(failure::unavailable(format!(
                "The environment could not be built: the installer could not get the packages' data. Check the addresses in the conda file, the \
                 package index that this machine's pip is configured for, and the way there. {}",
                outcome.last_words()
            ))),
            (outcome, _) => Ok(Err(outcome)),
        }
    }

    async fn run(
        &self,
        wanted: &[&PipRequirement],
        limits: &Limits,
        deps: Deps,
        talk: Talk,
        resolution: &str,
    ) -> Result<(Outcome, Option<Vec<Locked>>), Fault> {
        let lines: String = wanted.iter().map(|requirement| format!("{}\n", requirement.text)).collect();
        let input = self.session.input("requirements", &lines)?;
        let results = self.session.draft.results().map_err(|error| failure::io("making a directory", &error))?;
        let mut args: Vec<String> =
            ["pip", "compile", "--format", "pylock.toml", "--no-header", "--no-annotate"].map(ToOwned::to_owned).into();
        args.extend(["--python".to_owned(), self.session.python.executable.display().to_string()]);
        args.extend([
            "--output-file".to_owned(),
            format!("{OUT}/pylock.toml"),
            "--resolution".to_owned(),
            resolution.to_owned(),
        ]);
        if deps == Deps::Left {
            args.push("--no-deps".to_owned());
        }
        if let Some(limit) = limits.all {
            args.extend(["--exclude-newer".to_owned(), limit.to_string()]);
        }
        for (name, limit) in &limits.by_name {
            args.extend(["--exclude-newer-package".to_owned(), format!("{name}={limit}")]);
        }
        args.extend(self.session.uv_index_args());
        args.push(format!("{IN}/{input}"));
        let mut mounts = self.session.private_cache();
        mounts.push(writable(&results, OUT));
        let command = Command {
            program: super::session::UV.into(),
            args,
            env: self.session.uv_env(),
            mounts,
            network: Network::Gateway,
            stdout: Stdout::Nothing,
            shown: talk == Talk::Shown,
            purpose: "choosing the versions",
        };
        let outcome = self.session.workshop.run(command).await?;
        let packages = if outcome.succeeded() {
            Some(lock::read(&results.join("pylock.toml")).map_err(|error| failure::io("reading the lock", &error))?)
        } else {
            None
        };
        Ok((outcome, packages))
    }

    /// The reason why nothing could be chosen: the entry at fault where one can be found, else uv's own words.
    async fn explain(&self, outcome: &Outcome) -> Result<Fault, Fault> {
        for conda in self.plan.conda.iter().take(MAX_DIAGNOSED) {
            if self.compile(&[&conda.requirement], &Limits::default(), Deps::Left, Talk::Kept).await?.is_err() {
                return self.explain_conda(conda).await;
            }
        }
        let hint = "Correct the versions in the conda file so that they fit together and exist for this Python, and create the deployment again.";
        Ok(failure::invalid(format!(
            "The environment could not be built for Python {}: no versions of the packages could be chosen. {hint} {}",
            self.session.python.full_version(),
            outcome.last_words()
        )))
    }

    /// A conda entry that the index doesn't have, with what it does have.
    async fn explain_conda(&self, conda: &CondaRequirement) -> Result<Fault, Fault> {
        let CondaRequirement { requirement, origin, line } = conda;
        let name = &requirement.name;
        let place = format!("'{origin}' (line {line} of the conda file)");
        let python = self.session.python.full_version();
        let Some(newest) = self.one_version(name, "highest").await? else {
            return Ok(failure::invalid(format!(
                "The environment could not be built: the Python package index has no package '{name}' for Python {python}, which conda calls \
                 {place}. The platform installs conda's packages from there. The choices: put the package under pip: by the name it has on the \
                 index, correct its name, leave it out if it is only a library of the system, or choose another package that does the same."
            ))
            .at("condaFile"));
        };
        let bound = requirement.text.find(|c: char| c.is_ascii_digit()).map(|at| &requirement.text[at..]);
        let bound =
            bound.map(|rest| rest.split([',', '*']).next().unwrap_or_default().trim_end_matches('.').to_owned());
        let (mut near, bound) = (vec![newest], bound.unwrap_or_default());
        for (condition, resolution) in [(format!("{name}<{bound}"), "highest"), (format!("{name}>{bound}"), "lowest")] {
            near.extend(self.one_version(&condition, resolution).await?);
        }
        near.sort_by(|a, b| compare(&release_of(a), &release_of(b)));
        near.dedup();
        let near = near.join(", ");
        Ok(failure::invalid(format!(
            "The environment could not be built: the Python package index has '{name}', but for Python {python} not in the version asked for by \
             {place}. Versions it has: {near}. The choices: give one of these, another python=, or leave the version open."
        ))
        .at("condaFile"))
    }

    /// The version that uv takes for a single condition, if there is one.
    async fn one_version(&self, condition: &str, resolution: &str) -> Result<Option<String>, Fault> {
        let wanted = PipRequirement { name: String::new(), text: condition.to_owned(), pin: false };
        let (_, packages) = self.run(&[&wanted], &Limits::default(), Deps::Left, Talk::Kept, resolution).await?;
        Ok(packages.and_then(|packages| packages.into_iter().next()?.version))
    }

    fn say(&self, text: &str) {
        self.session.workshop.audience.line(text);
    }
}

/// Whether what packages need is chosen too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deps {
    Included,
    Left,
}

/// Whether uv's talk goes to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Talk {
    Shown,
    Kept,
}
