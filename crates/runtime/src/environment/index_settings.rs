//! Which package indexes to use and how to reach them: what the host's pip is told, and what the conda file adds.
//!
//! The host's configuration is read as pip reads it and handed on in the words of the installer in use. Nothing is
//! fetched here.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{conda_file::Entry, host::HostVariables, mask::Mask, pip_line::PipLine};

/// Largest configuration file read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Longest time that one request of the installer may be told to wait, in seconds.
const MAX_TIMEOUT_SECONDS: u64 = 600;
/// Where systems keep the certificates they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Variables by which programs other than pip are told a proxy.
const PROXY_VARIABLES: [&str; 8] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// The package indexes and the way there.
#[derive(Clone, Default)]
pub(super) struct IndexSettings {
    pub index_url: Option<String>,
    pub extra_index_urls: Vec<String>,
    /// Addresses of pages with links.
    pub link_pages: Vec<String>,
    /// Directories with packages.
    pub link_dirs: Vec<PathBuf>,
    pub trusted_hosts: Vec<String>,
    pub no_index: bool,
    pub pre_releases: bool,
    /// A file with the certificates to trust.
    pub certificates: Option<PathBuf>,
    pub timeout_seconds: Option<u64>,
    /// Proxy variables, by name.
    pub proxies: BTreeMap<String, String>,
    /// What was set but is not honoured, each as a sentence for the log.
    pub notes: Vec<String>,
}

impl IndexSettings {
    /// Reads pip's configuration files and variables as pip would for `pip install`.
    pub(super) fn of_host(host: &HostVariables) -> Self {
        Self::read(host, Path::new("/"))
    }

