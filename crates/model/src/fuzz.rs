//! What must hold for whatever comes from outside. The targets in `fuzz/` run these on raw bytes, the tests below on
//! generated texts; each panics when a promise is broken.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    asset::{CodeSpec, EnvironmentSpec, ModelSpec},
    deployment::{DeploymentSpec, MAX_REQUEST_TIMEOUT},
    endpoint::EndpointSpec,
    fault::Fault,
    id::{ResourceId, check_serving_name},
    instance_type::instance_size,
    traffic::{Mirror, TrafficSplit},
};

/// An id that is accepted has one canonical form, one type, and a finite line of ancestors that contain it.
pub fn resource_id(text: &str) {
    let Ok(id) = ResourceId::parse(text) else { return };
    let again = ResourceId::parse(id.as_str()).expect("what is shown is accepted again");
    assert_eq!((again.as_str(), again.key()), (id.as_str(), id.key()));
    for other in [id.key(), &id.as_str().to_ascii_uppercase()] {
        let other = ResourceId::parse(other).expect("an id is accepted in any case");
        assert_eq!((&other, other.key()), (&id, id.key()));
        assert!(other.is_type(&id.resource_type()), "{id} and {other} are one resource of two types");
    }
    assert_eq!(serde_json::from_value::<ResourceId>(id.as_str().into()).ok().as_ref(), Some(&id));
    assert!(!id.name().is_empty() && !id.resource_type().is_empty(), "{id}");
    assert_eq!(id.ancestor(&id.resource_type()).as_ref(), Some(&id));
    if let Some(group) = id.resource_group() {
        let subscription = id.subscription().expect("a group lies in a subscription");
        let group = format!("/subscriptions/{subscription}/resourceGroups/{group}");
        assert!(id.is_within(&ResourceId::parse(&group).expect("a group's own id")));
    }
    ancestors(&id);
    // Only what has a provider has children by type and name.
    if id.key().contains("/providers/") && id.as_str().len() < 2000 {
        let child = id.child("deployments", "blue").expect("a plain child");
        assert_eq!((child.parent().as_ref(), child.name()), (Some(&id), "blue"));
        assert_eq!(child.resource_type(), format!("{}/deployments", id.resource_type()));
    }
}

fn ancestors(id: &ResourceId) {
    let mut at = id.clone();
    while let Some(parent) = at.parent() {
        assert_eq!(ResourceId::parse(parent.as_str()).ok().as_ref().map(ResourceId::key), Some(parent.key()));
        assert!(at.is_within(&parent) && id.is_within(&parent) && !parent.is_within(&at), "{parent} of {at}");
        assert!(parent.key().len() < at.key().len());
        at = parent;
    }
}

/// A name that is accepted is a DNS label and a part of an id.
pub fn serving_name(text: &str) {
    if check_serving_name("endpoint", text).is_ok() {
        assert!((3..=32).contains(&text.len()) && text.is_ascii(), "{text}");
        let id = format!("/providers/Microsoft.X/onlineEndpoints/{text}");
        assert_eq!(ResourceId::parse(&id).expect("a name is a part of an id").name(), text);
    }
}

/// Accepted shares add up to 0 or 100, every draw falls in proportion, and a mirror target never serves live traffic.
pub fn traffic(live: &BTreeMap<String, u64>, mirrored: &BTreeMap<String, u64>) {
    let fits = live.values().all(|share| *share <= 100) && matches!(live.values().sum::<u64>(), 0 | 100);
    let Ok(split) = TrafficSplit::new(live.clone()) else {
        assert!(!fits, "{live:?} was refused");
        return;
    };
    assert!(fits, "{live:?} was accepted");
    for (name, share) in live {
        let drawn = (0..100).filter(|draw| split.pick(*draw) == Some(name)).count();
        assert_eq!(u64::try_from(drawn).ok(), Some(*share), "{name} in {live:?}");
    }
    assert_eq!(split.is_empty(), split.pick(0).is_none());
    assert_eq!(split.pick(100), None);
    if let Ok(Some(mirror)) = Mirror::new(mirrored, &split) {
        assert!((1..=50).contains(&mirror.percent) && split.share(&mirror.deployment) == 0, "{mirror:?}");
        assert_eq!(mirrored.get(&mirror.deployment), Some(&u64::from(mirror.percent)));
    }
}

/// The properties of every kind of resource: read or refused; what was read is written in a form that reads the same,
/// and keeps its limits.
pub fn properties(json: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(json) else { return };
    if let Some(spec) = stable(&value, EndpointSpec::from_properties) {
        traffic(&small(&spec.traffic), &small(&spec.mirror_traffic));
        assert_eq!(spec.split().is_ok(), TrafficSplit::new(spec.traffic.clone()).is_ok());
        let _ = spec.mirror();
    }
    if let Some(spec) = stable(&value, DeploymentSpec::from_properties) {
        let settings = spec.request_settings;
        assert!(settings.request_timeout.is_positive() && !settings.max_queue_wait.is_negative());
        assert!(settings.request_timeout.unsigned_abs() <= MAX_REQUEST_TIMEOUT);
        assert!(settings.max_concurrent_requests_per_instance > 0);
        for probe in [spec.liveness_probe, spec.readiness_probe] {
            assert!(probe.period.is_positive() && probe.timeout.is_positive() && probe.failure_threshold > 0);
        }
        let _ = spec.instance_type.as_deref().map(instance_size);
    }
    stable(&value, ModelSpec::from_properties);
    stable(&value, CodeSpec::from_properties);
    stable(&value, EnvironmentSpec::from_properties);
}

