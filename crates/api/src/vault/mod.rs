//! Key vaults: their management, and the secrets in them at their own host.
//!
//! A vault is a row; each secret is a row in it and each version of a secret one in that, whose value the store seals.
//! Deleting is final: nothing is kept for recovery. Keys and certificates are refused by name.

mod answer;
mod door;
mod manage;
mod secrets;
mod trust;

use std::collections::BTreeMap;

use casemate_model::{Fault, FaultKind, vault::SecretReference};

pub(crate) use self::{
    door::{Asked, enter},
    manage::{KIND, dispatch, is_known, show, write},
    trust::check_keys,
};

/// Insists that environment variables that look like references to secrets are ones that can be looked up when an
/// instance is started.
///
/// # Errors
/// `BadArgument` or `NotImplemented` naming the variable; never its value.
pub(crate) fn check_references(variables: &BTreeMap<String, String>, domain: &str) -> Result<(), Fault> {
    for (variable, value) in variables {
        let named = |fault: Fault| {
            let message = format!("The environment variable '{variable}' can't be set. {}", fault.message);
            Fault { message, ..fault }.at("environmentVariables")
        };
        if let Some(SecretReference::Connection { name, .. }) = SecretReference::parse(value, domain).map_err(named)? {
            let message = format!(
                "It is a credential of the connection '{name}', and workspaces of this platform have no connections yet. \
                 Keep it in a key vault and name it so: ${{{{keyvault:https://VAULT.vault.{domain}/secrets/NAME}}}}."
            );
            return Err(named(Fault::new(FaultKind::NotImplemented, "NotImplemented", message)));
        }
    }
    Ok(())
}

/// Whether tokens for this lower-case resource (without a slash at its end) are for vaults: the public cloud's name, or
/// this platform's, with the port that vaults are called at.
pub(crate) fn is_audience(wanted: &str, domain: &str) -> bool {
    let own = || wanted.strip_prefix("https://vault.")?.strip_prefix(&domain.to_ascii_lowercase());
    let is_port =
        |rest: &str| rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    wanted == casemate_model::vault::AUDIENCE_VAULT || own().is_some_and(is_port)
}

#[cfg(test)]
mod tests;
