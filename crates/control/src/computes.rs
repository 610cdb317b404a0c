//! Computes: the host names that lead to their services, and the end of what needs no certificate.

use casemate_model::{
    Fault, Operation, OperationStatus, Resource,
    route::{HostRoute, RouteTable},
    service::NAMES_FIELD,
    tls::{CertificateRecord, TlsWish},
};
use casemate_runtime::Backend;
use serde_json::{Map, Value};

use crate::{Shared, certificates};

/// Adds the host names of all computes: those wished for, and while a wish has not come true those still served. A name
/// that was taken over leads to its new owner at once.
pub fn add(table: &mut RouteTable, computes: &[Resource]) {
    let present = || computes.iter().filter(|compute| !compute.deleting);
    for (names, compute) in present().map(|one| (served(one), one)).chain(present().map(|one| (wished(one), one))) {
        for name in names {
            table.hosts.insert(name, HostRoute::Compute(compute.id.clone()));
        }
    }
}

/// The names of the certificate that is served now.
fn served(compute: &Resource) -> Vec<String> {
    let record = CertificateRecord::of(compute);
    record.certificate.filter(|_| record.served).map(|facts| facts.ask.names).unwrap_or_default()
}

/// The names that are to lead here, with TLS or without.
fn wished(compute: &Resource) -> Vec<String> {
    let certified = match TlsWish::of(compute) {
        Ok(wish) => wish.map(|wish| wish.names).unwrap_or_default(),
        Err(fault) => {
            tracing::error!(compute = %compute.id, %fault, "the compute's names are left out of the route table");
            Vec::new()
        }
    };
    let own = compute.body.get(NAMES_FIELD).and_then(Value::as_array).into_iter().flatten();
    own.filter_map(|name| name.as_str().map(str::to_lowercase)).chain(certified).collect()
}

/// Reports computes as done whose wish has nothing to do with TLS. Those with a certificate are reported by who sees to
/// that.
pub async fn finish<B: Backend>(shared: &Shared<B>, computes: &[Resource], pending: &[Operation]) -> Result<(), Fault> {
    for compute in computes.iter().filter(|compute| !compute.deleting) {
        let waiting: Vec<_> =
            crate::waiting(pending, compute).map(|operation| (operation.id, OperationStatus::Succeeded)).collect();
        if !waiting.is_empty() && certificates::wish_of(&shared.config, compute)?.is_none() {
            shared.finish_put(compute, "Succeeded", Map::new(), waiting).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use casemate_model::{Clock, ResourceId, tls::CertificateFacts};
    use casemate_store::{Author, Condition, Store};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn names_lead_to_their_latest_owner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "User".to_owned() };
        let id = |name: &str| {
            let workspace =
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";
            ResourceId::parse(&format!("{workspace}/computes/{name}")).unwrap()
        };
        let platform = |name: &str| TlsWish::platform(vec![name.to_owned()]);
        let mut tx = store.begin().await.unwrap();
        for (name, body) in [
            // The one that lost the name, whose certificate is still served, is written last.
            ("a-taker", json!({"_tls": platform("x1.local").to_value(), "_names": ["x1.local"]})),
            ("b-loser", json!({"_tls": TlsWish::off().to_value(), "_names": []})),
            ("c-plain", json!({"_names": ["Y1.local"]})),
            ("d-unreadable", json!({"_tls": 7, "_names": ["z1.local"]})),
        ] {
            tx.resource_put(&id(name), body, &Condition::None, &author).await.unwrap();
        }
        let second = |second| Timestamp::from_second(second).unwrap();
        let certificate = CertificateFacts {
            issuer: "built-in".to_owned(),
            serial: "01".to_owned(),
            sha256: "ab".to_owned(),
            not_before: second(0),
            not_after: second(1),
            next_renewal: None,
            provisional: false,
            ask: TlsWish::platform(vec!["x1.local".to_owned(), "old.local".to_owned()]).ask(),
        };
        let record = CertificateRecord { certificate: Some(certificate), served: true, ..CertificateRecord::default() };
        let seen = Map::from_iter([("_certificate".to_owned(), record.to_value())]);
        tx.resource_observe(&id("b-loser"), seen).await.unwrap();
        tx.commit().await.unwrap();

        let all = store.resource_list(&casemate_store::Filter::of_type(certificates::COMPUTE_TYPE)).await.unwrap();
        let mut table = RouteTable::default();
        add(&mut table, &all);
        let mut found: Vec<(String, String)> = table
            .hosts
            .into_iter()
            .map(|(host, route)| match route {
                HostRoute::Compute(id) => (host, id.name().to_owned()),
                HostRoute::Service(name) => (host, name),
            })
            .collect();
        found.sort();
        let expected =
            [("old.local", "b-loser"), ("x1.local", "a-taker"), ("y1.local", "c-plain"), ("z1.local", "d-unreadable")];
        let found: Vec<(&str, &str)> = found.iter().map(|(host, name)| (host.as_str(), name.as_str())).collect();
        assert_eq!(found, expected);
    }
}
