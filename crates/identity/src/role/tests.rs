//! Tests of roles.

use casemate_model::SystemData;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const ML: &str = "Microsoft.MachineLearningServices/workspaces";
const SUBSCRIPTION: &str = "/subscriptions/S";

fn group(name: &str) -> ResourceId {
    ResourceId::parse(&format!("{SUBSCRIPTION}/resourceGroups/{name}")).unwrap()
}

fn endpoint(group_name: &str, name: &str) -> ResourceId {
    ResourceId::parse(&format!("{}/providers/{ML}/w/onlineEndpoints/{name}", group(group_name))).unwrap()
}

fn assignment(principal: u128, role_id: &str, scope: &ResourceId) -> Assignment {
    Assignment { principal_id: Uuid::from_u128(principal), role_id: role_id.to_owned(), scope: scope.clone() }
}

#[test]
fn what_each_role_allows() {
    let [read, write, delete] = ["read", "write", "delete"].map(|verb| format!("{ML}/{verb}"));
    let score = format!("{ML}/onlineEndpoints/score/action");
    let keys = format!("{ML}/onlineEndpoints/listKeys/action");
    let endpoint_read = format!("{ML}/onlineEndpoints/read");
    let endpoint_write = format!("{ML}/onlineEndpoints/write");
    let deployment_delete = format!("{ML}/onlineEndpoints/deployments/delete");
    let compute_write = format!("{ML}/computes/write");
    let assign = "Microsoft.Authorization/roleAssignments/write".to_owned();
    let unassign = "microsoft.authorization/roleassignments/DELETE".to_owned();
    let assignments_read = "Microsoft.Authorization/roleAssignments/read".to_owned();
    let group_write = "Microsoft.Resources/subscriptions/resourceGroups/write".to_owned();
    //                          Owner  Contrib Reader Scientist Scorer
    let table = [
        (&read, [true, true, true, true, false]),
        (&write, [true, true, false, false, false]),
        (&delete, [true, true, false, false, false]),
        (&score, [true, true, false, true, true]),
        (&keys, [true, true, false, true, false]),
        (&endpoint_read, [true, true, true, true, true]),
        (&endpoint_write, [true, true, false, true, false]),
        (&deployment_delete, [true, true, false, true, false]),
        (&compute_write, [true, true, false, false, false]),
        (&assign, [true, false, false, false, false]),
        (&unassign, [true, false, false, false, false]),
        (&assignments_read, [true, true, true, false, false]),
        (&group_write, [true, true, false, false, false]),
    ];
    for (action, wanted) in table {
        let roles = [OWNER, CONTRIBUTOR, READER, DATA_SCIENTIST, ENDPOINT_SCORER].map(|role| find(role).unwrap());
        for action in [action.clone(), action.to_uppercase(), action.to_lowercase()] {
            assert_eq!(roles.map(|role| role.allows(&action)), wanted, "{action}");
        }
    }
}

#[test]
fn an_assignment_holds_at_its_scope_and_inside_it_for_its_principal() {
    let action = format!("{ML}/onlineEndpoints/score/action");
    let subscription = ResourceId::parse(SUBSCRIPTION).unwrap();
    let upper = ResourceId::parse(&group("g").as_str().to_uppercase()).unwrap();
    let table = [
        (vec![], false),
        (vec![assignment(1, OWNER, &subscription)], true),
        (vec![assignment(1, OWNER, &group("g"))], true),
        (vec![assignment(1, &OWNER.to_uppercase(), &upper)], true),
        (vec![assignment(1, OWNER, &group("g2"))], false),
        (vec![assignment(1, OWNER, &endpoint("g", "ep2"))], false),
        (vec![assignment(1, ENDPOINT_SCORER, &endpoint("g", "ep"))], true),
        (vec![assignment(2, OWNER, &subscription)], false),
        (vec![assignment(1, "no such role", &subscription)], false),
        (vec![assignment(1, READER, &subscription)], false),
        (vec![assignment(1, READER, &subscription), assignment(1, ENDPOINT_SCORER, &group("g"))], true),
        (vec![assignment(1, READER, &group("g")), assignment(2, OWNER, &group("g"))], false),
    ];
    for (assignments, wanted) in table {
        assert_eq!(allowed(&assignments, Uuid::from_u128(1), &action, &endpoint("g", "ep")), wanted, "{assignments:?}");
    }
}

