//! The built-in certificate authority: its certificates, and renewing them.

use casemate_model::{Fault, ResourceId, operation::OperationKind, tls::PLATFORM_OWNER};
use casemate_pki::{Described, describe, trusted_roots};
use serde_json::{Value, json};

use super::part_id;
use crate::{
    call::Call,
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// `GET …/authority`: the root, the issuing intermediate, and what callers must trust, PEM.
pub(super) async fn show(state: &ApiState) -> Outcome {
    let root = stored(state, "ca-root-cert").await?.ok_or_else(|| {
        Fault::internal("The store holds no root certificate; the state directory is incomplete. Restore a backup.")
    })?;
    let intermediate = stored(state, "ca-intermediate-cert").await?.unwrap_or_default();
    let retired = stored(state, "ca-retired-roots").await?.unwrap_or_default();
    let cross = stored(state, "ca-cross-cert").await?;
    let now = state.clock.now();
    Ok(respond::ok(&json!({
        "root": first(&root)?,
        "intermediate": first(&intermediate)?,
        "retiredRoots": described(&retired)?,
        "crossSigned": cross.is_some(),
        "trustedRoots": trusted_roots(&root, &retired, now).map_err(Fault::from)?,
        "intermediateChain": intermediate,
    })))
}

/// `POST …/authority/rotate[?root]`: a new issuing intermediate, or a new root with a new intermediate.
pub(super) async fn rotate(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let is_root = call.query.get("root").is_some_and(|value| !value.eq_ignore_ascii_case("false"));
    let id = part_id(state, if is_root { "root" } else { "intermediate" })?;
    let mut tx = state.store.begin().await?;
    if tx.operations_pending().await?.iter().any(|pending| pending.resource == id) {
        let message = "The certificate authority is being renewed already. Wait for the end of that.";
        return Err(Fault::conflict("RotationInProgress", message).into());
    }
    let operation = tx.operation_create(&id, OperationKind::Action, 0).await?;
    tx.commit().await?;
    Ok(respond::accepted_action(ctx, &operation))
}

/// One of the authority's certificates, PEM. Its keys are never read here.
async fn stored(state: &ApiState, name: &str) -> Result<Option<String>, Fault> {
    let secret = state.store.secret_get(&ResourceId::parse(PLATFORM_OWNER)?, name).await?;
    Ok(secret.and_then(|secret| secret.expose_str().ok().map(str::to_owned)))
}

fn first(pem: &str) -> Result<Value, Fault> {
    Ok(described(pem)?.into_iter().next().unwrap_or(Value::Null))
}

fn described(pem: &str) -> Result<Vec<Value>, Fault> {
    let shown = |described: &Described| {
        json!({
            "subject": described.subject,
            "serial": described.serial,
            "sha256": described.sha256,
            "notBefore": described.not_before,
            "notAfter": described.not_after,
        })
    };
    Ok(describe(pem)?.iter().map(shown).collect())
}
