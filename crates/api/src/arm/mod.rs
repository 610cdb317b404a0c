//! Resources: which family answers for which type.

pub(crate) mod shape;

mod computes;
mod deployments;
mod dns;
pub(crate) mod filter;
mod generic;
mod groups;
mod listing;
mod networks;
mod operations;
mod principals;
mod providers;
mod provision;
mod roles;
mod subscriptions;
mod workspaces;

use casemate_model::Fault;

pub(crate) use self::networks::mark_provisioned;
use crate::{
    call::{Call, Target},
    certificates,
    context::{OpContext, Outcome},
    error::ApiError,
    ml, network,
    state::ApiState,
    vault,
};

/// Answers a call about any resource.
pub(crate) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    check_subscription(state, call)?;
    let kind = call.target.kind();
    if let Some((_, "register" | "unregister")) = kind.split_once('/') {
        return providers::register(ctx, state, call);
    }
    match kind.as_str() {
        "microsoft.resources/tenants" | "microsoft.resources/subscriptions" => {
            subscriptions::dispatch(ctx, state, call)
        }
        "microsoft.resources/subscriptions/locations" => subscriptions::locations(ctx, state, call),
        "microsoft.resources/providers" => providers::dispatch(state, call),
        "microsoft.resources/resourcegroups" => groups::dispatch(ctx, state, call).await,
        "microsoft.resources/subscriptions/resources" | "microsoft.resources/resourcegroups/resources" => {
            listing::dispatch(ctx, state, call).await
        }
        "microsoft.resources/deployments" | "microsoft.resources/deployments/operations" => {
            deployments::dispatch(ctx, state, call).await
        }
        certificates::KIND => certificates::dispatch(ctx, state, call).await,
        certificates::AUTHORITY_KIND => certificates::dispatch_authority(ctx, state, call).await,
        dns::KIND => dns::dispatch(ctx, state, call).await,
        "casemate.platform/operationstatuses" | "casemate.platform/operationresults" => {
            operations::dispatch(ctx, state, call).await
        }
        "casemate.identity/serviceprincipals" => principals::dispatch(ctx, state, call).await,
        "microsoft.authorization/roleassignments" => roles::assignments(ctx, state, call).await,
        "microsoft.authorization/roledefinitions" => roles::definitions(ctx, call),
        "microsoft.machinelearningservices/workspaces" => workspaces::dispatch(ctx, state, call).await,
        "microsoft.machinelearningservices/workspaces/outboundrules" => networks::rules(ctx, state, call).await,
        "microsoft.machinelearningservices/workspaces/computes" => computes::dispatch(ctx, state, call).await,
        known if generic::is_known(known) => generic::dispatch(ctx, state, call).await,
        known if vault::is_known(known) => vault::dispatch(ctx, state, call).await,
        _ => {
            if let Some(outcome) = network::dispatch(ctx, state, call).await {
                return outcome;
            }
            ml::dispatch(ctx, state, call).await.unwrap_or_else(|| Err(unknown(call, &kind)))
        }
    }
}

/// Insists that the call is about the platform's one subscription, or about none.
pub(crate) fn check_subscription(state: &ApiState, call: &Call) -> Result<(), Fault> {
    let own = state.config.subscription;
    match call.target.scope().and_then(|scope| scope.subscription()) {
        Some(given) if given != own.to_string() => {
            let message = format!("The subscription '{given}' could not be found. This platform has one: '{own}'.");
            Err(Fault::not_found("SubscriptionNotFound", message))
        }
        _ => Ok(()),
    }
}

fn unknown(call: &Call, kind: &str) -> ApiError {
    let message = match &call.target {
        Target::Action { resource, name } => {
            format!("The action '{name}' is not known for the resource type '{}'.", resource.resource_type())
        }
        _ => format!("The resource type '{kind}' could not be found on this platform."),
    };
    Fault::not_found("InvalidResourceType", message).into()
}
