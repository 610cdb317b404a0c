//! What must hold for whatever a request is addressed to. The target in `fuzz/` runs this on raw bytes, the tests
//! below on generated texts; it panics when a promise is broken.

use casemate_model::{ResourceId, route::HostRoute};
use http::{HeaderMap, HeaderValue, Uri, header::HOST};

use crate::address::{Address, Callee, Hosts, Target};

const POOL: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/computes/pool";
const SUFFIX: &str = ".local.inference.casemate.internal";

/// A request is addressed to one endpoint, one service, the management service, or nobody; never to whom the TLS client
/// did not ask for, and the path that is forwarded is one of the model server's.
pub fn address(server_name: Option<&str>, uri: &str, hosts: &[&[u8]]) {
    let Ok(uri) = uri.parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    for host in hosts {
        let Ok(host) = HeaderValue::from_bytes(host) else { return };
        headers.append(HOST, host);
    }
    let address = Address::new("local", "casemate.internal");
    let pool = ResourceId::parse(POOL).expect("an id");
    let known = Hosts::from([
        ("ab".to_owned(), HostRoute::Compute(pool.clone())),
        ("ba".to_owned(), HostRoute::Service("one".to_owned())),
    ]);
    let Ok(target) = address.target(&known, server_name, &uri, &headers) else { return };
    assert!(hosts.len() <= 1, "two hosts were accepted");
    let own_name =
        server_name.and_then(|name| name.len().checked_sub(SUFFIX.len()).map(|at| name.split_at_checked(at)));
    let own_name = own_name
        .flatten()
        .filter(|(name, rest)| !name.is_empty() && !name.contains('.') && rest.eq_ignore_ascii_case(SUFFIX));
    let named = |name: &str| server_name.is_some_and(|asked| asked.eq_ignore_ascii_case(name));
    match target {
        Target::Score { callee, path } => {
            let (Callee::Endpoint(name) | Callee::Service { name, .. }) = &callee;
            assert!(!name.is_empty() && !name.contains('/') && *name == name.to_ascii_lowercase());
            if let Some(path) = path {
                assert!(matches!(path.path(), "/" | "/score" | "/swagger.json"), "{path}");
                assert_eq!(path.query(), uri.query());
            }
            if let Some((name, _)) = own_name {
                assert_eq!(callee, Callee::Endpoint(name.to_ascii_lowercase()), "{name} reached another");
            }
            if named("ab") {
                assert!(matches!(&callee, Callee::Service { compute: Some(id), .. } if *id == pool), "{callee:?}");
            }
            if named("ba") {
                assert_eq!(callee, Callee::Service { name: "one".to_owned(), compute: None });
            }
        }
        Target::Management => {
            let own = own_name.is_some() || named("ab") || named("ba");
            assert!(!own, "{server_name:?} reached the management service");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => ("[a-bA-B]{1,2}", prop::sample::select(vec![SUFFIX, ".Local.INFERENCE.casemate.internal", ".x.inference.casemate.internal", ""]), prop::sample::select(vec!["", ".", ":1", ".:8443", ":"]))
                .prop_map(|(name, suffix, end)| format!("{name}{suffix}{end}")),
            1 => prop::sample::select(vec!["127.0.0.1:8443", "[::1]:1", "localhost", SUFFIX]).prop_map(str::to_owned),
            1 => "[ -~]{0,30}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn likely_addresses(
            server_name in prop::option::of(host()),
            authority in prop::option::weighted(0.3, host()),
            path in "(/|/score|/swagger\\.json|/subscriptions|/api/v1/(endpoint|service)/[abAB]{0,2}/(score|swagger\\.json|x))",
            query in "(\\?[a-z=&%/?]{0,8})?",
            hosts in prop::collection::vec(host(), 0..3),
        ) {
            let start = authority.map(|host| format!("https://{host}")).unwrap_or_default();
            let hosts: Vec<&[u8]> = hosts.iter().map(|host| host.as_bytes()).collect();
            address(server_name.as_deref(), &format!("{start}{path}{query}"), &hosts);
        }
    }
}
