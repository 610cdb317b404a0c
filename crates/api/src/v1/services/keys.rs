//! The credentials of a service: keys, and tokens of its own.

use casemate_identity::new_endpoint_key;
use casemate_model::{
    Fault, Resource, Secret,
    endpoint::{AuthMode, EndpointSpec},
    operation::OperationKind,
};
use serde_json::{Value, json};

use super::{Asked, Service, operations};
use crate::{ApiState, OpContext, context::Outcome, ml::keys::NAMES, respond};

/// A key of the caller's own: its length.
const KEY_LENGTH: std::ops::RangeInclusive<usize> = 16..=512;

/// Answers a POST on a service.
pub(super) async fn action(ctx: &OpContext, state: &ApiState, asked: &Asked, name: &str, action: &str) -> Outcome {
    let known = ["listkeys", "regenerateKeys", "token"].into_iter().find(|known| known.eq_ignore_ascii_case(action));
    let known = known.ok_or_else(|| asked.nothing_here())?;
    asked.authorize(ctx, &format!("services/{known}/action"))?;
    let row = Service::read(state, asked, name).await?.row;
    let mode = EndpointSpec::from_properties(row.properties())?.auth_mode;
    match known {
        "token" => token(state, &row, mode),
        "listkeys" => list(state, &row, mode).await,
        _ => regenerate(ctx, state, asked, &row).await,
    }
}

fn token(state: &ApiState, row: &Resource, mode: AuthMode) -> Outcome {
    needs(row, mode, AuthMode::AMLToken, "Enable token_auth_enabled, or use its keys.")?;
    let issued = state.tokens.issue_for_endpoint(row.id.as_str());
    let token = issued.token.expose_str().map_err(|_| Fault::internal("The token is no text."))?;
    Ok(respond::ok(&json!({
        "accessToken": token,
        "tokenType": "Bearer",
        "refreshAfter": issued.refresh_after.as_second(),
        "expiryOn": issued.expires_at.as_second(),
    })))
}

fn needs(row: &Resource, mode: AuthMode, wanted: AuthMode, instead: &str) -> Result<(), Fault> {
    if mode == wanted {
        return Ok(());
    }
    let word = |mode| match mode {
        AuthMode::Key => "keys",
        AuthMode::AMLToken => "tokens",
        _ => "nothing",
    };
    let message =
        format!("The service '{}' authenticates by {}, not by {}. {instead}", row.name(), word(mode), word(wanted));
    Err(Fault::invalid("BadArgument", message).at("authEnabled"))
}

async fn list(state: &ApiState, row: &Resource, mode: AuthMode) -> Outcome {
    needs(row, mode, AuthMode::Key, "Enable auth_enabled first.")?;
    let mut keys = json!({});
    for name in NAMES {
        let secret = state.store.secret_get(&row.id, name).await?;
        let secret = secret.ok_or_else(|| Fault::internal(format!("The service '{}' has no {name}.", row.name())))?;
        keys[name] = secret.expose_str().map_err(|_| Fault::internal("A key is no text."))?.into();
    }
    Ok(respond::ok(&keys))
}

/// Makes a new key, or takes the one given. The operation ends when the router knows it.
async fn regenerate(ctx: &OpContext, state: &ApiState, asked: &Asked, row: &Resource) -> Outcome {
    let body = asked.call.json()?;
    let name = match body["keyType"].as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "primary" => NAMES[0],
        "secondary" => NAMES[1],
        _ => {
            return Err(Fault::invalid("BadArgument", "keyType is neither Primary nor Secondary.")
                .at("keyType")
                .into());
        }
    };
    let key = given(body.get("keyValue"), "keyValue")?.unwrap_or_else(new_endpoint_key);
    let mut tx = state.store.begin().await?;
    let current = tx.resource_get(&row.id).await?.filter(|row| !row.deleting).ok_or_else(|| {
        Fault::conflict("ResourceBeingDeleted", format!("The service '{}' is being deleted.", row.name()))
    })?;
    tx.secret_put(&row.id, name, &key).await?;
    let operation = tx.operation_create(&row.id, OperationKind::Put, current.generation).await?;
    tx.commit().await?;
    Ok(operations::accepted(ctx, asked, &[operation], &json!({})))
}

/// A key that the caller chose.
///
/// # Errors
/// `BadArgument` for one that is too short, too long, or can't be sent in a header.
pub(super) fn given(value: Option<&Value>, field: &str) -> Result<Option<Secret>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(key))
            if KEY_LENGTH.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Some(Secret::from(key.clone())))
        }
        Some(_) => {
            let message = format!(
                "'{field}' is not a key: give {} to {} visible ASCII characters, or leave it out.",
                KEY_LENGTH.start(),
                KEY_LENGTH.end()
            );
            Err(Fault::invalid("BadArgument", message).at(field))
        }
    }
}
