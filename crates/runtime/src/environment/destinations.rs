//! Where the commands of a build may go: the package indexes that this machine's operator has configured, the places
//! that those name for their files, and the operator's proxies.
//!
//! A conda file comes from a user, so it adds nothing here; what it names beyond these is refused before anything runs.
//! All else that a command tries is refused by the gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use casemate_model::{
    Fault,
    egress::{EgressPolicy, HostName, HostPattern, IsolationMode, PortRanges, PrivateDestination, Rule, Target},
};

use super::{
    audience::Audience,
    failure,
    index_files::sites_of_files,
    index_settings::IndexSettings,
    mask::mask_urls,
    pip_line::PipLine,
    plan::{Plan, SERVER_PACKAGE},
    site::{Site, SiteHost},
};

const INDEX: &str = "package-index";
const FILES: &str = "package-files";
const PROXY: &str = "proxy";
/// Variables whose values are proxies.
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// How the operator lets builds reach another place.
const WAY_OUT: &str = "let the operator of this machine add its address to the platform's pip configuration \
                       (extra-index-url or find-links in pip.conf, or PIP_EXTRA_INDEX_URL) and start the platform again";

/// The places that a build may reach, each with the name of the rule that says so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Destinations(BTreeMap<Site, &'static str>);

impl Destinations {
    /// What the operator's own settings name. `default_index` is the installer's own, which counts when the operator
    /// has named none.
    pub(super) fn configured(operator: &IndexSettings, default_index: Option<&str>) -> Self {
        let mut sites = BTreeMap::new();
        let proxies = operator.proxies.iter().filter(|(name, _)| !NO_PROXY.contains(&name.as_str()));
        let proxies = proxies.filter_map(|(_, value)| {
            let with_scheme = if value.contains("://") { value.clone() } else { format!("http://{value}") };
            Site::of_text(&with_scheme)
        });
        sites.extend(proxies.map(|site| (site, PROXY)));
        let indexes = operator.indexes(default_index);
        let pages = indexes.iter().chain(&operator.link_pages).filter_map(|url| Site::of_text(url));
        sites.extend(pages.map(|site| (site, INDEX)));
        Self(sites)
    }

