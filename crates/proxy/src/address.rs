//! What a request is addressed to, from `Host` (or `:authority`), the path and the TLS server name.

use std::{borrow::Cow, collections::HashMap};

use casemate_model::{ResourceId, route::HostRoute, vault};
use http::{HeaderMap, Uri, header::HOST, uri::PathAndQuery};

use crate::answer::Refusal;

/// Where the scoring paths of endpoints and of first-generation services start on hosts that are not their own.
const ENDPOINTS: &str = "/api/v1/endpoint/";
const SERVICES: &str = "/api/v1/service/";

/// What stands between an account's name and the domain in the hosts of the platform's own services.
const PLATFORM_SERVICES: [&str; 3] = ["blob.core", "vault", "registry"];

/// Tells scoring requests from management requests.
pub(crate) struct Address {
    /// `.<region>.inference.<domain>`, lower-case.
    suffix: String,
    /// `.blob.core.<domain>` and so on, lower-case: hosts of the platform's own services, which private endpoints and
    /// deployments may be let through to when nothing else of the platform is open to them. Among them are the names
    /// that vaults and storage accounts have in the public cloud, which lead here from inside a sandbox.
    services: Vec<String>,
}

/// What a request is addressed to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A scoring request.
    Score {
        /// Whom it calls.
        callee: Callee,
        /// What is asked of the model's server; none for a path that no endpoint has, which is said only to those who
        /// may reach the endpoint.
        path: Option<PathAndQuery>,
    },
    /// Everything else.
    Management,
}

/// Who is to answer a scoring request, by lower-case name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callee {
    Endpoint(String),
    Service {
        name: String,
        /// The compute whose host was called, which must be the service's.
        compute: Option<ResourceId>,
    },
}

/// What is found at a host.
enum Place<'a> {
    /// The endpoint with this name, in any case.
    Endpoint(&'a str),
    /// First-generation services.
    Host(&'a HostRoute),
    /// One of the platform's own services.
    Platform,
    /// The management service, and everything by path.
    Other,
}

/// Host names with services, by lower-case name.
pub(crate) type Hosts = HashMap<String, HostRoute>;

impl Address {
    /// Endpoints live at `<endpoint>.<region>.inference.<domain>`.
    pub(crate) fn new(region: &str, domain: &str) -> Self {
        Self {
            suffix: format!(".{region}.inference.{domain}").to_ascii_lowercase(),
            services: PLATFORM_SERVICES
                .map(|service| format!(".{service}.{domain}").to_ascii_lowercase())
                .into_iter()
                .chain([format!(".{}", vault::PUBLIC_SUFFIX), format!(".blob.{}", vault::PUBLIC_STORAGE_SUFFIX)])
                .collect(),
        }
    }

    /// The lower-case host of the endpoint with this lower-case name.
    pub(crate) fn host_of(&self, endpoint: &str) -> String {
        format!("{endpoint}{}", self.suffix)
    }

    /// Reads the target. `server_name` is what the TLS client asked for, if it asked for a name.
    ///
    /// # Errors
    /// 400 for a missing, doubled or malformed host, 421 when it and the server name do not agree about who is called,
    /// 404 for a path that a compute has not.
    pub(crate) fn target(
        &self,
        hosts: &Hosts,
        server_name: Option<&str>,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Target, Refusal> {
        let host = host(uri, headers)?;
        let place = self.place(hosts, host);
        if let Some(server_name) = server_name.map(|name| name.strip_suffix('.').unwrap_or(name))
            && !host.eq_ignore_ascii_case(server_name)
            && !matches!((&place, self.place(hosts, server_name)), (Place::Other, Place::Other))
        {
            return Err(Refusal::misdirected(host, server_name));
        }
        let own = |callee| {
            let known = matches!(uri.path(), "/" | "/score" | "/swagger.json");
            let path = || uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            Target::Score { callee, path: known.then(path) }
        };
        match place {
            Place::Endpoint(name) => Ok(own(Callee::Endpoint(name.to_ascii_lowercase()))),
            Place::Host(HostRoute::Service(name)) => Ok(own(Callee::Service { name: name.clone(), compute: None })),
            Place::Host(HostRoute::Compute(id)) => {
                let found = by_path(uri, SERVICES);
                let (name, path) = found.ok_or_else(|| Refusal::unknown_compute_path(uri.path()))?;
                Ok(Target::Score { callee: Callee::Service { name, compute: Some(id.clone()) }, path: Some(path) })
            }
            // Whoever may reach a service of the platform may not for that reach any endpoint.
            Place::Platform => Ok(Target::Management),
            Place::Other => {
                let endpoint = || by_path(uri, ENDPOINTS).map(|(name, path)| (Callee::Endpoint(name), path));
                let service = || {
                    let found = by_path(uri, SERVICES);
                    found.map(|(name, path)| (Callee::Service { name, compute: None }, path))
                };
                let found = endpoint().or_else(service);
                Ok(found.map_or(Target::Management, |(callee, path)| Target::Score { callee, path: Some(path) }))
            }
        }
    }

    fn place<'a>(&self, hosts: &'a Hosts, host: &'a str) -> Place<'a> {
        if let Some(name) = self.endpoint_of(host) {
            return Place::Endpoint(name);
        }
        if !hosts.is_empty()
            && let Some(route) = hosts.get(&*lower(host))
        {
            return Place::Host(route);
        }
        if self.is_service(host) { Place::Platform } else { Place::Other }
    }

    fn is_service(&self, host: &str) -> bool {
        let ends = |service: &String| {
            let at = host.len().checked_sub(service.len());
            at.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(service))
        };
        self.services.iter().any(ends)
    }

    /// The endpoint whose own host this is.
    fn endpoint_of<'h>(&self, host: &'h str) -> Option<&'h str> {
        let at = host.len().checked_sub(self.suffix.len())?;
        let (label, suffix) = host.split_at_checked(at)?;
        (suffix.eq_ignore_ascii_case(&self.suffix) && !label.is_empty() && !label.contains('.')).then_some(label)
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The lower-case name and the path in `<prefix><name>/(score|swagger.json)`.
fn by_path(uri: &Uri, prefix: &str) -> Option<(String, PathAndQuery)> {
    let (name, path) = uri.path().strip_prefix(prefix)?.split_once('/')?;
    let path = match path {
        "score" => "/score",
        "swagger.json" => "/swagger.json",
        _ => return None,
    };
    let path = match uri.query() {
        // A query that has been parsed once is accepted again.
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")).ok()?,
        None => PathAndQuery::from_static(path),
    };
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), path))
}

