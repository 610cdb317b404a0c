//! Certificates of the platform: which there are and how they stand, what a renewal or a replacement would do, renewing
//! one now, and the built-in certificate authority.
//!
//! Certificates are no rows: what is shown is the record that the reconciler keeps with each owner. A renewal is an
//! operation, which the reconciler ends. No answer holds a key, and no body with one is kept or logged.

mod authority;
mod known;
mod metrics;
mod plan;
mod renew;
#[cfg(test)]
mod tests;

use casemate_model::{
    Fault, ResourceId,
    tls::{AUTHORITY_TYPE, CERTIFICATE_TYPE},
};
use http::Method;

use self::known::Known;
pub(crate) use self::metrics::answer as metrics;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// The type of certificates, in lower case.
pub(crate) const KIND: &str = "casemate.platform/certificates";
/// The type of the authority and its parts, in lower case.
pub(crate) const AUTHORITY_KIND: &str = "casemate.platform/authority";

/// `…/providers/Casemate.Platform/certificates` and what lies below it.
pub(crate) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { .. }, &Method::GET) => {
            allow(ctx, state, "certificates/read")?;
            let known = known::all(state).await?;
            let scope = scope(state);
            let shown = known.iter().map(|known| known.shown(&scope, state.clock.now())).collect();
            respond::list(ctx, call, &call.path(), shown)
        }
        (Target::Resource(id), &Method::GET) => {
            allow(ctx, state, "certificates/read")?;
            Ok(respond::ok(&find(state, id).await?.shown(&scope(state), state.clock.now())))
        }
        (Target::Resource(id), &Method::POST) if id.name().eq_ignore_ascii_case("check") => {
            allow(ctx, state, "certificates/check/action")?;
            plan::check(state, call)
        }
        (Target::Action { resource, name }, &Method::POST) => match name.to_lowercase().as_str() {
            "renew" => {
                allow(ctx, state, "certificates/renew/action")?;
                renew::renew(ctx, state, call, &find(state, resource).await?).await
            }
            "plan" => {
                allow(ctx, state, "certificates/plan/action")?;
                plan::plan(state, call, &find(state, resource).await?)
            }
            _ => call.method_not_allowed(),
        },
        _ => call.method_not_allowed(),
    }
}

/// `…/providers/Casemate.Platform/authority` and `…/authority/rotate`.
pub(crate) async fn dispatch_authority(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { .. }, &Method::GET) => {
            allow(ctx, state, "authority/read")?;
            authority::show(state).await
        }
        (Target::Resource(id), &Method::POST) if id.name().eq_ignore_ascii_case("rotate") => {
            allow(ctx, state, "authority/rotate/action")?;
            authority::rotate(ctx, state, call).await
        }
        _ => call.method_not_allowed(),
    }
}

/// Certificates are of all workspaces: it takes a role at the whole subscription, wherever the call asks.
fn allow(ctx: &OpContext, state: &ApiState, action: &str) -> Result<(), Fault> {
    ctx.authorize(&format!("Casemate.Platform/{action}"), &scope(state))
}

fn scope(state: &ApiState) -> ResourceId {
    state.config.subscription_id()
}

/// The certificate that is served, or wanted, for the name that the id ends with.
async fn find(state: &ApiState, id: &ResourceId) -> Result<Known, Fault> {
    let name = id.name().to_lowercase();
    let found = known::all(state).await?.into_iter().find(|known| known.names().contains(&name));
    found.ok_or_else(|| {
        let message = format!("No certificate is served for '{name}'. `casemate tls status` lists those there are.");
        Fault::not_found("CertificateNotFound", message)
    })
}

/// The id of a certificate, as operations know it.
fn certificate_id(state: &ApiState, name: &str) -> Result<ResourceId, Fault> {
    ResourceId::parse(&format!("{}/providers/{CERTIFICATE_TYPE}/{name}", scope(state)))
}

/// The id of a part of the authority, as operations know it.
fn part_id(state: &ApiState, part: &str) -> Result<ResourceId, Fault> {
    ResourceId::parse(&format!("{}/providers/{AUTHORITY_TYPE}/{part}", scope(state)))
}
