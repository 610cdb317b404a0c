//! The network interface of a private endpoint, as clients look for its address. It is a view: an interface comes and
//! goes with its private endpoint, and can't be written.

use casemate_model::{
    Resource, ResourceId,
    network::{PRIVATE_ENDPOINT_TYPE, PrivateEndpoint},
};
use casemate_store::Filter;
use http::Method;
use serde_json::{Value, json};

use super::{endpoints::Around, shape};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let (Some(scope), &Method::GET) = (call.target.scope(), &call.method) else { return call.method_not_allowed() };
    let place = match &call.target {
        Target::Resource(id) => id.parent().unwrap_or_else(|| id.clone()),
        _ => scope.clone(),
    };
    let rows = state.store.resource_list(&Filter::of_type(PRIVATE_ENDPOINT_TYPE).within(&place)).await?;
    let around = Around::read(state).await?;
    match &call.target {
        Target::Resource(wanted) => {
            let is_wanted = |row: &&Resource| id(row).is_some_and(|id| id.eq_ignore_ascii_case(wanted.as_str()));
            let row = rows.iter().find(is_wanted).ok_or_else(|| common::not_found(wanted))?;
            let shown = show(state, &around, row).ok_or_else(|| common::not_found(wanted))?;
            Ok(respond::shown(call, row, &shown))
        }
        Target::Collection { .. } => {
            let shown = rows.iter().filter_map(|row| show(state, &around, row)).collect();
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

/// The id of a private endpoint's interface.
pub(super) fn id(endpoint: &Resource) -> Option<String> {
    let properties = endpoint.properties();
    let usual = || Some(format!("{}.nic.{}", endpoint.name(), properties["resourceGuid"].as_str()?));
    let name = properties["customNetworkInterfaceName"].as_str().map(str::to_owned).or_else(usual)?;
    Some(format!("{}/providers/Microsoft.Network/networkInterfaces/{name}", endpoint.id.parent()?))
}

fn show(state: &ApiState, around: &Around, row: &Resource) -> Option<Value> {
    let endpoint = PrivateEndpoint::new(&row.id, row.properties()).ok()?;
    let id = ResourceId::parse(&id(row)?).ok()?;
    let mut shown = shape::public(row);
    let guid = row.properties()["resourceGuid"].as_str().unwrap_or_default();
    let configuration = format!("privateEndpointIpConfig.{guid}");
    let is_static = row.properties()["ipConfigurations"].get(0).is_some();
    shown["id"] = id.as_str().into();
    shown["name"] = id.name().into();
    shown["type"] = "Microsoft.Network/networkInterfaces".into();
    shown["properties"] = json!({
        "provisioningState": "Succeeded",
        "resourceGuid": guid,
        "primary": true,
        "dnsSettings": {"dnsServers": [], "appliedDnsServers": []},
        "privateEndpoint": {"id": row.id.as_str()},
        "ipConfigurations": [{
            "id": format!("{id}/ipConfigurations/{configuration}"),
            "name": configuration,
            "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
            "properties": {
                "provisioningState": "Succeeded",
                "privateIPAddress": endpoint.address.to_string(),
                "privateIPAddressVersion": if endpoint.address.is_ipv4() { "IPv4" } else { "IPv6" },
                "privateIPAllocationMethod": if is_static { "Static" } else { "Dynamic" },
                "subnet": row.properties()["subnet"],
                "primary": true,
                "privateLinkConnectionProperties": {
                    "groupId": endpoint.groups.first(),
                    "requiredMemberName": endpoint.groups.first(),
                    "fqdns": around.public_names(state, &endpoint),
                },
            },
        }],
    });
    Some(shown)
}
