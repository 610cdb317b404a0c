//! From where a vault is called, and whether its network rules let that in.

use casemate_model::{
    Resource, ResourceId,
    egress::{self, HostName, PrivateDestination, RULE_TYPE, Route, Surroundings, Verdict},
    inbound::Origin,
    vault::{Caller, NetworkRules, Refused, check_platform},
};
use casemate_store::{Filter, StoreError};

use super::answer::{Refusal, named};
use crate::{error::ApiError, state::ApiState};

/// Insists that the vault of a workspace lets the platform in, which keeps the keys of its endpoints there in effect. A
/// vault that is gone refuses nobody.
pub(crate) async fn check_keys(state: &ApiState, workspace: &Resource, endpoint: &str) -> Result<(), ApiError> {
    let id = workspace.properties()["keyVault"].as_str().and_then(|id| ResourceId::parse(id).ok());
    let Some(id) = id else { return Ok(()) };
    if let Some(vault) = state.store.resource_get(&id).await?.filter(|row| !row.deleting) {
        check_platform(&vault, &format!("keep or read the keys of the endpoint '{endpoint}'"))?;
    }
    Ok(())
}

/// Insists that the way that a request came is open to this vault.
pub(super) async fn check(state: &ApiState, vault: &Resource, origin: &Origin) -> Result<(), Refusal> {
    let shown = named(vault);
    let rules = NetworkRules::from_properties(vault.properties());
    let caller = match origin {
        Origin::Public { caller } => Caller::Address(*caller),
        Origin::Private { target, .. } if *target == vault.id => Caller::Private,
        Origin::Private { endpoint, target, .. } => {
            let message = format!(
                "The private endpoint '{}' leads to '{target}', not to this vault.\r\nVault: {shown}",
                endpoint.name()
            );
            return Err(Refusal::forbidden("ForbiddenByConnection", message));
        }
        Origin::Deployment { workspace, .. } if leads_to(state, workspace, vault).await? => Caller::Private,
        Origin::Deployment { public: Some(caller), .. } => Caller::Address(*caller),
        Origin::Deployment { workspace, public: None } => {
            let message = format!(
                "A deployment of the workspace '{}' calls, which has no approved private endpoint to this vault, and the \
                 platform takes no public calls from this machine (--allow-from).\r\nVault: {shown}",
                workspace.name()
            );
            return Err(Refusal::forbidden("ForbiddenByConnection", message));
        }
    };
    let prefixes = subnet_prefixes(state, &rules).await?;
    let Err(refused) = rules.check(caller, &prefixes) else { return Ok(()) };
    let (name, address) = (
        vault.name(),
        match caller {
            Caller::Address(address) => address.to_canonical().to_string(),
            _ => "none".to_owned(),
        },
    );
    Err(match refused {
        Refused::DefaultDeny => Refusal::forbidden(
            "ForbiddenByFirewall",
            format!(
                "Client address is not authorized and caller is not a trusted service.\r\nClient address: {address}\r\n\
                 Vault: {shown}\r\nTo let it in: az keyvault network-rule add -n {name} --ip-address {address}"
            ),
        ),
        Refused::PublicDisabled => Refusal::forbidden(
            "ForbiddenByConnection",
            format!(
                "Public network access is disabled and request is not from a trusted service nor via an approved private \
                 link.\r\nClient address: {address}\r\nVault: {shown}\r\nTo open it: az keyvault update -n {name} \
                 --public-network-access Enabled"
            ),
        ),
    })
}

/// The address prefixes of the subnets that the rules name; of those that are gone, none.
async fn subnet_prefixes(state: &ApiState, rules: &NetworkRules) -> Result<Vec<String>, StoreError> {
    let mut prefixes = Vec::new();
    for subnet in rules.subnets() {
        let Some(row) = state.store.resource_get(subnet).await?.filter(|row| !row.deleting) else { continue };
        let single = row.properties()["addressPrefix"].as_str().map(str::to_owned);
        let several = row.properties()["addressPrefixes"].as_array().into_iter().flatten();
        prefixes.extend(several.filter_map(|one| one.as_str().map(str::to_owned)).chain(single));
    }
    Ok(prefixes)
}

/// Whether the workspace's managed network has an approved private endpoint to this vault.
async fn leads_to(state: &ApiState, workspace: &ResourceId, vault: &Resource) -> Result<bool, StoreError> {
    let Some(workspace) = state.store.resource_get(workspace).await?.filter(|row| !row.deleting) else {
        return Ok(false);
    };
    let rules = state.store.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace.id)).await?;
    let mut known = Vec::new();
    for id in egress::needed(&workspace, &rules) {
        known.extend(state.store.resource_get(&id).await?.filter(|row| !row.deleting));
    }
    let lookup = |id: &ResourceId| known.iter().find(|row| row.id == *id).cloned();
    let domain = &state.config.domain;
    let around = Surroundings { tags: &state.tags, domain, own_addresses: &(state.own_addresses)(), lookup: &lookup };
    let (policy, _) = egress::policy(&workspace, &rules, None, &around);
    let host = HostName::parse(&format!("{}.vault.{domain}", vault.name()));
    let verdict = host.map(|host| policy.name(&host, 443).verdict);
    Ok(matches!(verdict, Ok(Verdict::Allow(Route::Private(PrivateDestination::FrontDoor)))))
}
