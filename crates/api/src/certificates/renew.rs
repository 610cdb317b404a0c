//! Renewing one certificate now.

use casemate_model::{Fault, operation::OperationKind, tls::TlsMode};
use serde_json::json;

use super::{Known, certificate_id, scope};
use crate::{
    call::Call,
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// `POST …/{name}/renew[?force]`. Without force a certificate that is valid and not due is left alone, and the answer says
/// until when; else an operation begins, whose result is the certificate before and after as it was seen to be served.
pub(super) async fn renew(ctx: &OpContext, state: &ApiState, call: &Call, known: &Known) -> Outcome {
    if known.mode() == TlsMode::Custom {
        let message = format!(
            "The certificate for {} was given by its owner, and only its owner can get another. Give the new one with its \
             key, as with `ml computetarget update aks --ssl-cname … --ssl-cert-file … --ssl-key-file …`; `casemate tls \
             check` looks at it before.",
            known.name()
        );
        return Err(Fault::conflict("CertificateIsCustom", message).at(known.owner.as_str()).into());
    }
    let is_forced = call.query.get("force").is_some_and(|value| !value.eq_ignore_ascii_case("false"));
    let now = state.clock.now();
    if let Some(facts) = known.record.certificate.as_ref().filter(|facts| !is_forced && !facts.provisional)
        && let Some(next) = facts.next_renewal.filter(|next| now < *next)
    {
        let message = format!(
            "The certificate for {} is valid until {} and will be renewed on {next}; it is left alone. Renew it now with \
             --force.",
            known.name(),
            facts.not_after
        );
        let certificate = known.shown(&scope(state), now);
        return Ok(respond::ok(&json!({"renewed": false, "message": message, "certificate": certificate})));
    }
    let id = certificate_id(state, known.name())?;
    let mut tx = state.store.begin().await?;
    let operation = tx.operation_create(&id, OperationKind::Action, 0).await?;
    tx.commit().await?;
    Ok(respond::accepted_action(ctx, &operation))
}
