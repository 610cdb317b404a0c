//! Authority as a value: who asks, and what that principal may do.

use std::{collections::HashMap, sync::Arc};

use axum::response::Response;
use casemate_identity::{
    Principal,
    role::{self, Assignment},
};
use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    endpoint::ENDPOINT_TYPE,
    inbound::Origin,
    managed_identity::{ManagedIdentity, USER_ASSIGNED_TYPE},
};
use casemate_store::{Author, Filter, Store, StoreError};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{call::Call, inbound::Ways};

/// The type of a service principal.
pub(crate) const PRINCIPAL_TYPE: &str = "Casemate.Identity/servicePrincipals";
/// The type of a role assignment.
pub(crate) const ASSIGNMENT_TYPE: &str = "Microsoft.Authorization/roleAssignments";

/// All principals, managed identities among them, and role assignments, as of one revision of the store.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    by_app: HashMap<Uuid, Principal>,
    assignments: Vec<Assignment>,
    /// Which ways in lead where.
    pub(crate) ways: Ways,
}

impl Directory {
    pub(crate) fn principal(&self, app_id: Uuid) -> Option<&Principal> {
        self.by_app.get(&app_id)
    }
}

/// Keeps the last directory read; a commit to the store makes the next request read it anew, so that a role given
/// or taken away is effective at once.
pub(crate) struct DirectoryCache {
    store: Store,
    last: Mutex<Option<(u64, Arc<Directory>)>>,
}

impl DirectoryCache {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, last: Mutex::new(None) }
    }

    pub(crate) async fn get(&self) -> Result<Arc<Directory>, StoreError> {
        let mut last = self.last.lock().await;
        // Read before the rows: a commit in between makes the copy too new for its number, never too old.
        let revision = *self.store.subscribe().borrow();
        if let Some((known, directory)) = last.as_ref()
            && *known == revision
        {
            return Ok(Arc::clone(directory));
        }
        let principals = self.store.resource_list(&Filter::of_type(PRINCIPAL_TYPE)).await?;
        let assignments = self.store.resource_list(&Filter::of_type(ASSIGNMENT_TYPE)).await?;
        let endpoints = self.store.resource_list(&Filter::of_type(ENDPOINT_TYPE)).await?;
        let identities = self.store.resource_list(&Filter::of_type(USER_ASSIGNED_TYPE)).await?;
        let own = endpoints.iter().filter(|row| !row.deleting).filter_map(ManagedIdentity::of_system);
        let managed = own.chain(identities.iter().map(ManagedIdentity::of_user)).map(|identity| Principal {
            object_id: identity.principal_id,
            app_id: identity.client_id,
            display_name: identity.resource.name().to_owned(),
        });
        let directory = Arc::new(Directory {
            by_app: managed.chain(principals.iter().filter_map(read_principal)).map(|one| (one.app_id, one)).collect(),
            assignments: assignments.iter().filter_map(Assignment::from_resource).collect(),
            ways: Ways::read(&self.store).await?,
        });
        *last = Some((revision, Arc::clone(&directory)));
        Ok(directory)
    }
}

/// Reads a principal's row.
pub(crate) fn read_principal(resource: &Resource) -> Option<Principal> {
    if resource.deleting {
        return None;
    }
    let text = |key: &str| resource.properties().get(key).and_then(serde_json::Value::as_str);
    Some(Principal {
        object_id: text("objectId")?.parse().ok()?,
        app_id: text("appId")?.parse().ok()?,
        display_name: text("displayName")?.to_owned(),
    })
}

/// Who asks, with what may be done, for the length of one request.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// Who asks.
    pub principal: Principal,
    /// The request's id, as the client sees it in `x-ms-request-id`.
    pub request_id: Uuid,
    /// How the client reached the platform, without a trailing slash: the base of every link in the answer.
    pub base: String,
    /// Where the request came in.
    origin: Origin,
    directory: Arc<Directory>,
}

impl OpContext {
    pub(crate) fn new(
        principal: Principal,
        request_id: Uuid,
        base: String,
        origin: Origin,
        directory: Arc<Directory>,
    ) -> Self {
        Self { principal, request_id, base, origin, directory }
    }

    /// Whether the caller may do `action` (`Microsoft.X/type/read`) at `scope`.
    #[must_use]
    pub fn can(&self, action: &str, scope: &ResourceId) -> bool {
        role::allowed(&self.directory.assignments, self.principal.object_id, action, scope)
    }

    /// Whether the caller may do `action` (`Microsoft.X/type/part/action`) on the data of `scope`.
    #[must_use]
    pub fn can_data(&self, action: &str, scope: &ResourceId) -> bool {
        role::allowed_data(&self.directory.assignments, self.principal.object_id, action, scope)
    }

    /// Insists that the way that the request came leads to `scope`, and that the caller may do `action` there.
    ///
    /// # Errors
    /// `PublicNetworkAccessDisabled` or `ForbiddenByFirewall` for another way; `AuthorizationFailed` naming client,
    /// object, action and scope.
    pub fn authorize(&self, action: &str, scope: &ResourceId) -> Result<(), Fault> {
        self.directory.ways.admit(&self.origin, action, scope)?;
        if self.can(action, scope) {
            return Ok(());
        }
        let (client, object) = (self.principal.app_id, self.principal.object_id);
        Err(Fault::new(
            FaultKind::Forbidden,
            "AuthorizationFailed",
            format!(
                "The client '{client}' with object id '{object}' does not have authorization to perform action \
                 '{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please \
                 refresh your credentials."
            ),
        ))
    }

    /// Insists on the permission that the call needs by its method and type, at its resource or parent.
    ///
    /// # Errors
    /// As [`OpContext::authorize`]; also for a call at the tenant, which has no scope to hold a role at.
    pub fn authorize_call(&self, call: &Call) -> Result<(), Fault> {
        match call.target.scope() {
            Some(scope) => self.authorize(&call.permission(), scope),
            None => Err(Fault::new(
                FaultKind::Forbidden,
                "AuthorizationFailed",
                format!("The action '{}' cannot be granted at the tenant.", call.permission()),
            )),
        }
    }

    /// Of the rows of a list below `scope`, those that the caller may read: all with a role at the scope, else
    /// those with a role of their own; without those that the request's way does not lead to.
    ///
    /// # Errors
    /// As [`OpContext::authorize`] when there is no role at the scope and none on any row.
    pub fn readable(&self, scope: &ResourceId, action: &str, rows: Vec<Resource>) -> Result<Vec<Resource>, Fault> {
        self.directory.ways.admit(&self.origin, action, scope)?;
        let read = |row: &Resource| format!("{}/read", row.id.resource_type());
        let reached = |row: &Resource| self.directory.ways.admit(&self.origin, &read(row), &row.id).is_ok();
        let rows: Vec<Resource> = rows.into_iter().filter(reached).collect();
        if self.can(action, scope) {
            return Ok(rows);
        }
        let may_read = |row: &Resource| self.can(&read(row), &row.id);
        let own: Vec<Resource> = rows.into_iter().filter(may_read).collect();
        if own.is_empty() {
            self.authorize(action, scope)?;
        }
        Ok(own)
    }

    /// The caller as the author of a write.
    #[must_use]
    pub fn author(&self) -> Author {
        Author { name: self.principal.object_id.to_string(), kind: "Application".to_owned() }
    }
}

/// What a handler gives back.
pub(crate) type Outcome = Result<Response, crate::ApiError>;
