//! The way to a vault's secrets: which vault, which way in, who asks, and what may be done; in this order.

use std::sync::Arc;

use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use casemate_model::{
    Resource,
    inbound::Origin,
    vault::{AUDIENCE_VAULT, Permission, VAULT_TYPE, policy_allows},
};
use casemate_store::Filter;
use http::{HeaderMap, Method, Request, header};
use uuid::Uuid;

use super::{
    answer::{Refusal, named},
    secrets, trust,
};
use crate::{
    call::Query,
    context::{Directory, OpContext, Outcome},
    front::read_body,
    state::ApiState,
};

/// A request to the host of a vault.
pub(crate) struct Asked<'a> {
    /// The vault's lower-case name, from the host.
    pub(crate) vault: &'a str,
    /// `https://HOST[:PORT]`, as the client wrote it.
    pub(crate) base: &'a str,
    /// The way that the request came.
    pub(crate) origin: Origin,
    /// The request's id.
    pub(crate) id: Uuid,
}

/// A request of somebody who is known, for a vault that is open to him.
pub(super) struct Session<'a> {
    pub(super) ctx: OpContext,
    pub(super) state: &'a ApiState,
    pub(super) vault: Resource,
    pub(super) query: Query,
}

/// Answers a request to a vault's host.
pub(crate) async fn enter(
    state: &ApiState,
    directory: Arc<Directory>,
    asked: Asked<'_>,
    request: Request<Body>,
) -> Outcome {
    Ok(admit(state, directory, asked, request).await.unwrap_or_else(IntoResponse::into_response))
}

async fn admit(
    state: &ApiState,
    directory: Arc<Directory>,
    asked: Asked<'_>,
    request: Request<Body>,
) -> Result<axum::response::Response, Refusal> {
    let rows = state.store.resource_list(&Filter::of_type(VAULT_TYPE).named(asked.vault)).await?;
    let vault = rows.into_iter().find(|row| !row.deleting).ok_or_else(|| {
        let message =
            format!("There is no vault '{}' on this platform. `az keyvault list` lists those there are.", asked.vault);
        casemate_model::Fault::not_found("NotFound", message)
    })?;
    trust::check(state, &vault, &asked.origin).await?;
    let ctx = authenticate(state, directory, &asked, request.headers())?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if query.get("api-version").is_none_or(str::is_empty) {
        return Err(Refusal::bad("The query parameter api-version must be specified, such as api-version=7.4."));
    }
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::GET | Method::DELETE => Bytes::new(),
        _ => read_body(&parts, body).await?,
    };
    let path = parts.uri.path().trim_matches('/').to_owned();
    let session = Session { ctx, state, vault, query };
    secrets::answer(&session, &parts.method, &path, &body).await
}

/// Who asks. Clients first ask without a token, to be told what for they need one.
fn authenticate(
    state: &ApiState,
    directory: Arc<Directory>,
    asked: &Asked<'_>,
    headers: &HeaderMap,
) -> Result<OpContext, Refusal> {
    // Clients insist that their vault's host ends in a dot and this resource's host and port.
    let suffix = asked.base.split_once('.').map_or("vault.azure.net", |(_, suffix)| suffix);
    let authority = format!("{}/{}", state.config.url, state.config.tenant);
    let challenge = |message: String| Refusal::Challenge {
        message,
        challenge: format!("Bearer authorization=\"{authority}\", resource=\"https://{suffix}\""),
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = value.and_then(|value| value.trim().split_once(' '));
    let Some((_, token)) = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(challenge("AKV10000: Request is missing a Bearer or PoP token.".to_owned()));
    };
    let domain = &state.config.domain;
    let own = [AUDIENCE_VAULT.to_owned(), format!("https://vault.{domain}"), format!("https://{suffix}")];
    let audiences: Vec<&str> = own.iter().map(String::as_str).collect();
    let claims = state
        .tokens
        .check(token.trim(), &audiences)
        .map_err(|error| challenge(format!("AKV10022: {}", casemate_model::Fault::from(error).message)))?;
    let principal = directory.principal(claims.principal.app_id).cloned().ok_or_else(|| {
        let app = claims.principal.app_id;
        challenge(format!("AKV10032: The token was issued to the application {app}, which does not exist any more."))
    })?;
    Ok(OpContext::new(principal, asked.id, asked.base.to_owned(), asked.origin.clone(), directory))
}

impl Session<'_> {
    /// Insists that the caller may do this with a secret, or with all for none: by roles, or by the vault's own list.
    pub(super) fn authorize(&self, permission: Permission, secret: Option<&str>) -> Result<(), Refusal> {
        let (ctx, vault) = (&self.ctx, &self.vault);
        let by_roles = vault.properties()["enableRbacAuthorization"] != serde_json::Value::Bool(false);
        let at = match secret {
            Some(name) => vault.id.child("secrets", name)?,
            None => vault.id.clone(),
        };
        let allowed = match by_roles {
            true => ctx.can_data(permission.action(), &at),
            false => policy_allows(vault.properties(), ctx.principal.object_id, permission),
        };
        if allowed {
            return Ok(());
        }
        let (app, object) = (ctx.principal.app_id, ctx.principal.object_id);
        let (word, shown, name) = (permission.word(), named(vault), vault.name());
        Err(match by_roles {
            true => {
                let role = match permission {
                    Permission::Get | Permission::List => "Key Vault Secrets User",
                    _ => "Key Vault Secrets Officer",
                };
                let message = format!(
                    "Caller is not authorized to perform action on resource.\r\nCaller: appid={app};oid={object}\r\n\
                     Action: '{}'\r\nResource: '{at}'\r\nAssignment: (not found)\r\nVault: {shown}\r\nTo allow it: az \
                     role assignment create --role \"{role}\" --assignee-object-id {object} --scope {}",
                    permission.action(),
                    vault.id
                );
                Refusal::forbidden("ForbiddenByRbac", message)
            }
            false => {
                let message = format!(
                    "The user, group or application 'appid={app};oid={object}' does not have secrets {word} permission \
                     on key vault '{shown}'. To allow it: az keyvault set-policy -n {name} --object-id {object} \
                     --secret-permissions {word}"
                );
                Refusal::forbidden("AccessDenied", message)
            }
        })
    }
}