    /// As [`Self::of_host`], with the system-wide files looked up under `root`.
    fn read(host: &HostVariables, root: &Path) -> Self {
        let mut values = BTreeMap::new();
        for file in config_files(host, root) {
            let small = std::fs::metadata(&file).is_ok_and(|data| data.is_file() && data.len() <= MAX_FILE_BYTES);
            if let Some(text) = small.then(|| std::fs::read_to_string(&file).ok()).flatten() {
                merge_ini(&text, &mut values);
            }
        }
        for (name, value) in host.iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(key) = name.strip_prefix("PIP_") {
                values.insert(key.to_ascii_lowercase().replace('_', "-"), value.to_owned());
            }
        }
        Self::from_values(&values, host)
    }

    fn from_values(values: &BTreeMap<String, String>, host: &HostVariables) -> Self {
        let words = |key: &str| {
            values.get(key).map(|value| value.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>())
        };
        let one = |key: &str| values.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let flag = |key: &str| {
            one(key).is_some_and(|value| {
                matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on" | "y" | "t")
            })
        };
        let mut settings = Self {
            index_url: one("index-url").or_else(|| one("pypi-url")),
            extra_index_urls: words("extra-index-url").unwrap_or_default(),
            trusted_hosts: words("trusted-host").unwrap_or_default(),
            no_index: flag("no-index"),
            pre_releases: flag("pre"),
            timeout_seconds: one("timeout").or_else(|| one("default-timeout")).and_then(|value| parse_seconds(&value)),
            ..Self::default()
        };
        settings.add_links(words("find-links").unwrap_or_default(), host);
        settings.add_certificates(one("cert"), host);
        for name in PROXY_VARIABLES {
            settings.proxies.extend(host.get(name).map(|value| (name.to_owned(), value.to_owned())));
        }
        if let Some(proxy) = one("proxy") {
            let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
            for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
                settings.proxies.insert(name.to_owned(), proxy.clone());
            }
        }
        if one("client-cert").is_some() {
            settings.notes.push(
                "pip's client-cert setting is not honoured: the build would show the key to foreign code.".to_owned(),
            );
        }
        settings
    }

    fn add_links(&mut self, links: Vec<String>, host: &HostVariables) {
        for link in links {
            if link.starts_with("http://") || link.starts_with("https://") {
                self.link_pages.push(link);
                continue;
            }
            let path = host.expand(link.strip_prefix("file://").unwrap_or(&link));
            match path.canonicalize() {
                Ok(path) if path.is_dir() => self.link_dirs.push(path),
                _ => self.notes.push(format!("pip's find-links entry {link} is not a directory here and is left out.")),
            }
        }
    }

    fn add_certificates(&mut self, configured: Option<String>, host: &HostVariables) {
        let variables =
            ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"].iter().filter_map(|name| host.get(name));
        let candidates =
            configured.as_deref().into_iter().chain(variables).chain(SYSTEM_BUNDLES).map(|file| host.expand(file));
        let configured_is_missing = configured.as_deref().is_some_and(|file| !host.expand(file).is_file());
        self.certificates = candidates.into_iter().find(|file| file.is_file());
        if configured_is_missing {
            self.notes.push(
                "pip's cert setting names a file that does not exist; the system's certificates are used.".to_owned(),
            );
        }
    }

    /// These settings with a conda file's own options over them.
    pub(super) fn with_file(mut self, lines: &[Entry<PipLine>]) -> Self {
        for line in lines {
            match line.value.clone() {
                PipLine::IndexUrl(url) => self.index_url = Some(url),
                PipLine::ExtraIndexUrl(url) => self.extra_index_urls.push(url),
                PipLine::FindLinks(url) => self.link_pages.push(url),
                PipLine::TrustedHost(host) => self.trusted_hosts.push(host),
                PipLine::NoIndex => self.no_index = true,
                PipLine::PreReleases => self.pre_releases = true,
                PipLine::Requirement(_) => {}
            }
        }
        self
    }

    /// The addresses of the package indexes; `default` is the installer's own, used when none is set.
    pub(super) fn indexes(&self, default: Option<&str>) -> Vec<String> {
        if self.no_index {
            return Vec::new();
        }
        let first = self.index_url.as_deref().or(default);
        first.into_iter().map(ToOwned::to_owned).chain(self.extra_index_urls.iter().cloned()).collect()
    }

    /// Whether it is left to the installer which index comes first.
    pub(super) fn needs_default(&self) -> bool {
        self.index_url.is_none() && !self.no_index
    }

    /// Hides the credentials that these settings hold.
    pub(super) fn mask(&self) -> Mask {
        let addresses =
            self.index_url.iter().chain(&self.extra_index_urls).chain(&self.link_pages).chain(self.proxies.values());
        Mask::of_urls(addresses.map(String::as_str))
    }

    /// What uv is told by variables; the certificates, the directories and `no_index` are given otherwise.
    pub(super) fn uv_variables(&self) -> Vec<(String, String)> {
        let mut told = self.common_variables("UV_HTTP_TIMEOUT");
        let mut tell = |name: &str, value: String| told.push((name.to_owned(), value));
        if let Some(url) = &self.index_url {
            tell("UV_INDEX_URL", url.clone());
        }
        if !self.extra_index_urls.is_empty() {
            tell("UV_EXTRA_INDEX_URL", self.extra_index_urls.join(" "));
            // pip takes the best version of all indexes; uv would stop at the first that has the name.
            tell("UV_INDEX_STRATEGY", "unsafe-best-match".to_owned());
        }
        if !self.link_pages.is_empty() {
            tell("UV_FIND_LINKS", self.link_pages.join(","));
        }
        if !self.trusted_hosts.is_empty() {
            tell("UV_INSECURE_HOST", self.trusted_hosts.join(" "));
        }
        if self.pre_releases {
            tell("UV_PRERELEASE", "allow".to_owned());
        }
        told
    }

    /// What pip is told, apart from the certificates.
    pub(super) fn pip_variables(&self) -> Vec<(String, String)> {
        let mut told = self.common_variables("PIP_DEFAULT_TIMEOUT");
        let mut tell = |name: &str, value: String| told.push((name.to_owned(), value));
        if let Some(url) = &self.index_url {
            tell("PIP_INDEX_URL", url.clone());
        }
        let dirs = self.link_dirs.iter().map(|dir| dir.display().to_string());
        let links: Vec<String> = self.link_pages.iter().cloned().chain(dirs).collect();
        for (name, values) in [
            ("PIP_EXTRA_INDEX_URL", &self.extra_index_urls),
            ("PIP_FIND_LINKS", &links),
            ("PIP_TRUSTED_HOST", &self.trusted_hosts),
        ] {
            if !values.is_empty() {
                tell(name, values.join(" "));
            }
        }
        if self.no_index {
            tell("PIP_NO_INDEX", "1".to_owned());
        }
        if self.pre_releases {
            tell("PIP_PRE", "1".to_owned());
        }
        told
    }

    fn common_variables(&self, timeout: &str) -> Vec<(String, String)> {
        let seconds = self.timeout_seconds.map(|seconds| (timeout.to_owned(), seconds.to_string()));
        let proxies = self.proxies.iter().map(|(name, value)| (name.clone(), value.clone()));
        proxies.chain(seconds).collect()
    }
}