#[test]
fn what_one_role_takes_away_another_gives() {
    let assign = "Microsoft.Authorization/roleAssignments/write";
    let contributor = assignment(1, CONTRIBUTOR, &group("g"));
    let owner = assignment(1, OWNER, &endpoint("g", "ep"));
    let both = [contributor, owner];
    assert!(!allowed(&both, Uuid::from_u128(1), assign, &group("g")));
    assert!(allowed(&both, Uuid::from_u128(1), assign, &endpoint("g", "ep")));
}

#[test]
fn an_assignment_is_read_from_its_resource_or_gives_nothing() {
    let principal = Uuid::from_u128(1);
    let resource = |id: &str, properties: Value, deleting: bool| Resource {
        id: ResourceId::parse(id).unwrap(),
        body: json!({ "properties": properties }),
        observed: Map::new(),
        generation: 1,
        etag: String::new(),
        deleting,
        system: SystemData {
            created_by: String::new(),
            created_by_type: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            last_modified_by: String::new(),
            last_modified_by_type: String::new(),
            last_modified_at: Timestamp::UNIX_EPOCH,
        },
    };
    let id = format!("{}/providers/Microsoft.Authorization/roleAssignments/x", endpoint("g", "ep"));
    let full = format!("{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{}", OWNER.to_uppercase());
    let good = json!({ "principalId": principal, "roleDefinitionId": full });
    let bare = json!({ "principalId": principal, "roleDefinitionId": OWNER });
    let wanted = Some(assignment(1, OWNER, &endpoint("g", "ep")));
    assert_eq!(Assignment::from_resource(&resource(&id, good.clone(), false)), wanted);
    assert_eq!(Assignment::from_resource(&resource(&id.to_uppercase(), bare, false)), wanted);
    assert_eq!(Assignment::from_resource(&resource(&id, good.clone(), true)), None);
    assert_eq!(Assignment::from_resource(&resource(group("g").as_str(), good.clone(), false)), None);
    let nowhere = "/providers/Microsoft.Authorization/roleAssignments/x";
    assert_eq!(Assignment::from_resource(&resource(nowhere, good, false)), None);
    for bad in [
        json!(null),
        json!({ "principalId": principal }),
        json!({ "roleDefinitionId": OWNER }),
        json!({ "principalId": "me", "roleDefinitionId": OWNER }),
        json!({ "principalId": principal, "roleDefinitionId": 7 }),
    ] {
        assert_eq!(Assignment::from_resource(&resource(&id, bad.clone(), false)), None, "{bad}");
    }
}

#[test]
fn roles_are_found_by_id_and_by_name() {
    assert_eq!(find("contributor").unwrap().id, CONTRIBUTOR);
    assert_eq!(find(&READER.to_uppercase()).unwrap().name, "Reader");
    assert_eq!(find(""), None);
    let ids: std::collections::HashSet<&str> = definitions().iter().map(|role| role.id).collect();
    assert_eq!(ids.len(), definitions().len());
    assert!(ids.iter().all(|id| Uuid::parse_str(id).is_ok()));
}

#[test]
fn a_star_stands_for_any_characters() {
    for (pattern, text, wanted) in [
        ("*", "", true),
        ("*", "a/b", true),
        ("*/read", "a/b/READ", true),
        ("*/read", "read", false),
        ("*/read", "a/read/x", false),
        ("a/*/b", "a/x/y/b", true),
        ("a/*/b", "a//b", true),
        ("a/*/b", "a/b", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*a*b*", "xxaxxbxx", true),
        ("*a*b*", "xxbxxaxx", false),
        ("", "", true),
        ("", "a", false),
        ("a", "", false),
    ] {
        assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
    }
}

/// The definition of a match, by trying all splits.
fn matches_slowly(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|taken| matches_slowly(rest, &text[taken..])),
        Some((byte, rest)) => {
            text.first().is_some_and(|first| first.eq_ignore_ascii_case(byte)) && matches_slowly(rest, &text[1..])
        }
    }
}

proptest! {
    #[test]
    fn matching_is_as_defined(pattern in "[ab/*]{0,8}", text in "[abA/]{0,10}") {
        prop_assert_eq!(matches(&pattern, &text), matches_slowly(pattern.as_bytes(), text.as_bytes()));
    }
}