/// The arithmetic of [`traffic`] adds with care only what the platform adds with care.
fn small(shares: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    shares.iter().map(|(name, share)| (name.clone(), (*share).min(1000))).collect()
}

fn stable<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, Fault>,
) -> Option<T> {
    let spec = read(value).ok()?;
    let shown = serde_json::to_value(&spec).expect("a spec is JSON");
    assert_eq!(read(&shown).as_ref(), Ok(&spec), "{shown}");
    Some(spec)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    /// Mostly parts of ids, in all spellings, rarely anything else.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::sample::select(vec![
                "subscriptions", "Subscriptions", "resourceGroups", "resourcegroups", "providers", "PROVIDERS",
                "Microsoft.X", "workspaces", "wor\u{212a}spaces", "onlineEndpoints", "5e", "ΑΣ", "İ", ".", "..", "",
            ]).prop_map(str::to_owned),
            1 => "[a-zA-Z0-9._-]{1,12}",
            1 => "\\PC{0,6}",
        ]
    }

    fn shares() -> impl Strategy<Value = BTreeMap<String, u64>> {
        let share =
            prop_oneof![6 => (0_u64..=10).prop_map(|tens| tens * 10), 1 => 0_u64..=101, 1 => Just(u64::from(u32::MAX))];
        prop::collection::btree_map("[a-cA-C]{1,2}", share, 0..5)
    }

    fn field() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-2_i64..200).prop_map(Value::from),
            prop::sample::select(vec![
                "Key",
                "AMLToken",
                "Managed",
                "PT5S",
                "PT0S",
                "-PT1M",
                "P1Y",
                "PT9223372036854775807S",
                "/a",
                "Standard_DS2_v2",
                "x"
            ])
            .prop_map(Value::from),
            shares().prop_map(|shares| serde_json::json!(shares)),
            Just(serde_json::json!({"period": "PT10S", "timeout": "PT2S", "failureThreshold": 1})),
            Just(serde_json::json!({"requestTimeout": "PT180S", "maxQueueWait": "PT0.5S"})),
            Just(serde_json::json!({"scoringScript": "score.py", "codeId": null})),
        ]
    }

    fn body() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "description",
            "traffic",
            "mirrorTraffic",
            "publicNetworkAccess",
            "compute",
            "codeConfiguration",
            "environmentId",
            "model",
            "instanceType",
            "environmentVariables",
            "requestSettings",
            "livenessProbe",
            "readinessProbe",
            "modelUri",
            "codeUri",
            "condaFile",
            "image",
            "build",
            "unknown",
        ]);
        prop::collection::hash_map(key, field(), 0..5).prop_map(|fields| {
            let mut all = serde_json::json!({"authMode": "Key", "endpointComputeType": "Managed"});
            fields.into_iter().for_each(|(key, value)| all[key] = value);
            all
        })
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn ids_of_likely_parts(parts in prop::collection::vec(part(), 0..12), end in "/?") {
            resource_id(&format!("/{}{end}", parts.join("/")));
        }

        #[test]
        fn ids_of_the_right_shape(
            group in prop::option::of("[^/<>%&?#\\\\\\pC]{1,8}"), pairs in prop::collection::vec(("[a-zA-Z]{1,8}", "[^/<>%&?#\\\\\\pC]{1,8}"), 0..4),
        ) {
            let group = group.map(|group| format!("/subscriptions/5e/resourceGroups/{group}")).unwrap_or_default();
            let pairs: String = pairs.iter().map(|(kind, name)| format!("/{kind}/{name}")).collect();
            let provider = if pairs.is_empty() { "" } else { "/providers/Microsoft.X" };
            resource_id(&format!("{group}{provider}{pairs}"));
        }

        #[test]
        fn texts_as_ids_and_names(text in "\\PC{0,40}", name in "[a-zA-Z0-9.-]{0,34}") {
            resource_id(&text);
            serving_name(&text);
            serving_name(&name);
        }

        #[test]
        fn shares_of_traffic(live in shares(), mirrored in shares()) {
            traffic(&live, &mirrored);
        }

        #[test]
        fn shares_that_add_up(cuts in prop::collection::btree_set(1_u64..100, 0..6), mirrored in shares()) {
            let edges: Vec<u64> = [0].into_iter().chain(cuts).chain([100]).collect();
            let live = edges.windows(2).enumerate().map(|(n, edge)| (format!("d{n}"), edge[1] - edge[0])).collect();
            assert!(TrafficSplit::new(BTreeMap::clone(&live)).is_ok());
            traffic(&live, &mirrored);
        }

        #[test]
        fn likely_properties(body in body()) {
            properties(body.to_string().as_bytes());
        }
    }
}
