//! The one subscription and the one tenant.

use http::Method;
use serde_json::{Value, json};

use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// The subscription's name for people.
pub(super) const DISPLAY_NAME: &str = "Casemate";

pub(super) fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { kind, .. }, &Method::GET) if kind.ends_with("/tenants") => {
            let tenant = state.config.tenant.to_string();
            Ok(respond::ok(&json!({"value": [{
                "id": format!("/tenants/{tenant}"),
                "tenantId": tenant,
                "displayName": DISPLAY_NAME,
                "tenantCategory": "Home",
                "countryCode": null,
                "domains": [state.config.domain],
                "defaultDomain": state.config.domain,
                "tenantType": "AAD",
            }]})))
        }
        // Each principal of the platform may know that the subscription exists; what is in it has its own checks.
        (Target::Collection { .. }, &Method::GET) => {
            Ok(respond::ok(&json!({"value": [shown(state)], "count": {"type": "Total", "value": 1}})))
        }
        (Target::Resource(_), &Method::GET) => Ok(respond::ok(&shown(state))),
        (Target::Resource(_), &Method::HEAD) => Ok(respond::no_content()),
        _ => {
            ctx.authorize_call(call)?;
            call.method_not_allowed()
        }
    }
}

fn shown(state: &ApiState) -> Value {
    let id = state.config.subscription.to_string();
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "tenantId": state.config.tenant.to_string(),
        "displayName": DISPLAY_NAME,
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "subscriptionPolicies": {
            "locationPlacementId": "Internal_2014-09-01",
            "quotaId": "Internal_2014-09-01",
            "spendingLimit": "Off",
        },
        "managedByTenants": [],
        "tags": {},
    })
}

pub(super) fn locations(_ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    if call.method != Method::GET {
        return call.method_not_allowed();
    }
    let (id, region) = (state.config.subscription, &state.config.region);
    Ok(respond::ok(&json!({"value": [{
        "id": format!("/subscriptions/{id}/locations/{region}"),
        "name": region,
        "type": "Region",
        "displayName": region,
        "regionalDisplayName": region,
        "metadata": {
            "regionType": "Physical",
            "regionCategory": "Recommended",
            "geographyGroup": "On premises",
            "longitude": "0",
            "latitude": "0",
            "physicalLocation": "this machine",
            "pairedRegion": [],
        },
    }]})))
}
