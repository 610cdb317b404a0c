//! Secrets that a deployment's environment variables name instead of holding them.

use super::{is_secret_name, is_version, of_host};
use crate::fault::Fault;

/// Where the value of an environment variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretReference {
    /// `${{keyvault:https://<vault>/secrets/<name>[/<version>]}}`.
    Vault {
        /// The lower-case name of the vault.
        vault: String,
        /// The secret.
        name: String,
        /// The version; the newest one for none.
        version: Option<String>,
    },
    /// `${{azureml://connections/<name>/credentials/<key>}}`.
    Connection {
        /// The connection of the workspace.
        name: String,
        /// Which of its credentials.
        key: String,
    },
}

impl SecretReference {
    /// Reads the value of an environment variable; none for a plain value.
    ///
    /// # Errors
    /// `BadArgument` for a text that begins like a reference and is none. The text itself is not repeated.
    pub fn parse(value: &str, domain: &str) -> Result<Option<Self>, Fault> {
        let Some(inner) = value.trim().strip_prefix("${{") else { return Ok(None) };
        let inner = inner.trim_start();
        let is_ours = ["keyvault:", "azureml://"].iter().any(|start| inner.starts_with(start));
        if !is_ours {
            return Ok(None);
        }
        let bad = || {
            let message = format!(
                "A value that begins with '${{{{' names a secret: write \
                 ${{{{keyvault:https://VAULT.vault.{domain}/secrets/NAME}}}} (with /VERSION for an older one), or \
                 ${{{{azureml://connections/NAME/credentials/KEY}}}}, and nothing before or after it."
            );
            Fault::invalid("BadArgument", message)
        };
        let inner = inner.strip_suffix("}}").ok_or_else(bad)?.trim();
        if let Some(rest) = inner.strip_prefix("azureml://connections/") {
            let (name, key) = rest.split_once("/credentials/").ok_or_else(bad)?;
            let plain = |text: &str| {
                (1..=255).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            };
            return match plain(name) && plain(key) {
                true => Ok(Some(Self::Connection { name: name.to_owned(), key: key.to_owned() })),
                false => Err(bad()),
            };
        }
        let rest =
            inner.strip_prefix("keyvault:").and_then(|url| url.trim().strip_prefix("https://")).ok_or_else(bad)?;
        let (host, path) = rest.split_once("/secrets/").ok_or_else(bad)?;
        let host = host.split_once(':').map_or(host, |(host, _)| host);
        let vault = of_host(host, domain).ok_or_else(bad)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let (name, version) = path.split_once('/').map_or((path, None), |(name, version)| (name, Some(version)));
        if !is_secret_name(name) || version.is_some_and(|version| !is_version(version)) {
            return Err(bad());
        }
        Ok(Some(Self::Vault { vault, name: name.to_owned(), version: version.map(str::to_owned) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let vault = |name: &str, version: Option<&str>| {
            Ok(Some(SecretReference::Vault {
                vault: "kv1".to_owned(),
                name: name.to_owned(),
                version: version.map(str::to_owned),
            }))
        };
        let version = "0123456789abcdef0123456789abcdef";
        let connection = SecretReference::Connection { name: "c-1".to_owned(), key: "key".to_owned() };
        for (value, expected) in [
            ("plain", Ok(None)),
            ("multiplier@https://kv1.vault.azure.net", Ok(None)),
            ("${{inputs.x}}", Ok(None)),
            ("${{keyvault:https://kv1.vault.azure.net/secrets/a}}", vault("a", None)),
            ("${{ keyvault:https://KV1.vault.casemate.internal:8443/secrets/a/ }}", vault("a", None)),
            (
                &format!("${{{{keyvault:https://kv1.vault.casemate.internal/secrets/a/{version}}}}}"),
                vault("a", Some(version)),
            ),
            ("${{azureml://connections/c-1/credentials/key}}", Ok(Some(connection))),
            ("${{keyvault:https://kv1.vault.azure.net/secrets/a}} b", Err(())),
            ("${{keyvault:http://kv1.vault.azure.net/secrets/a}}", Err(())),
            ("${{keyvault:https://kv1.vault.example.org/secrets/a}}", Err(())),
            ("${{keyvault:https://kv1.vault.azure.net/keys/a}}", Err(())),
            ("${{keyvault:https://kv1.vault.azure.net/secrets/a/latest}}", Err(())),
            ("${{keyvault:https://kv1.vault.azure.net/secrets/a_b}}", Err(())),
            ("${{azureml://models/c}}", Err(())),
            ("${{azureml://connections/c/credentials/a/b}}", Err(())),
        ] {
            assert_eq!(SecretReference::parse(value, "casemate.internal").map_err(|_| ()), expected, "{value}");
        }
    }
}
