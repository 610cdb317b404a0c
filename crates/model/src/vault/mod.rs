//! Key vaults: their names and hosts, who may do what with their secrets, and from where.
//!
//! This is arithmetic on the rows of vaults. Secret values are never seen here.

mod policy;
mod reference;
mod rules;

pub use self::{
    policy::{PERMISSIONS, Permission, checked_policies, policy_allows},
    reference::SecretReference,
    rules::{Caller, NetworkRules, Refused, checked_rules},
};
use crate::{
    fault::{Fault, FaultKind},
    resource::Resource,
};

/// The resource type of a vault.
pub const VAULT_TYPE: &str = "Microsoft.KeyVault/vaults";
/// The resource type of a secret.
pub const SECRET_TYPE: &str = "Microsoft.KeyVault/vaults/secrets";
/// The resource type of one version of a secret, which owns its value.
pub const VERSION_TYPE: &str = "Microsoft.KeyVault/vaults/secrets/versions";
/// Largest value of a secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 25 * 1024;
/// Most secrets of one vault.
pub const MAX_SECRETS: usize = 1000;
/// Most versions of one secret.
pub const MAX_VERSIONS: usize = 200;
/// The audience of tokens for vaults, whatever their domain.
pub const AUDIENCE_VAULT: &str = "https://vault.azure.net";
/// What follows a vault's name in the public cloud. Inside a sandbox such a name leads to the vault of this platform.
pub const PUBLIC_SUFFIX: &str = "vault.azure.net";
/// What follows a storage account's name in the public cloud, after `blob.`.
pub const PUBLIC_STORAGE_SUFFIX: &str = "core.windows.net";

/// The lower-case name of the vault that a host (without port) is: `NAME.vault.DOMAIN`, or `NAME.vault.azure.net`.
#[must_use]
pub fn of_host(host: &str, domain: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let own = || host.strip_suffix(&domain.to_ascii_lowercase())?.strip_suffix(".vault.");
    let name = own().or_else(|| host.strip_suffix(PUBLIC_SUFFIX)?.strip_suffix('.'))?;
    check_name(name).is_ok().then(|| name.to_owned())
}

/// Insists that a vault lets the platform itself in, to do `what` with it: "keep the keys of the endpoint 'e'".
///
/// # Errors
/// `KeyVaultAccessDenied` with the rules that refuse, and the line that mends it.
pub fn check_platform(vault: &Resource, what: &str) -> Result<(), Fault> {
    let properties = vault.properties();
    let rules = NetworkRules::from_properties(properties);
    let Err(refused) = rules.check(Caller::Platform, &[]) else { return Ok(()) };
    let (name, acls) = (vault.name(), &properties["networkAcls"]);
    let why = match refused {
        Refused::DefaultDeny => "whom no rule names is refused (defaultAction Deny)",
        Refused::PublicDisabled => "its public network access is disabled",
    };
    let message = format!(
        "The platform can't {what}: the key vault '{name}' refuses it. Its network rules let trusted services not in \
         (bypass None), and {why}: `az keyvault network-rule list -n {name}` shows {acls}. Let trusted services in: az \
         keyvault update -n {name} --bypass AzureServices"
    );
    Err(Fault::new(FaultKind::Forbidden, "KeyVaultAccessDenied", message).at(vault.id.as_str()))
}

/// Insists on a vault's name: 3 to 24 letters, digits and single hyphens, a letter first and no hyphen last.
///
/// # Errors
/// `VaultNameNotValid`.
pub fn check_name(name: &str) -> Result<(), Fault> {
    let plain = (3..=24).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && !name.contains("--");
    if plain {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = format!(
        "The vault name '{shown}' is invalid. A vault's name must be between 3-24 alphanumeric characters. The name must \
         begin with a letter, end with a letter or digit, and not contain consecutive hyphens."
    );
    Err(Fault::invalid("VaultNameNotValid", message).at("name"))
}

/// Whether this can be a secret's name: 1 to 127 letters, digits and hyphens.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Whether this can be the version of a secret: 32 hexadecimal digits.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_hosts() {
        for (name, fits) in [
            ("kv1", true),
            ("kv-example-12345", true),
            ("kv", false),
            ("1kv", false),
            ("kv-", false),
            ("k--v", false),
            ("kv_1", false),
            ("a23456789012345678901234", true),
            ("a234567890123456789012345", false),
        ] {
            assert_eq!(check_name(name).is_ok(), fits, "{name}");
        }
        for (host, name) in [
            ("kv1.vault.casemate.internal", Some("kv1")),
            ("KV1.Vault.Casemate.Internal.", Some("kv1")),
            ("kv1.vault.azure.net", Some("kv1")),
            ("a.kv1.vault.azure.net", None),
            ("vault.azure.net", None),
            (".vault.azure.net", None),
            ("kv1.vault.example.org", None),
            ("kv1vault.azure.net", None),
            ("kv1.blob.core.casemate.internal", None),
        ] {
            assert_eq!(of_host(host, "casemate.internal").as_deref(), name, "{host}");
        }
        assert!(
            is_secret_name("multiplier") && !is_secret_name("") && !is_secret_name("a_b") && !is_secret_name("a/b")
        );
        assert!(is_version("0123456789abcdef0123456789abcdef") && !is_version("latest"));
    }
}
