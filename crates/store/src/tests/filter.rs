//! Filters against the model's own idea of containment, and their use of indexes.

use std::collections::BTreeSet;

use casemate_model::ResourceId;
use proptest::prelude::*;
use sqlx::Row;

use super::{Fixture, body, group, id, workspace};
use crate::{Filter, query};

/// Names whose order around the slash is treacherous: '-' and '.' sort before it, '0' right after it.
const NAMES: &[&str] = &["a", "A0", "a-", "a.b", "a0", "b", "a b", "ä"];
const CHILD_TYPES: &[&str] = &["onlineEndpoints", "onlineendpoints0", "models"];

fn any_id() -> impl Strategy<Value = ResourceId> {
    let name = || prop::sample::select(NAMES);
    let children = prop::collection::vec((prop::sample::select(CHILD_TYPES), name()), 0..3);
    let parts = (name(), prop::option::of(name()), prop::option::of((name(), children)), any::<bool>());
    parts.prop_map(|(subscription, group, provider, extended)| {
        let mut text = format!("/subscriptions/{subscription}");
        if let Some(group) = group {
            text += &format!("/resourceGroups/{group}");
        }
        if let Some((workspace, children)) = provider {
            text += &format!("/providers/Microsoft.MachineLearningServices/workspaces/{workspace}");
            for (kind, name) in children {
                text += &format!("/{kind}/{name}");
            }
        }
        if extended {
            text += "/providers/Microsoft.Authorization/roleAssignments/x";
        }
        id(&text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_filter_finds_what_the_model_says(ids in prop::collection::btree_set(any_id(), 1..30), scopes in prop::collection::vec(any_id(), 4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&ids, &scopes));
    }
}

async fn check(ids: &BTreeSet<ResourceId>, scopes: &[ResourceId]) {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    for id in ids {
        tx.resource_put(id, body("x"), &crate::Condition::None, &super::author()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let of = |wanted: &dyn Fn(&ResourceId) -> bool| ids.iter().filter(|id| wanted(id)).cloned().collect::<Vec<_>>();
    for scope in scopes.iter().chain(ids) {
        let kind = scope.resource_type();
        let table = [
            (Filter::default(), of(&|_| true)),
            (Filter::default().within(scope), of(&|id| id.is_within(scope) && id != scope)),
            (Filter::default().child_of(scope), of(&|id| id.parent().as_ref() == Some(scope))),
            (Filter::of_type(kind.to_uppercase()), of(&|id| id.is_type(&kind))),
            (
                Filter::of_type(kind.clone()).named(scope.name().to_uppercase()),
                of(&|id| id.is_type(&kind) && id.name().to_lowercase() == scope.name().to_lowercase()),
            ),
            (
                Filter::of_type("Microsoft.Authorization/roleAssignments").within(scope),
                of(&|id| id.is_type("Microsoft.Authorization/roleAssignments") && id.is_within(scope) && id != scope),
            ),
        ];
        for (filter, wanted) in table {
            let found = at.store.resource_list(&filter).await.unwrap();
            let found: Vec<ResourceId> = found.into_iter().map(|resource| resource.id).collect();
            assert_eq!(found, wanted, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn each_filter_walks_an_index() {
    let at = Fixture::new().await;
    let table = [
        (Filter::default().within(&group("g")), "sqlite_autoindex_resources_1 (key>? AND key<?)"),
        (Filter::of_type("t"), "resources_by_type (type=?)"),
        (Filter::of_type("t").within(&group("g")), "resources_by_type (type=? AND key>? AND key<?)"),
        (Filter::default().child_of(&workspace("w")), "resources_by_parent (parent=?)"),
    ];
    let mut reader = at.store.reader().await.unwrap();
    for (filter, index) in table {
        let select = query::resource::select(&filter);
        let plan = format!("EXPLAIN QUERY PLAN {}", select.sql().as_str());
        let rows = sqlx::query(sqlx::AssertSqlSafe(plan)).fetch_all(&mut *reader).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert_eq!(plan, [format!("SEARCH resources USING INDEX {index}")], "{filter:?}");
    }
}
