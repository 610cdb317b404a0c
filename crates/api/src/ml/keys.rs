//! The credentials of an endpoint: keys, and tokens of its own.

use casemate_identity::new_endpoint_key;
use casemate_model::{
    Fault, Resource, ResourceId,
    endpoint::{AuthMode, EndpointSpec},
    operation::OperationKind,
};
use serde_json::{Value, json};

use super::workspace;
use crate::{ApiState, Call, OpContext, context::Outcome, respond, vault};

/// The names of the two keys among the endpoint's secrets.
pub(crate) const NAMES: [&str; 2] = ["primaryKey", "secondaryKey"];

/// Answers a POST on an endpoint.
pub(super) async fn action(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId, name: &str) -> Outcome {
    let known = ["listKeys", "regenerateKeys", "token"].iter().find(|known| known.eq_ignore_ascii_case(name));
    let Some(known) = known else {
        return call.method_not_allowed();
    };
    ctx.authorize_call(call)?;
    let home = workspace::read(state, id).await?;
    let row = workspace::present(state.store.resource_get(id).await?, id)?;
    let mode = EndpointSpec::from_properties(row.properties())?.auth_mode;
    if *known != "token" && mode == AuthMode::Key {
        vault::check_keys(state, &home, id.name()).await?;
    }
    match *known {
        "token" => token(state, &row, mode),
        "listKeys" => list(state, &row, mode).await,
        _ => regenerate(ctx, state, call, &row, mode).await,
    }
}

fn needs(row: &Resource, mode: AuthMode, wanted: AuthMode, instead: &str) -> Result<(), Fault> {
    if mode == wanted {
        return Ok(());
    }
    let message = format!("The endpoint '{}' authenticates by {mode:?}, not by {wanted:?}. {instead}", row.name());
    Err(Fault::invalid("BadArgument", message).at("authMode"))
}

fn token(state: &ApiState, row: &Resource, mode: AuthMode) -> Outcome {
    needs(row, mode, AuthMode::AMLToken, "Use its keys (listKeys), or a token of the identity provider.")?;
    let issued = state.tokens.issue_for_endpoint(row.id.as_str());
    let token = issued.token.expose_str().map_err(|_| Fault::internal("The token is no text."))?;
    Ok(respond::ok(&json!({
        "accessToken": token,
        "tokenType": "Bearer",
        "expiryTimeUtc": issued.expires_at.as_second(),
        "refreshAfterTimeUtc": issued.refresh_after.as_second(),
    })))
}

async fn list(state: &ApiState, row: &Resource, mode: AuthMode) -> Outcome {
    needs(row, mode, AuthMode::Key, "Ask for a token instead.")?;
    let mut keys = json!({});
    for name in NAMES {
        let secret = state.store.secret_get(&row.id, name).await?;
        let secret = secret.ok_or_else(|| Fault::internal(format!("The endpoint '{}' has no {name}.", row.name())))?;
        keys[name] = secret.expose_str().map_err(|_| Fault::internal("A key is no text."))?.into();
    }
    Ok(respond::ok(&keys))
}

/// Makes a new key whatever key the caller sends: clients send the present one. The operation ends when the router
/// knows the new key, so a caller that waits for it never meets the old one.
async fn regenerate(ctx: &OpContext, state: &ApiState, call: &Call, row: &Resource, mode: AuthMode) -> Outcome {
    needs(row, mode, AuthMode::Key, "It has no keys to regenerate.")?;
    let asked = call.json()?;
    let given = asked.get("keyType").and_then(Value::as_str).unwrap_or_default();
    let name = match given.to_ascii_lowercase().as_str() {
        "primary" => NAMES[0],
        "secondary" => NAMES[1],
        _ => {
            let message = format!("keyType is '{given}'; give Primary or Secondary.");
            return Err(Fault::invalid("BadArgument", message).at("keyType").into());
        }
    };
    let mut tx = state.store.begin().await?;
    let current = workspace::present(tx.resource_get(&row.id).await?, &row.id)?;
    if current.deleting {
        let message = format!("The endpoint '{}' is being deleted.", row.name());
        return Err(Fault::conflict("ResourceBeingDeleted", message).into());
    }
    tx.secret_put(&row.id, name, &new_endpoint_key()).await?;
    let operation = tx.operation_create(&row.id, OperationKind::Put, current.generation).await?;
    tx.commit().await?;
    Ok(respond::accepted_action(ctx, &operation))
}
