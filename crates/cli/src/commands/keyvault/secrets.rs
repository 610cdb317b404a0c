//! `keyvault secret …`.

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::by_name;
use crate::{
    commands::{Found, group::tag_map, network::truth},
    failure::Failure,
    grammar::{InGroup, SecretAbout, SecretCommand, SecretName, SecretSet},
    output::Output,
    session::{Session, segment},
};

/// Version of the vault's own API that is spoken.
const DATA_API: &str = "api-version=7.4";
const COLUMNS: &str =
    "[].{Name:name, Id:id, ContentType:contentType, Enabled:attributes.enabled, Expires:attributes.expires}";
/// Largest file that is read for a value, in bytes; the vault's own limit is narrower.
const MAX_FILE: u64 = 1 << 20;

pub(super) async fn run(command: SecretCommand, session: &Session) -> Found {
    match command {
        SecretCommand::Set(args) => set(*args, session).await,
        SecretCommand::Show(name) => {
            let at = Place::of(session, name).await?;
            Ok(shown(&at.call(session, Method::GET, true, None).await?).into())
        }
        SecretCommand::List { vault_name } => list(session, &uri(session, &vault_name).await?, "/secrets").await,
        SecretCommand::ListVersions(name) => {
            let at = Place::of(session, name).await?;
            list(session, &at.uri, &format!("/secrets/{}/versions", segment(&at.name))).await
        }
        SecretCommand::SetAttributes { name, enabled, about, content_type } => {
            let mut body = described(&about)?;
            if let Some(text) = enabled {
                body["attributes"]["enabled"] = truth("--enabled", &text)?.into();
            }
            if let Some(text) = content_type {
                body["contentType"] = text.into();
            }
            let at = Place::of(session, name).await?;
            Ok(shown(&at.call(session, Method::PATCH, true, Some(&body)).await?).into())
        }
        SecretCommand::Delete(name) => {
            let at = Place::of(session, name).await?;
            Ok(shown(&at.call(session, Method::DELETE, false, None).await?).into())
        }
    }
}

async fn set(args: SecretSet, session: &Session) -> Found {
    let value = match (args.value, &args.file) {
        (Some(value), _) => value,
        (None, Some(file)) => {
            let failed = |why: String| Failure::here(format!("The file '{}' can't be read: {why}.", file.display()));
            let size = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
            if size > MAX_FILE {
                return Err(failed(format!("it has {size} bytes, more than a secret can have")));
            }
            std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?
        }
        (None, None) => return Err(Failure::usage("The secret needs a value: give --value or --file.")),
    };
    let mut body = described(&args.about)?;
    body["value"] = value.into();
    if let Some(text) = args.description {
        body["contentType"] = text.into();
    }
    if let Some(text) = args.disabled {
        body["attributes"]["enabled"] = (!truth("--disabled", &text)?).into();
    }
    let at = Place { uri: uri(session, &args.vault_name).await?, name: args.name, version: None };
    Ok(shown(&at.call(session, Method::PUT, false, Some(&body)).await?).into())
}

fn described(about: &SecretAbout) -> Result<Value, Failure> {
    let mut body = json!({"attributes": {}});
    for (option, key, given) in [("--expires", "exp", &about.expires), ("--not-before", "nbf", &about.not_before)] {
        if let Some(text) = given {
            let time: Timestamp = text.parse().map_err(|_| {
                Failure::usage(format!("{option} is '{text}'; give a time such as 2027-01-02T03:04:05Z."))
            })?;
            body["attributes"][key] = time.as_second().into();
        }
    }
    if let Some(tags) = &about.tags {
        body["tags"] = tag_map(tags)?;
    }
    Ok(body)
}

/// Where a secret is.
struct Place {
    uri: String,
    name: String,
    version: Option<String>,
}

impl Place {
    async fn of(session: &Session, given: SecretName) -> Result<Self, Failure> {
        let Some(id) = given.id else {
            let (Some(vault), Some(name)) = (given.vault_name, given.name) else {
                return Err(Failure::usage("Which secret? Give --vault-name and --name, or --id."));
            };
            return Ok(Self { uri: uri(session, &vault).await?, name, version: given.version });
        };
        let bad = || Failure::usage(format!("--id is '{id}'; give a secret's address: https://VAULT/secrets/NAME"));
        let (host, path) = id.strip_prefix("https://").and_then(|rest| rest.split_once("/secrets/")).ok_or_else(bad)?;
        let mut parts = path.trim_end_matches('/').splitn(2, '/').map(str::to_owned);
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(bad)?;
        // The token goes to a vault of this platform, wherever the address says it is.
        let vault = host.split('.').next().unwrap_or_default();
        Ok(Self { uri: uri(session, vault).await?, name, version: parts.next() })
    }

    async fn call(
        &self,
        session: &Session,
        method: Method,
        versioned: bool,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut path = format!("/secrets/{}", segment(&self.name));
        if let Some(version) = self.version.as_ref().filter(|_| versioned) {
            path = format!("{path}/{}", segment(version));
        }
        let vault = session.client().vault(&self.uri).await?;
        Ok(vault.call(method, &format!("{path}?{DATA_API}"), body).await?)
    }
}

async fn uri(session: &Session, vault: &str) -> Result<String, Failure> {
    let found = by_name(session, vault, &InGroup { resource_group: None }).await?;
    let uri = found["properties"]["vaultUri"].as_str();
    Ok(uri.ok_or_else(|| Failure::here(format!("The vault '{vault}' has no address.")))?.to_owned())
}

async fn list(session: &Session, uri: &str, path: &str) -> Found {
    let vault = session.client().vault(uri).await?;
    let all = vault.list(&format!("{path}?{DATA_API}")).await?;
    Ok(Output::Value(all.iter().map(shown).collect(), Some(COLUMNS)))
}

/// A secret as `az` prints it.
fn shown(secret: &Value) -> Value {
    let time = |key: &str| {
        let time = secret["attributes"][key].as_i64().and_then(|at| Timestamp::from_second(at).ok());
        time.map_or(Value::Null, |time| time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string().into())
    };
    let id = secret["id"].as_str().unwrap_or_default();
    let name = id.split("/secrets/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let attributes = &secret["attributes"];
    let mut shown = json!({
        "attributes": {
            "created": time("created"),
            "enabled": attributes["enabled"],
            "expires": time("exp"),
            "notBefore": time("nbf"),
            "recoverableDays": attributes["recoverableDays"],
            "recoveryLevel": attributes["recoveryLevel"],
            "updated": time("updated"),
        },
        "contentType": secret["contentType"],
        "id": id,
        "kid": null,
        "managed": null,
        "name": name,
        "tags": secret["tags"],
    });
    if let Some(value) = secret.get("value") {
        shown["value"] = value.clone();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_as_az_shows_them() {
        let secret = json!({"id": "https://kv.vault.x/secrets/one/0123", "value": "7", "tags": {},
            "attributes": {"enabled": true, "created": 1_750_000_000, "recoveryLevel": "Purgeable"}});
        let shown = shown(&secret);
        assert_eq!(
            (&shown["name"], &shown["value"], &shown["attributes"]["expires"]),
            (&json!("one"), &json!("7"), &Value::Null)
        );
        assert_eq!(shown["attributes"]["created"], "2025-06-15T15:06:40+00:00");
    }
}
