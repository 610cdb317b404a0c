//! Which ways in lead to which workspaces: the one place where the management API looks at where a call comes from.
//!
//! A workspace with public network access disabled can be managed as such over public addresses (or nobody could open
//! it again), and what is in it only through its private endpoint. A private endpoint leads to its own target and to
//! what belongs to no workspace.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    inbound::{ACCESS_DISABLED, Closed, NOT_ALLOWED, Origin, WorkspaceAccess, check},
    workspace::WORKSPACE_TYPE,
};
use casemate_store::{Filter, Store, StoreError};
use http::{HeaderValue, Request, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The type of a datastore, which names a container.
const DATASTORE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/datastores";
/// What may be done to a workspace over public addresses whatever it says, below `WORKSPACE_TYPE`: itself, and the
/// connections of its private endpoints.
const ALWAYS: [&str; 3] = ["read", "write", "delete"];
const ALWAYS_BELOW: [&str; 2] = ["privateEndpointConnections/", "privateLinkResources/"];

/// What a way in is looked up in, as of one revision of the store.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    workspaces: HashMap<ResourceId, Home>,
    /// The workspaces of containers.
    containers: HashMap<String, ResourceId>,
}

#[derive(Debug, Default)]
struct Home {
    access: WorkspaceAccess,
    storage: Option<ResourceId>,
}