    /// Refuses a plan that names a place of its own.
    ///
    /// # Errors
    /// `ImageBuildFailure` naming the entry of the conda file, and the ways out.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), Fault> {
        for option in &plan.options {
            let (PipLine::IndexUrl(url) | PipLine::ExtraIndexUrl(url) | PipLine::FindLinks(url)) = &option.value else {
                continue;
            };
            self.require(url, || {
                format!("The line '{}' of the conda file (line {})", option.text.trim(), option.line)
            })?;
        }
        for requirement in plan.requirements() {
            if let Some(url) = requirement.address() {
                self.require(url, || format!("The dependency '{}' of the conda file", requirement.text))?;
            }
        }
        Ok(())
    }

    fn require(&self, url: &str, what: impl Fn() -> String) -> Result<(), Fault> {
        let site = Site::of_text(url);
        if site.as_ref().is_some_and(|site| self.0.contains_key(site)) {
            return Ok(());
        }
        let place = site.map_or_else(|| "something else than http or https".to_owned(), |site| site.to_string());
        Err(failure::invalid(format!(
            "{} leads to {place}, which environment builds don't reach: they use the package indexes that the operator of \
             this machine has configured. Name a package of these, or {WAY_OUT}.",
            mask_urls(&what())
        ))
        .at("condaFile"))
    }

    /// Adds the places where the operator's indexes keep their files, by the indexes' own pages.
    pub(super) async fn learn(
        &mut self,
        operator: &IndexSettings,
        default_index: Option<&str>,
        plan: &Plan,
        audience: &Audience,
    ) {
        let mut projects = vec![SERVER_PACKAGE.to_owned()];
        let named = plan.requirements().filter(|requirement| requirement.address().is_none());
        projects.extend(named.map(|requirement| requirement.name.clone()));
        projects.dedup();
        let indexes = operator.indexes(default_index);
        let (sites, failures) = sites_of_files(operator, &indexes, &operator.link_pages, &projects).await;
        for site in sites {
            self.0.entry(site).or_insert(FILES);
        }
        for failure in failures {
            tracing::debug!(failure, "where a package index keeps its files can't be asked");
        }
        audience.line(&self.sentence());
    }

    /// What may be reached, as a sentence for the log.
    fn sentence(&self) -> String {
        if self.0.is_empty() {
            return "Network: nothing can be reached, since no package index is configured.".to_owned();
        }
        let sites: Vec<String> = self.0.iter().map(|(site, rule)| format!("{site} ({rule})")).collect();
        format!("Network: only {} can be reached.", sites.join(", "))
    }

    /// The policy that lets through what is listed here and nothing else. Whatever address these names have, a private
    /// one too, is fine: they are the operator's own choice.
    pub(super) fn policy(&self) -> EgressPolicy {
        let rules = self.0.iter().filter_map(|(site, name)| {
            let target = match &site.host {
                SiteHost::Name(host) => {
                    let host = HostName::parse(host).ok()?;
                    Target::Private {
                        names: vec![HostPattern::Exact(host.clone())],
                        to: PrivateDestination::Name(host),
                    }
                }
                SiteHost::Address(address) => {
                    Target::Private { names: Vec::new(), to: PrivateDestination::Address(*address) }
                }
            };
            let ports = PortRanges::parse(&site.port.to_string()).ok()?;
            Some(Rule { name: (*name).to_owned(), target, ports, protocols_tcp: true })
        });
        EgressPolicy {
            mode: IsolationMode::AllowOnlyApprovedOutbound,
            rules: rules.collect(),
            ..EgressPolicy::default()
        }
    }

    /// The places on this machine's loopback interface. A sandbox has a loopback interface of its own, so the platform
    /// has to stand in for them there.
    pub(super) fn on_loopback(&self) -> Vec<SocketAddr> {
        let services: BTreeSet<SocketAddr> = self.0.keys().filter_map(Site::on_loopback).collect();
        services.into_iter().collect()
    }

    /// What to do about a place that was refused.
    pub(super) fn advice() -> String {
        format!("If the environment can't be built without it, {WAY_OUT}.")
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::EnvironmentRequest;

    fn operator() -> IndexSettings {
        IndexSettings {
            index_url: Some("https://index.example/simple".to_owned()),
            extra_index_urls: vec!["http://localhost:3141/root/dev".to_owned()],
            link_pages: vec!["http://10.0.0.5/wheels".to_owned()],
            proxies: [("HTTPS_PROXY", "proxy.example:3128"), ("no_proxy", "index.example")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..IndexSettings::default()
        }
    }

    #[test]
    fn what_the_operator_configured_is_reached_and_nothing_else() {
        let destinations = Destinations::configured(&operator(), Some("https://default.example/simple"));
        assert_eq!(
            destinations.sentence(),
            "Network: only index.example:443 (package-index), localhost:3141 (package-index), proxy.example:3128 (proxy), \
             10.0.0.5:80 (package-index) can be reached."
        );
        assert_eq!(destinations.on_loopback(), ["127.0.0.1:3141".parse().unwrap()]);
        let policy = destinations.policy();
        let name = |name: &str, port| policy.name(&HostName::parse(name).unwrap(), port).is_allowed();
        assert!(name("index.example", 443) && name("proxy.example", 3128));
        assert!(policy.address("10.0.0.5".parse().unwrap(), 80).is_allowed());
        for (host, port) in
            [("index.example", 80), ("evil.example", 443), ("a.index.example", 443), ("default.example", 443)]
        {
            assert!(!name(host, port), "{host}:{port}");
        }
        for (address, port) in [("10.0.0.5", 81), ("10.0.0.6", 80), ("1.1.1.1", 443), ("169.254.169.254", 80)] {
            assert!(!policy.address(address.parse().unwrap(), port).is_allowed(), "{address}:{port}");
        }
    }

    #[test]
    fn the_installers_own_index_counts_when_none_is_configured() {
        let default = Some("https://default.example/simple");
        let destinations = Destinations::configured(&IndexSettings::default(), default);
        assert_eq!(destinations.sentence(), "Network: only default.example:443 (package-index) can be reached.");
        let without = IndexSettings { no_index: true, ..operator() };
        assert!(!Destinations::configured(&without, default).sentence().contains("package-index), localhost"));
        let nothing = IndexSettings { no_index: true, ..IndexSettings::default() };
        let nothing = Destinations::configured(&nothing, default);
        assert!(nothing.sentence().contains("nothing can be reached") && nothing.policy().rules.is_empty());
    }

    #[test]
    fn a_conda_file_adds_nothing() {
        let destinations = Destinations::configured(&operator(), None);
        let check = |line: &str| {
            let conda_file = serde_json::json!({"dependencies": [{"pip": ["six", line]}]}).to_string();
            let request = EnvironmentRequest { conda_file: Some(conda_file), ..EnvironmentRequest::default() };
            destinations.check(&Plan::new(&request).unwrap())
        };
        for fine in [
            "--index-url https://robot:secret-word@index.example/other",
            "--find-links http://10.0.0.5/x",
            "own @ https://index.example/files/own-1.0-py3-none-any.whl",
            "--pre",
        ] {
            check(fine).unwrap();
        }
        for (line, words) in [
            ("--index-url http://index.example/simple", "leads to index.example:80"),
            ("--extra-index-url https://robot:secret-word@other.example/simple", "leads to other.example:443"),
            ("--find-links https://other.example/links", "(line 1) leads to other.example:443"),
            ("own @ https://other.example/own.whl", "The dependency 'own @ https://other.example/own.whl'"),
            ("own @ git+https://other.example/own.git", "leads to other.example:443"),
            ("own @ git+ssh://git@index.example/own.git", "something else than http"),
        ] {
            let fault = check(line).unwrap_err();
            assert!(fault.message.contains(words) && fault.message.contains("pip.conf"), "{}", fault.message);
            assert!(!fault.message.contains("secret-word"), "{}", fault.message);
        }
    }
}