/// The host without port and trailing dot. HTTP/1.1 gives it in `Host`, HTTP/2 and absolute targets in the URI; if
/// both are there they must be the same, so that no two readers of a request can disagree.
pub(crate) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
    let bad = |why: &'static str| Refusal::bad_request(why);
    let mut values = headers.get_all(HOST).iter();
    let header = match values.next() {
        Some(value) => Some(value.to_str().map_err(|_| bad("The Host header is not plain text."))?),
        None => None,
    };
    if values.next().is_some() {
        return Err(bad("The request has more than one Host header."));
    }
    let authority = match (uri.authority(), header) {
        (Some(authority), None) => authority.as_str(),
        (None, Some(header)) => header,
        (Some(authority), Some(header)) if authority.as_str().eq_ignore_ascii_case(header) => header,
        (Some(_), Some(_)) => return Err(bad("The request's target and its Host header name different hosts.")),
        (None, None) => return Err(bad("The request names no host.")),
    };
    without_port(authority).ok_or_else(|| bad("The Host header is not a host with an optional port."))
}

fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
        let inner = &host[1..end - 1];
        let fits = inner.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.');
        (Some(host).filter(|_| fits && !inner.is_empty())?, port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let host = host.strip_suffix('.').unwrap_or(host);
        (Some(host).filter(|host| !host.is_empty() && host.bytes().all(fits))?, port)
    };
    let port_fits = port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()));
    port_fits.then_some(host)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use proptest::prelude::*;

    use super::*;

    fn compute() -> ResourceId {
        let workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";
        ResourceId::parse(&format!("{workspace}/computes/pool")).unwrap()
    }

    fn read(server_name: Option<&str>, uri: &str, hosts: &[&str]) -> Result<String, StatusCode> {
        let address = Address::new("Local", "casemate.internal");
        let known = Hosts::from([
            ("www.example.org".to_owned(), HostRoute::Compute(compute())),
            ("one.example.org".to_owned(), HostRoute::Service("one".to_owned())),
        ]);
        let uri: Uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        match address.target(&known, server_name, &uri, &headers) {
            Ok(Target::Score { callee, path }) => {
                let path = path.as_ref().map_or("none", PathAndQuery::as_str);
                Ok(match callee {
                    Callee::Endpoint(name) => format!("{name} {path}"),
                    Callee::Service { name, compute: None } => format!("service {name} {path}"),
                    Callee::Service { name, compute: Some(compute) } => {
                        format!("service {name} of {} {path}", compute.name())
                    }
                })
            }
            Ok(Target::Management) => Ok("management".to_owned()),
            Err(refusal) => Err(refusal.status),
        }
    }

    const BLUE: &str = "blue.local.inference.casemate.internal";
    const WWW: &str = "www.example.org";
    const ACCOUNT: &str = "acct.blob.core.casemate.internal";

    #[test]
    fn targets() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let misdirected = Err(StatusCode::MISDIRECTED_REQUEST);
        let score = |text: &str| Ok(text.to_owned());
        let management = || Ok("management".to_owned());
        let upper = "BLUE.Local.Inference.Casemate.Internal.:8443";
        let full = format!("https://{BLUE}/score");
        for (server_name, uri, hosts, expected) in [
            (Some(BLUE), "/score", &[BLUE][..], score("blue /score")),
            (Some(BLUE), "/score?a=b", &[upper], score("blue /score?a=b")),
            (Some(BLUE), "/", &[BLUE], score("blue /")),
            (Some(BLUE), "/swagger.json?version=3", &[BLUE], score("blue /swagger.json?version=3")),
            (Some(BLUE), "/metrics", &[BLUE], score("blue none")),
            (Some(BLUE), "/score/", &[BLUE], score("blue none")),
            (Some(BLUE), &full, &[], score("blue /score")),
            (Some(BLUE), &full, &[BLUE], score("blue /score")),
            (Some(BLUE), &full, &["localhost"], bad.clone()),
            (None, "/score", &[BLUE], score("blue /score")),
            (None, "/score", &["127.0.0.1:8443"], management()),
            (Some("green.local.inference.casemate.internal"), "/score", &[BLUE], misdirected.clone()),
            (Some(BLUE), "/api/v1/endpoint/green/score", &["localhost"], misdirected.clone()),
            (Some(BLUE), "/subscriptions", &["127.0.0.1"], misdirected.clone()),
            (Some("localhost"), "/score", &[BLUE], misdirected.clone()),
            (Some("localhost"), "/subscriptions?api-version=1", &["127.0.0.1:8443"], management()),
            (None, "/api/v1/endpoint/Blue/score", &["127.0.0.1:8443"], score("blue /score")),
            (
                None,
                "/api/v1/endpoint/blue/swagger.json?version=2",
                &["[::1]:8443"],
                score("blue /swagger.json?version=2"),
            ),
            (Some(ACCOUNT), "/c/file", &[ACCOUNT], management()),
            (Some(ACCOUNT), "/c/file", &["Acct.blob.core.casemate.internal:443"], management()),
            (Some(ACCOUNT), "/subscriptions", &["127.0.0.1:8443"], misdirected.clone()),
            (Some(ACCOUNT), "/api/v1/endpoint/blue/score", &["localhost"], misdirected.clone()),
            (Some(ACCOUNT), "/api/v1/endpoint/blue/score", &[ACCOUNT], management()),
            (Some(ACCOUNT), "/c/file", &["other.blob.core.casemate.internal"], misdirected.clone()),
            (Some(ACCOUNT), "/score", &[BLUE], misdirected.clone()),
            (Some("kv.vault.casemate.internal"), "/subscriptions", &["localhost"], misdirected.clone()),
            (Some("localhost"), "/subscriptions", &["r.registry.casemate.internal"], misdirected.clone()),
            (Some("kv1.vault.azure.net"), "/secrets/a", &["kv1.vault.azure.net"], management()),
            (Some("kv1.vault.azure.net"), "/secrets/a", &["kv2.vault.azure.net"], misdirected.clone()),
            (Some("a.blob.core.windows.net"), "/subscriptions", &["localhost"], misdirected.clone()),
            (Some(WWW), "/api/v1/service/Two/score?a", &["WWW.example.org:443"], score("service two of pool /score?a")),
            (None, "/api/v1/service/two/swagger.json", &[WWW], score("service two of pool /swagger.json")),
            (None, "/score", &[WWW], Err(StatusCode::NOT_FOUND)),
            (None, "/api/v1/endpoint/blue/score", &[WWW], Err(StatusCode::NOT_FOUND)),
            (None, "/subscriptions", &[WWW], Err(StatusCode::NOT_FOUND)),
            (Some(WWW), "/api/v1/service/two/score", &["localhost"], misdirected.clone()),
            (Some("localhost"), "/api/v1/service/two/score", &[WWW], misdirected.clone()),
            (Some(WWW), "/score", &["one.example.org"], misdirected.clone()),
            (Some(BLUE), "/api/v1/service/two/score", &[WWW], misdirected),
            (Some("one.example.org"), "/score", &["One.example.org."], score("service one /score")),
            (None, "/", &["one.example.org"], score("service one /")),
            (None, "/api/v1/service/two/score", &["one.example.org"], score("service one none")),
            (None, "/api/v1/service/Two/score", &["10.0.0.1"], score("service two /score")),
            (None, "/api/v1/service/two/other", &["a"], management()),
            (None, "/api/v1/service/two/score", &[ACCOUNT], management()),
            (None, "/api/v1/endpoint/blue/score", &["r.registry.casemate.internal"], management()),
            (None, "/api/v1/endpoint//score", &["a"], management()),
            (None, "/api/v1/endpoint/blue/other", &["a"], management()),
            (None, "/api/v1/endpoint/a/b/score", &["a"], management()),
            (None, "/", &["a.blue.local.inference.casemate.internal"], management()),
            (None, "/", &[".local.inference.casemate.internal"], management()),
            (None, "*", &["a"], management()),
            (None, "/score", &[], bad.clone()),
            (None, "/score", &[BLUE, BLUE], bad.clone()),
            (None, "/score", &["a b"], bad.clone()),
            (None, "/score", &["a@b"], bad.clone()),
            (None, "/score", &[""], bad.clone()),
            (None, "/score", &["a:b"], bad.clone()),
            (None, "/score", &["a:123456"], bad.clone()),
            (None, "/score", &["[::1"], bad.clone()),
            (None, "/score", &["[::1]x"], bad.clone()),
            (None, "/score", &["[]"], bad.clone()),
            (None, "/score", &["a,b"], bad.clone()),
            (None, "/score", &["bücher"], bad),
        ] {
            assert_eq!(read(server_name, uri, hosts), expected, "{server_name:?} {uri} {hosts:?}");
        }
    }

    proptest! {
        #[test]
        fn any_host_is_read_or_refused(host in "[ -~]{0,60}") {
            if let Some(bare) = without_port(&host) {
                prop_assert!(!bare.is_empty() && host.starts_with(bare));
                prop_assert_eq!(without_port(bare), Some(bare.strip_suffix('.').unwrap_or(bare)));
            }
        }

        #[test]
        fn every_endpoint_is_found_at_its_host(name in "[a-zA-Z][-a-zA-Z0-9]{1,30}[a-zA-Z0-9]", port in proptest::option::of(0_u16..)) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let host = format!("{name}.local.inference.casemate.internal{port}");
            let lower = name.to_ascii_lowercase();
            prop_assert_eq!(read(None, "/score", &[&host]), Ok(format!("{lower} /score")));
            prop_assert_eq!(read(None, &format!("/api/v1/endpoint/{name}/score"), &["localhost"]), Ok(format!("{lower} /score")));
        }

        #[test]
        fn no_server_name_reaches_another_endpoint(one in "[a-z]{3,8}", other in "[a-z]{3,8}") {
            prop_assume!(one != other);
            let host = |name: &str| format!("{name}.local.inference.casemate.internal");
            prop_assert_eq!(read(Some(&host(&one)), "/score", &[&host(&other)]), Err(StatusCode::MISDIRECTED_REQUEST));
        }
    }
}