/// Where a request came in. One that does not say is public and from nowhere, which no allow-list admits.
pub(crate) fn origin(request: &Request<Body>) -> Origin {
    let nowhere = || Origin::Public { caller: IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    request.extensions().get().cloned().unwrap_or_else(nowhere)
}

/// Insists that the management API is served this way: a private endpoint of a storage account, a vault or a registry
/// leads to nothing else, and the approved connection of a deployment to files only.
pub(crate) fn check_management(origin: &Origin) -> Result<(), Fault> {
    match origin {
        Origin::Private { endpoint, target, .. } if !target.is_type(WORKSPACE_TYPE) => {
            let message = format!(
                "The private endpoint '{}' leads to '{target}', not to the management API. Call through a private \
                 endpoint of a workspace, or over a public address.",
                endpoint.name()
            );
            Err(Fault::new(FaultKind::Forbidden, ACCESS_DISABLED, message).at(target.as_str()))
        }
        Origin::Deployment { workspace, .. } => {
            let message = "The management API can't be reached from inside a deployment over its workspace's outbound \
                           rules; the platform itself does what a deployment needs of its workspace.";
            Err(Fault::new(FaultKind::Forbidden, ACCESS_DISABLED, message).at(workspace.as_str()))
        }
        _ => Ok(()),
    }
}

impl Ways {
    pub(crate) async fn read(store: &Store) -> Result<Self, StoreError> {
        let workspaces = store.resource_list(&Filter::of_type(WORKSPACE_TYPE)).await?;
        let datastores = store.resource_list(&Filter::of_type(DATASTORE_TYPE)).await?;
        Ok(Self {
            workspaces: workspaces.iter().map(|row| (row.id.clone(), Home::read(row))).collect(),
            containers: datastores.iter().filter_map(container).collect(),
        })
    }

    /// Insists that a call from `origin` may do `action` at `scope`.
    ///
    /// # Errors
    /// `PublicNetworkAccessDisabled` or `ForbiddenByFirewall`, saying what to do.
    pub(crate) fn admit(&self, origin: &Origin, action: &str, scope: &ResourceId) -> Result<(), Fault> {
        let Some(workspace) = scope.ancestor(WORKSPACE_TYPE) else { return Ok(()) };
        if matches!(origin, Origin::Public { .. }) && is_always_open(action) {
            return Ok(());
        }
        self.check(origin, &workspace).map_err(|closed| refusal(closed, origin, &workspace))
    }

    /// The answer to a storage request that came a way that does not lead to its container; none when it does.
    pub(crate) fn refuse_blob(&self, origin: &Origin, path: &str) -> Option<Response> {
        let mut parts = path.split('/').skip(1);
        let account = parts.next()?.split('.').next()?;
        let container = percent_decode_str(parts.next()?).decode_utf8().ok()?;
        let workspace = self.containers.get(&*container)?;
        let storage = self.workspaces.get(workspace).and_then(|home| home.storage.as_ref());
        let is_its_account = storage.is_some_and(|storage| storage.name().eq_ignore_ascii_case(account));
        if matches!(origin, Origin::Deployment { .. }) && !is_its_account {
            return Some(storage_answer(&other_account(account)));
        }
        let is_storage = matches!(origin, Origin::Private { target, .. } if Some(target) == storage);
        if is_storage {
            return None;
        }
        let closed = self.check(origin, workspace).err()?;
        Some(storage_answer(&refusal(closed, origin, workspace)))
    }

    fn check(&self, origin: &Origin, workspace: &ResourceId) -> Result<(), Closed> {
        // One that is not there yet says nothing; its private endpoints can't be there either.
        let open = Home::default();
        let access = &self.workspaces.get(workspace).unwrap_or(&open).access;
        check(origin, workspace, access.public_disabled, &access.allowed)
    }
}

impl Home {
    fn read(row: &Resource) -> Self {
        let storage = row.properties().get("storageAccount").and_then(Value::as_str);
        Self {
            access: WorkspaceAccess::from_properties(row.properties()),
            storage: storage.and_then(|id| ResourceId::parse(id).ok()),
        }
    }
}

fn container(row: &Resource) -> Option<(String, ResourceId)> {
    let name = row.properties().get("containerName")?.as_str()?;
    Some((name.to_owned(), row.id.ancestor(WORKSPACE_TYPE)?))
}

fn is_always_open(action: &str) -> bool {
    let (kind, rest) = action.split_at_checked(WORKSPACE_TYPE.len()).unwrap_or_default();
    let Some(rest) = rest.strip_prefix('/').filter(|_| kind.eq_ignore_ascii_case(WORKSPACE_TYPE)) else { return false };
    let below = |start: &&str| rest.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    ALWAYS.iter().any(|word| word.eq_ignore_ascii_case(rest)) || ALWAYS_BELOW.iter().any(below)
}

fn refusal(closed: Closed, origin: &Origin, workspace: &ResourceId) -> Fault {
    let name = workspace.name();
    let (code, message) = match (closed, origin) {
        (
            Closed::NotAllowed,
            Origin::Public { caller }
            | Origin::Private { caller, .. }
            | Origin::Deployment { public: Some(caller), .. },
        ) => (
            NOT_ALLOWED,
            format!(
                "The address {caller} is not on the IP allow-list of the workspace '{name}'. Add it to the \
                 workspace's ipAllowlist, or call through the workspace's private endpoint."
            ),
        ),
        (Closed::Elsewhere, Origin::Private { endpoint, .. }) => (
            ACCESS_DISABLED,
            format!(
                "The private endpoint '{}' does not lead to the workspace '{name}'. Call through a private endpoint \
                 of that workspace, or over a public address if its public network access is enabled.",
                endpoint.name()
            ),
        ),
        (Closed::Elsewhere, Origin::Deployment { workspace: own, .. }) => (
            ACCESS_DISABLED,
            format!(
                "A deployment of the workspace '{}' calls, to which the workspace '{name}' is closed: the platform \
                 takes no public calls from this machine (--allow-from). Keep what it needs in its own workspace.",
                own.name()
            ),
        ),
        _ => (
            ACCESS_DISABLED,
            format!(
                "Public network access to the workspace '{name}' is disabled, and this call came over a public \
                 address. Call from inside the virtual network of one of its private endpoints (`casemate env \
                 --private` gives the variables for it), or enable public access: `az ml workspace update -n {name} \
                 --public-network-access enabled`."
            ),
        ),
    };
    Fault::new(FaultKind::Forbidden, code, message).at(workspace.as_str())
}

/// The refusal of a deployment that asks at one account's host for what lies in another's: the rule that let it through
/// approves that account alone.
fn other_account(account: &str) -> Fault {
    let account: String = account.chars().take(24).collect();
    let message = format!(
        "What is asked for is not in the storage account '{account}', which the deployment's outbound rule leads to. A \
         rule for one account opens no other; keep what the model needs in its own workspace's storage, or add a \
         private endpoint rule for the other account."
    );
    Fault::new(FaultKind::Forbidden, ACCESS_DISABLED, message)
}

/// A refusal in the storage service's shape.
fn storage_answer(fault: &Fault) -> Response {
    let escaped = fault.message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{escaped}</Message></Error>",
        fault.code
    );
    let mut response = (StatusCode::FORBIDDEN, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(code) = HeaderValue::from_str(&fault.code) {
        response.headers_mut().insert("x-ms-error-code", code);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_open() {
        for (rest, open) in [
            ("/read", true),
            ("/Write", true),
            ("/delete", true),
            ("/privateEndpointConnections/write", true),
            ("/privateendpointconnections/read", true),
            ("/privateLinkResources/read", true),
            ("/listKeys/action", false),
            ("/onlineEndpoints/read", false),
            ("/readers/read", false),
            ("/privateEndpointConnectionsX/read", false),
            ("", false),
            ("x/read", false),
        ] {
            assert_eq!(is_always_open(&format!("{WORKSPACE_TYPE}{rest}")), open, "{rest}");
        }
        assert!(!is_always_open("Microsoft.Authorization/roleAssignments/write"));
        assert!(!is_always_open("é"));
    }
}
