//! What a request is addressed to, from `Host` (or `:authority`), the path and the TLS server name.

use std::borrow::Cow;

use http::{HeaderMap, Uri, header::HOST, uri::PathAndQuery};

use crate::answer::Refusal;

/// Where the scoring paths start on hosts that are not an endpoint's own.
const PATH_PREFIX: &str = "/api/v1/endpoint/";

/// What stands between an account's name and the domain in the hosts of the platform's own services.
const SERVICES: [&str; 3] = ["blob.core", "vault", "registry"];

/// Tells scoring requests from management requests.
pub(crate) struct Address {
    /// `.<region>.inference.<domain>`, lower-case.
    suffix: String,
    /// `.blob.core.<domain>` and so on, lower-case: hosts of the platform's own services, which private endpoints and
    /// deployments may be let through to when nothing else of the platform is open to them.
    services: [String; 3],
}

/// What a request is addressed to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// A scoring request.
    Score {
        /// Lower-case name of the endpoint.
        endpoint: Cow<'a, str>,
        /// What is asked of the model's server; none for a path that no endpoint has, which is said only to those who
        /// may reach the endpoint.
        path: Option<PathAndQuery>,
    },
    /// Everything else.
    Management,
}

impl Address {
    /// Endpoints live at `<endpoint>.<region>.inference.<domain>`.
    pub(crate) fn new(region: &str, domain: &str) -> Self {
        Self {
            suffix: format!(".{region}.inference.{domain}").to_ascii_lowercase(),
            services: SERVICES.map(|service| format!(".{service}.{domain}").to_ascii_lowercase()),
        }
    }

    /// Reads the target. `server_name` is what the TLS client asked for, if it asked for a name.
    ///
    /// # Errors
    /// 400 for a missing, doubled or malformed host, 421 when it and the server name do not agree about the endpoint or
    /// the service.
    pub(crate) fn target<'a>(
        &self,
        server_name: Option<&str>,
        uri: &'a Uri,
        headers: &'a HeaderMap,
    ) -> Result<Target<'a>, Refusal> {
        let host = host(uri, headers)?;
        let endpoint = self.endpoint_of(host);
        let service = self.is_service(host);
        if let Some(server_name) = server_name {
            let named = self.endpoint_of(server_name);
            let agree = match (endpoint, named) {
                (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
                (None, None) if service || self.is_service(server_name) => host.eq_ignore_ascii_case(server_name),
                (None, None) => true,
                _ => false,
            };
            if !agree {
                return Err(Refusal::misdirected(host, server_name));
            }
        }
        let Some(endpoint) = endpoint else {
            // Whoever may reach a service may not for that reach any endpoint.
            return Ok(if service { Target::Management } else { by_path(uri) });
        };
        let known = matches!(uri.path(), "/" | "/score" | "/swagger.json");
        let path = || uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Target::Score { endpoint: lower(endpoint), path: known.then(path) })
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

/// `/api/v1/endpoint/<endpoint>/(score|swagger.json)` on any other host.
fn by_path(uri: &Uri) -> Target<'_> {
    let parts = uri.path().strip_prefix(PATH_PREFIX).and_then(|rest| rest.split_once('/'));
    let (endpoint, path) = match parts {
        Some((endpoint, "score")) if !endpoint.is_empty() => (endpoint, "/score"),
        Some((endpoint, "swagger.json")) if !endpoint.is_empty() => (endpoint, "/swagger.json"),
        _ => return Target::Management,
    };
    let path = match uri.query() {
        // A query that has been parsed once is accepted again.
        Some(query) => match PathAndQuery::try_from(format!("{path}?{query}")) {
            Ok(path) => path,
            Err(_) => return Target::Management,
        },
        None => PathAndQuery::from_static(path),
    };
    Target::Score { endpoint: lower(endpoint), path: Some(path) }
}

/// The host without port and trailing dot. HTTP/1.1 gives it in `Host`, HTTP/2 and absolute targets in the URI; if
/// both are there they must be the same, so that no two readers of a request can disagree.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
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

    fn read(server_name: Option<&str>, uri: &str, hosts: &[&str]) -> Result<String, StatusCode> {
        let address = Address::new("Local", "casemate.internal");
        let uri: Uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        match address.target(server_name, &uri, &headers) {
            Ok(Target::Score { endpoint, path }) => {
                Ok(format!("{endpoint} {}", path.as_ref().map_or("none", PathAndQuery::as_str)))
            }
            Ok(Target::Management) => Ok("management".to_owned()),
            Err(refusal) => Err(refusal.status),
        }
    }

    const BLUE: &str = "blue.local.inference.casemate.internal";
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
            (Some("localhost"), "/subscriptions", &["r.registry.casemate.internal"], misdirected),
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
