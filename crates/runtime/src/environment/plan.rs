//! From a request to what has to be installed, with each decision as a sentence for the log.
//!
//! Pure: asks neither the host nor the index.

use casemate_model::Fault;

use super::{
    EnvironmentRequest,
    conda_file::{CondaFile, Entry},
    failure,
    mapping::{self, Mapping},
    mask::mask_urls,
    match_spec::MatchSpec,
    pip_line::{PipLine, PipRequirement},
    version::Specifier,
};

/// The package that serves scoring scripts; every environment needs it.
pub(super) const SERVER_PACKAGE: &str = "azureml-inference-server-http";
/// Packages that bring the server along.
const SERVER_BRINGERS: [&str; 2] = [SERVER_PACKAGE, "azureml-defaults"];

/// A requirement that stands on conda's side of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CondaRequirement {
    pub requirement: PipRequirement,
    /// As written, and its line.
    pub origin: String,
    pub line: u64,
}

/// What to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The conditions on the interpreter, and how they were written.
    pub python: Option<(Specifier, String)>,
    pub conda: Vec<CondaRequirement>,
    pub pip: Vec<PipRequirement>,
    /// Whether there is a conda file.
    pub from_file: bool,
    /// The server, where nothing in the file brings it.
    pub server: Option<PipRequirement>,
    /// Index options of the file.
    pub options: Vec<Entry<PipLine>>,
    /// Decisions, for the log.
    pub notes: Vec<String>,
    /// What the user should know even when all goes well.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Decides what a request needs.
    ///
    /// # Errors
    /// `ImageBuildFailure` naming the entry of the conda file, and what to write instead.
    pub(super) fn new(request: &EnvironmentRequest) -> Result<Self, Fault> {
        if request.build {
            return Err(Fault::new(
                casemate_model::FaultKind::NotImplemented,
                "ImageBuildFailure",
                "The environment has a docker build context, which is not available on this platform yet: nothing here builds container images. \
                 Describe the environment by a conda file instead.",
            )
            .at("build"));
        }
        let mut plan = Self::default();
        let text = request.conda_file.as_deref().filter(|text| !text.trim().is_empty());
        plan.say_about_image(request.image.as_deref(), text.is_some());
        let Some(text) = text else {
            plan.server = Some(PipRequirement::new(SERVER_PACKAGE, &Specifier::default()));
            return Ok(plan);
        };
        let file = CondaFile::parse(text)?;
        plan.from_file = true;
        for section in &file.ignored {
            plan.notes.push(format!("The conda file's section '{section}' has no meaning here and is left out."));
        }
        if !file.channels.is_empty() {
            plan.notes.push(format!(
                "Packages come from the Python package index instead of the channels {}.",
                file.channels.join(", ")
            ));
        }
        for entry in file.conda {
            plan.take_conda(&entry)?;
        }
        for entry in file.pip {
            match entry.value {
                PipLine::Requirement(requirement) => plan.pip.push(requirement),
                _ => plan.options.push(entry),
            }
        }
        plan.add_server();
        // Channels, sections and entries are told as they were written.
        plan.notes.iter_mut().chain(&mut plan.warnings).for_each(|said| *said = mask_urls(said));
        Ok(plan)
    }

    fn say_about_image(&mut self, image: Option<&str>, has_file: bool) {
        let instead = if has_file {
            "the environment is built from the conda file on this machine's Python"
        } else {
            "a default environment is used: this machine's Python with azureml-inference-server-http"
        };
        match image.filter(|image| !image.is_empty()) {
            Some(image) => {
                let image: String = image.chars().take(300).collect();
                self.warnings.push(format!(
                    "The image {image} is not used, since this platform has no container runtime yet; {instead}."
                ));
            }
            None if !has_file => self.notes.push(format!("The environment has no conda file; {instead}.")),
            None => {}
        }
    }

    fn take_conda(&mut self, entry: &Entry<MatchSpec>) -> Result<(), Fault> {
        let (spec, text) = (&entry.value, &entry.text);
        let refuse = |reason: &str| {
            failure::invalid(format!(
                "The dependency '{text}' of the conda file (line {}) can't be used: {reason}.",
                entry.line
            ))
            .at("condaFile")
        };
        if spec.name == "python" {
            let specifier = spec.specifier().map_err(|reason| refuse(&reason))?;
            let (conditions, written) = self.python.get_or_insert_default();
            conditions.0.extend(specifier.0);
            *written = if written.is_empty() { text.clone() } else { format!("{written}, {text}") };
            return Ok(());
        }
        let name = match mapping::map(&spec.name) {
            Mapping::Same => spec.name.as_str(),
            Mapping::Renamed(name) => name,
            Mapping::Skipped(reason) => {
                self.notes.push(format!("conda {text}: left out ({reason})."));
                return Ok(());
            }
            Mapping::Refused(reason) => return Err(refuse(reason)),
        };
        let specifier = spec.specifier().map_err(|reason| refuse(&reason))?;
        let requirement = PipRequirement::new(name, &specifier);
        // conda has names that the index can't have, such as one that ends in a dot.
        PipLine::parse(&requirement.text).map_err(|reason| refuse(&reason))?;
        let build = spec
            .build
            .as_ref()
            .map(|build| format!(" (the index has no builds: {build} is left out)"))
            .unwrap_or_default();
        self.notes.push(format!("conda {text}: {} from the Python package index{build}.", requirement.text));
        self.conda.push(CondaRequirement { requirement, origin: text.clone(), line: entry.line });
        Ok(())
    }

    fn add_server(&mut self) {
        let brought = self.requirements().any(|requirement| SERVER_BRINGERS.contains(&requirement.name.as_str()));
        if !brought {
            self.server = Some(PipRequirement::new(SERVER_PACKAGE, &Specifier::default()));
            self.notes.push(format!(
                "{SERVER_PACKAGE} is added, since it serves the scoring script and the conda file does not name it."
            ));
        }
    }

    /// Everything to be installed.
    pub(super) fn requirements(&self) -> impl Iterator<Item = &PipRequirement> {
        self.conda.iter().map(|conda| &conda.requirement).chain(&self.pip).chain(&self.server)
    }

    /// The same text for the same content, whatever the order, the comments or the file's name.
    pub(super) fn normalized(&self) -> String {
        let sorted = |requirements: Vec<&PipRequirement>| {
            let mut lines: Vec<String> =
                requirements.iter().map(|r| r.text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            lines.sort_unstable();
            lines.dedup();
            lines.join("\n")
        };
        let python = self.python.as_ref().map(|(specifier, _)| specifier.to_string()).unwrap_or_default();
        let conda = sorted(self.conda.iter().map(|conda| &conda.requirement).collect());
        let pip = sorted(self.pip.iter().chain(&self.server).collect());
        let options: Vec<&str> = self.options.iter().map(|option| option.text.trim()).collect();
        format!("python{python}\nconda\n{conda}\npip\n{pip}\noptions\n{}\n", options.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(conda_file: &str) -> EnvironmentRequest {
        EnvironmentRequest { conda_file: Some(conda_file.to_owned()), ..EnvironmentRequest::default() }
    }

    fn texts(plan: &Plan) -> Vec<&str> {
        plan.requirements().map(|requirement| requirement.text.as_str()).collect()
    }

    #[test]
    fn each_mapping_is_said() {
        let plan = Plan::new(&request(
            "name: e\nchannels: [conda-forge]\ndependencies:\n- python=3.12\n- numpy=2.3.1=py312_0\n- pytorch>=2\n- cudatoolkit=11.3\n- openssl=1.1.1k\n- pip=25.1\n- pip:\n  - joblib\n  - --pre\nprefix: /x\n",
        ))
        .unwrap();
        assert_eq!(texts(&plan), ["numpy==2.3.1", "torch>=2", "joblib", SERVER_PACKAGE]);
        assert_eq!(plan.python.as_ref().map(|(specifier, _)| specifier.to_string()).as_deref(), Some("==3.12.*"));
        assert_eq!(plan.options.len(), 1);
        let notes = plan.notes.join("\n");
        for said in [
            "conda-forge",
            "py312_0",
            "pytorch>=2: torch>=2",
            "cudatoolkit=11.3: left out",
            "openssl=1.1.1k: left out",
            "'prefix'",
            "is added",
        ] {
            assert!(notes.contains(said), "{said} is not in:\n{notes}");
        }
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn the_server_is_added_only_where_nothing_brings_it() {
        for brought in [
            "- azureml-inference-server-http=1.4.1",
            "- pip:\n  - azureml_inference_server_http",
            "- pip:\n  - azureml-defaults==1.53.0",
        ] {
            assert_eq!(Plan::new(&request(&format!("dependencies:\n{brought}\n"))).unwrap().server, None, "{brought}");
        }
        assert!(Plan::new(&request("dependencies:\n- pip:\n  - azureml-core\n")).unwrap().server.is_some());
    }

    #[test]
    fn without_a_conda_file() {
        let image = Some("registry.example/base:1".to_owned());
        let plan = Plan::new(&EnvironmentRequest { image: image.clone(), ..EnvironmentRequest::default() }).unwrap();
        assert_eq!(texts(&plan), [SERVER_PACKAGE]);
        assert!(
            plan.warnings[0].contains("registry.example/base:1") && plan.warnings[0].contains("default environment")
        );
        let plan = Plan::new(&EnvironmentRequest { image, ..request("dependencies: [six]") }).unwrap();
        assert!(plan.warnings[0].contains("conda file"));
        let plan = Plan::new(&EnvironmentRequest::default()).unwrap();
        assert!(plan.warnings.is_empty() && plan.notes[0].contains("default environment"));
    }

    #[test]
    fn refusals_name_the_entry_and_the_way_out() {
        for (file, expected) in [
            ("dependencies:\n- six\n- gcc=12\n", "'gcc=12' of the conda file (line 3)"),
            ("dependencies:\n- graphviz\n", "python-graphviz"),
            ("dependencies:\n- python=2|3\n", "alternatives"),
            ("dependencies:\n- numpy=1.26|1.25\n", "choose one"),
            ("dependencies:\n- numpy.*\n", "package name"),
        ] {
            let fault = Plan::new(&request(file)).unwrap_err();
            assert!(fault.message.contains(expected) && fault.code == "ImageBuildFailure", "{}", fault.message);
        }
        let build = EnvironmentRequest { build: true, ..EnvironmentRequest::default() };
        assert!(Plan::new(&build).unwrap_err().message.contains("not available on this platform yet"));
    }

    #[test]
    fn the_same_content_has_the_same_text() {
        let one =
            Plan::new(&request("name: a\ndependencies:\n- numpy=1.26\n- six\n- pip:\n  - joblib # x\n  - dill\n"))
                .unwrap();
        let same =
            Plan::new(&request("name: b\ndependencies: [six, numpy=1.26, pip, {pip: [dill, joblib]}]\n")).unwrap();
        let other = Plan::new(&request("dependencies: [six, numpy=1.25, {pip: [dill, joblib]}]\n")).unwrap();
        let moved = Plan::new(&request("dependencies: [six, {pip: [dill, joblib, numpy==1.26.*]}]\n")).unwrap();
        assert_eq!(one.normalized(), same.normalized());
        assert_ne!(one.normalized(), other.normalized());
        assert_ne!(one.normalized(), moved.normalized(), "the side matters: it decides the date");
    }
}
