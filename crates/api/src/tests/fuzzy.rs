//! Bytes from outside never make a parser panic, and what it accepts keeps its rules.

use http::Method;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Query, Target,
    arm::filter,
    template::{Deployment, Halt, Known, Place, Template, parse_expression},
};

/// Words of expressions in any order: most are wrong, some are right.
fn expression() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "concat(",
        "if(",
        "equals(",
        "parameters('p')",
        "variables('v')",
        "reference('n')",
        "resourceId(",
        "'A.B/c'",
        "json(",
        "split(",
        "substring(",
        "range(",
        "format(",
        "'{0}'",
        "createArray(",
        "union(",
        "copyIndex()",
        "union(",
        "'x'",
        "''",
        "'ä''",
        ")",
        "(",
        ",",
        ".",
        "[",
        "]",
        "name",
        "0",
        "-1",
        "9223372036854775807",
        "true()",
        " ",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat())
}

fn evaluate(text: &str) -> Option<Halt> {
    let document = json!({
        "$schema": "x/deploymentTemplate.json#",
        "parameters": {"p": {"type": "object", "defaultValue": {"name": [1, "a"]}}},
        "variables": {"v": text},
        "resources": [],
        "outputs": {"o": {"type": "string", "value": text}},
    });
    let place = Place {
        subscription: Uuid::nil(),
        tenant: Uuid::nil(),
        subscription_name: String::new(),
        group: None,
        deployment_name: String::new(),
        location: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let deployment = Deployment::new(Template::parse(&document).unwrap(), &Value::Null, place).unwrap();
    deployment.outputs(&Known::new()).err()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn expressions(text in prop_oneof![expression(), any::<String>()]) {
        let parsed = parse_expression(&text);
        let halted = evaluate(&format!("[{text}]"));
        if parsed.is_err() && !text.starts_with('[') {
            prop_assert!(halted.is_some());
        }
    }

    #[test]
    fn paths(path in prop_oneof![
        any::<String>(),
        prop::collection::vec(prop::sample::select(vec![
            "subscriptions", "SUBSCRIPTIONS", "resourcegroups", "providers", "Providers", "Microsoft.MachineLearningServices",
            "workspaces", "x", "deployments", "operations", "..", "%2f", "%ff", "",
        ]), 0..12).prop_map(|parts| parts.join("/")),
    ]) {
        for method in [Method::GET, Method::POST] {
            if let Ok(Target::Resource(id)) = Target::parse(&method, &path) {
                // The canonical spelling is stable.
                prop_assert_eq!(Target::parse(&method, id.as_str()), Ok(Target::Resource(id)));
            }
        }
        let _ = Query::parse(&path).get("x");
    }

    #[test]
    fn filters(text in prop_oneof![
        any::<String>(),
        prop::collection::vec(prop::sample::select(vec!["name", " eq ", "'a'", "'", " and ", "(", ")", "atScope()", "5"]), 0..12)
            .prop_map(|parts| parts.concat()),
    ]) {
        let _ = filter::parse(Some(&text));
    }
}