fn parse_seconds(text: &str) -> Option<u64> {
    let seconds: u64 = text.split('.').next()?.parse().ok()?;
    (seconds > 0).then(|| seconds.min(MAX_TIMEOUT_SECONDS))
}

/// pip's configuration files, the weakest first.
fn config_files(host: &HostVariables, root: &Path) -> Vec<PathBuf> {
    let named = host.get("PIP_CONFIG_FILE");
    if named == Some("/dev/null") {
        return Vec::new();
    }
    let xdg_dirs = host.get("XDG_CONFIG_DIRS").unwrap_or("/etc/xdg");
    let xdg_dirs: Vec<PathBuf> = std::env::split_paths(xdg_dirs).filter(|dir| dir.is_absolute()).collect();
    let under_root = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let mut files: Vec<PathBuf> = xdg_dirs.iter().rev().map(|dir| under_root(&dir.join("pip/pip.conf"))).collect();
    files.push(under_root(Path::new("/etc/pip.conf")));
    let named = named.map(|file| host.expand(file)).filter(|file| file.is_file());
    if named.is_none()
        && let Some(home) = host.home()
    {
        files.push(home.join(".pip/pip.conf"));
        let config = host.get("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
        files.push(config.join("pip/pip.conf"));
    }
    files.extend(named);
    files
}

/// Lays the values of `[global]` and `[install]` over `values`; `[install]` is the stronger within one file.
pub(super) fn merge_ini(text: &str, values: &mut BTreeMap<String, String>) {
    let mut sections: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    let (mut section, mut key) = ("", None::<String>);
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let held = sections.entry(section).or_default();
        if line.starts_with([' ', '\t'])
            && let Some(key) = &key
        {
            // A continued value.
            let value = held.entry(key.clone()).or_default();
            if !trimmed.is_empty() {
                value.push('\n');
                value.push_str(trimmed);
            }
        } else if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            (section, key) = (name.trim(), None);
        } else if let Some((name, value)) = trimmed.split_once(['=', ':']) {
            let name = name.trim().to_ascii_lowercase().replace('_', "-");
            held.insert(name.clone(), value.trim().to_owned());
            key = Some(name);
        } else {
            key = None;
        }
    }
    for name in ["global", "install"] {
        values.extend(sections.remove(name).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)]) -> HostVariables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn has(variables: &[(String, String)], name: &str, value: &str) -> bool {
        variables.iter().any(|(n, v)| n == name && v == value)
    }

    #[test]
    fn files_and_variables_in_pips_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("etc/pip.conf", "[global]\nindex-url = https://etc.example/simple\ntimeout = 20\nretries=3\n");
        write("etc/xdg/pip/pip.conf", "[global]\nindex-url = https://xdg.example/simple\ntrusted-host = xdg.example\n");
        write(
            "home/.config/pip/pip.conf",
            "; mine\n[global]\nextra_index_url =\n    https://one.example/simple\n    # not this\n    https://two.example/simple\n[install]\nindex-url: https://user.example/simple\n[freeze]\ntimeout = 1\n",
        );
        write("named.conf", "[global]\nindex-url = https://named.example/simple\n");
        let home = dir.path().join("home").display().to_string();
        let named = dir.path().join("named.conf").display().to_string();

        let settings = IndexSettings::read(&host(&[("HOME", &home)]), dir.path());
        assert_eq!(settings.index_url.as_deref(), Some("https://user.example/simple"));
        assert_eq!(settings.extra_index_urls, ["https://one.example/simple", "https://two.example/simple"]);
        assert_eq!((settings.timeout_seconds, settings.trusted_hosts), (Some(20), vec!["xdg.example".to_owned()]));

        let settings = IndexSettings::read(&host(&[("HOME", &home), ("PIP_CONFIG_FILE", &named)]), dir.path());
        assert_eq!(settings.index_url.as_deref(), Some("https://named.example/simple"));
        assert!(settings.extra_index_urls.is_empty(), "a named file takes the place of the user's");

        let variables =
            host(&[("HOME", &home), ("PIP_INDEX_URL", "https://var.example/simple"), ("PIP_DEFAULT_TIMEOUT", "180")]);
        let settings = IndexSettings::read(&variables, dir.path());
        assert_eq!(settings.index_url.as_deref(), Some("https://var.example/simple"));

        let settings = IndexSettings::read(&host(&[("HOME", &home), ("PIP_CONFIG_FILE", "/dev/null")]), dir.path());
        assert_eq!(settings.index_url, None);
    }

    #[test]
    fn told_to_uv_and_to_pip() {
        let dir = tempfile::tempdir().unwrap();
        let wheels = dir.path().join("wheels");
        std::fs::create_dir(&wheels).unwrap();
        let cert = dir.path().join("ca.pem");
        std::fs::write(&cert, "x").unwrap();
        let links = format!("{} /missing/dir https://links.example/page", wheels.display());
        let variables = host(&[
            ("PIP_CONFIG_FILE", "/dev/null"),
            ("PIP_INDEX_URL", "https://me:secret-word@index.example/simple"),
            ("PIP_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple"),
            ("PIP_FIND_LINKS", &links),
            ("PIP_TRUSTED_HOST", "a.example b.example:8080"),
            ("PIP_CERT", cert.to_str().unwrap()),
            ("PIP_TIMEOUT", "99999"),
            ("PIP_PROXY", "user:pass-word@proxy.example:3128"),
            ("PIP_PRE", "1"),
            ("PIP_CLIENT_CERT", "/x.pem"),
            ("NO_PROXY", "local.example"),
        ]);
        let settings = IndexSettings::of_host(&variables);
        assert_eq!(settings.link_dirs, [wheels.canonicalize().unwrap()]);
        assert_eq!(settings.certificates.as_deref(), Some(cert.as_path()));
        assert_eq!(settings.notes.len(), 2, "{:?}", settings.notes);

        let uv = settings.uv_variables();
        for (name, value) in [
            ("UV_INDEX_URL", "https://me:secret-word@index.example/simple"),
            ("UV_EXTRA_INDEX_URL", "https://a.example/simple https://b.example/simple"),
            ("UV_INDEX_STRATEGY", "unsafe-best-match"),
            ("UV_FIND_LINKS", "https://links.example/page"),
            ("UV_INSECURE_HOST", "a.example b.example:8080"),
            ("UV_HTTP_TIMEOUT", "600"),
            ("UV_PRERELEASE", "allow"),
            ("HTTPS_PROXY", "http://user:pass-word@proxy.example:3128"),
            ("NO_PROXY", "local.example"),
        ] {
            assert!(has(&uv, name, value), "{name}={value} is missing in {uv:?}");
        }
        let pip = settings.pip_variables();
        assert!(has(
            &pip,
            "PIP_FIND_LINKS",
            &format!("https://links.example/page {}", settings.link_dirs[0].display())
        ));
        assert!(has(&pip, "PIP_DEFAULT_TIMEOUT", "600") && has(&pip, "PIP_PRE", "1"));
        assert_eq!(settings.mask().apply("secret-word pass-word"), "**** ****");
    }

    #[test]
    fn the_conda_files_options_lie_over_the_hosts() {
        let variables = host(&[("PIP_CONFIG_FILE", "/dev/null"), ("PIP_INDEX_URL", "https://host.example/simple")]);
        let lines: Vec<_> = [
            "--index-url https://file.example/simple",
            "--extra-index-url https://more.example/simple",
            "--pre",
            "six",
        ]
        .iter()
        .map(|text| Entry { value: PipLine::parse(text).unwrap().unwrap(), text: (*text).to_owned(), line: 1 })
        .collect();
        let settings = IndexSettings::of_host(&variables).with_file(&lines);
        assert_eq!(settings.index_url.as_deref(), Some("https://file.example/simple"));
        assert_eq!(settings.extra_index_urls, ["https://more.example/simple"]);
        assert!(settings.pre_releases);
    }
}
