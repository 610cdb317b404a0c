//! The state directory of a platform on this machine: where it is, its owner-only credentials, and the variables that
//! point the Azure tools at it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use casemate_model::Secret;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::{failure::Failure, grammar::EnvFormat};

/// The name that the platform's cloud has for the SDKs.
const CLOUD_NAME: &str = "Casemate";

/// `~/.local/share/casemate`.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    home().join(".local/share/casemate")
}

pub(crate) fn home() -> PathBuf {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The directory given with `--state`, else by CASEMATE_STATE, else the default; absolute.
pub(crate) fn state_dir(given: Option<&Path>) -> PathBuf {
    let variable = || std::env::var_os("CASEMATE_STATE").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let dir = given.map(Path::to_path_buf).or_else(variable).unwrap_or_else(default_state_dir);
    std::path::absolute(&dir).unwrap_or(dir)
}

/// `credentials.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialsFile {
    url: String,
    /// Not in files of earlier versions.
    domain: Option<String>,
    tenant_id: String,
    client_id: String,
    client_secret: String,
    subscription_id: String,
    ca_file: PathBuf,
}

/// How to reach a platform, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The platform's address.
    pub(crate) url: String,
    /// Its tenant.
    pub(crate) tenant: String,
    /// Who signs in.
    pub(crate) client_id: String,
    /// With which secret.
    pub(crate) client_secret: Secret,
    /// The subscription that it was set up with, if known.
    pub(crate) subscription: Option<String>,
    /// The platform's CA certificates as PEM; the system's when none.
    pub(crate) ca_pem: Option<Vec<u8>>,
}

fn file_of(state: &Path) -> PathBuf {
    state.join("credentials.json")
}

/// Whether a platform was ever started on this state directory.
pub(crate) fn is_set_up(state: &Path) -> bool {
    file_of(state).is_file()
}

fn read_file(state: &Path) -> Result<CredentialsFile, Failure> {
    let path = file_of(state);
    let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::here(format!(
            "No platform was set up in '{}'. Start one with `casemate up --state {}`, or name its directory with --state or CASEMATE_STATE.",
            state.display(),
            quote(&state.display().to_string())
        )),
        std::io::ErrorKind::PermissionDenied => Failure::here(format!(
            "'{}' belongs to another user ({error}). Sign in with your own service principal: `casemate login`.",
            path.display()
        )),
        _ => Failure::here(format!("'{}' can't be read: {error}.", path.display())),
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::here(format!(
            "'{}' is damaged: {error}. Start the platform again; it writes the file anew.",
            path.display()
        ))
    })
}

/// The platform of a state directory.
pub(crate) fn target(state: &Path) -> Result<Target, Failure> {
    let file = read_file(state)?;
    let ca_path = state.join(&file.ca_file);
    let ca_pem = fs::read(&ca_path).map_err(|error| {
        Failure::here(format!(
            "The CA certificate '{}' can't be read: {error}. Start the platform again.",
            ca_path.display()
        ))
    })?;
    Ok(Target {
        url: file.url,
        tenant: file.tenant_id,
        client_id: file.client_id,
        client_secret: Secret::from(file.client_secret),
        subscription: Some(file.subscription_id),
        ca_pem: Some(ca_pem),
    })
}

/// The variables of `casemate env` for the platform of a state directory, as text in the wanted form. It holds the
/// platform's owner secret: print it, keep it nowhere. With `private` the platform is reached by its name, which leads
/// to a private endpoint inside of a virtual network.
///
/// # Errors
/// When no platform was set up there; the message says how to start one.
pub fn environment_lines(state: &Path, format: EnvFormat, private: bool) -> Result<String, String> {
    variables(state, private).map(|variables| write(&variables, format)).map_err(|failure| failure.message().to_owned())
}

fn variables(state: &Path, private: bool) -> Result<Vec<(&'static str, String)>, Failure> {
    let file = read_file(state)?;
    let named = if private { by_name(&file)? } else { file.url.clone() };
    let url = named.trim_end_matches('/');
    let path = |name: &str| state.join(name).display().to_string();
    let bundle = path("ca-bundle.pem");
    Ok(vec![
        ("CASEMATE_URL", url.to_owned()),
        ("ARM_CLOUD_METADATA_URL", format!("{url}/metadata/endpoints?api-version=2019-05-01")),
        ("AZUREML_CURRENT_CLOUD", CLOUD_NAME.to_owned()),
        ("REQUESTS_CA_BUNDLE", bundle.clone()),
        ("SSL_CERT_FILE", bundle.clone()),
        ("CURL_CA_BUNDLE", bundle),
        ("AZURE_AUTHORITY_HOST", format!("{url}/adfs")),
        ("AZURE_TENANT_ID", file.tenant_id),
        ("AZURE_CLIENT_ID", file.client_id),
        ("AZURE_CLIENT_SECRET", file.client_secret),
        ("AZURE_SUBSCRIPTION_ID", file.subscription_id),
        ("AZURE_CONFIG_DIR", path("azure")),
    ])
}

/// The platform's address by its name, with the port of the front door.
fn by_name(file: &CredentialsFile) -> Result<String, Failure> {
    let unknown = || {
        Failure::here("The platform's domain is not known. Start the platform again; it writes its credentials anew.")
    };
    let domain = file.domain.as_ref().ok_or_else(unknown)?;
    let port = file.url.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse::<u16>().ok());
    let port = port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("https://management.{domain}{port}"))
}

fn write(variables: &[(&str, String)], format: EnvFormat) -> String {
    match format {
        EnvFormat::Shell => variables.iter().map(|(name, value)| format!("export {name}={}\n", quote(value))).collect(),
        EnvFormat::Dotenv => {
            variables.iter().map(|(name, value)| format!("{name}={}\n", dotenv_quote(value))).collect()
        }
        EnvFormat::Json => {
            let map: Map<String, serde_json::Value> =
                variables.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            format!("{:#}\n", serde_json::Value::Object(map))
        }
    }
}

/// Quotes for a POSIX shell.
fn quote(text: &str) -> String {
    let plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Quotes for a `.env` file.
fn dotenv_quote(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' | '`' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_up() -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("it's a state ").tempdir().unwrap();
        fs::write(
            dir.path().join("credentials.json"),
            r#"{"url": "https://127.0.0.1:8443", "tenantId": "T", "clientId": "C", "clientSecret": "s'e$c\"r`et", "subscriptionId": "S", "caFile": "ca.pem"}"#,
        )
        .unwrap();
        fs::write(dir.path().join("ca.pem"), "PEM").unwrap();
        dir
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let dir = set_up();
        let text = environment_lines(dir.path(), EnvFormat::Shell, false).unwrap();
        let script = format!(
            "{text}printf '%s|' \"$AZURE_CLIENT_SECRET\" \"$SSL_CERT_FILE\" \"$AZURE_AUTHORITY_HOST\" \"$ARM_CLOUD_METADATA_URL\""
        );
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        let bundle = dir.path().join("ca-bundle.pem").display().to_string();
        assert_eq!(
            seen,
            format!(
                "s'e$c\"r`et|{bundle}|https://127.0.0.1:8443/adfs|https://127.0.0.1:8443/metadata/endpoints?api-version=2019-05-01|"
            )
        );
        assert_eq!(text.lines().count(), 12);
    }

    #[test]
    fn other_forms() {
        let dir = set_up();
        let json: serde_json::Value =
            serde_json::from_str(&environment_lines(dir.path(), EnvFormat::Json, false).unwrap()).unwrap();
        assert_eq!(json["AZUREML_CURRENT_CLOUD"], "Casemate");
        let dotenv = environment_lines(dir.path(), EnvFormat::Dotenv, false).unwrap();
        assert!(dotenv.contains("AZURE_CLIENT_SECRET=\"s'e\\$c\\\"r\\`et\"\n"), "{dotenv}");
    }

    #[test]
    fn inside_a_network_the_platform_has_a_name() {
        let dir = set_up();
        let file = dir.path().join("credentials.json");
        let refused = environment_lines(dir.path(), EnvFormat::Json, true).unwrap_err();
        assert!(refused.contains("domain"), "{refused}");
        let text = fs::read_to_string(&file).unwrap();
        for (url, named) in [
            ("https://127.0.0.1:8443", "https://management.casemate.internal:8443"),
            ("https://127.0.0.1:443/", "https://management.casemate.internal"),
            ("https://[::1]:9443", "https://management.casemate.internal:9443"),
        ] {
            let with = text.replace(
                "{\"url\": \"https://127.0.0.1:8443\"",
                &format!("{{\"url\": \"{url}\", \"domain\": \"casemate.internal\""),
            );
            fs::write(&file, with).unwrap();
            let lines = environment_lines(dir.path(), EnvFormat::Json, true).unwrap();
            let read: serde_json::Value = serde_json::from_str(&lines).unwrap();
            assert_eq!(read["CASEMATE_URL"], named, "{url}");
            assert_eq!(read["AZURE_AUTHORITY_HOST"], format!("{named}/adfs"));
        }
    }

    #[test]
    fn targets_and_their_absence() {
        let dir = set_up();
        let target = target(dir.path()).unwrap();
        assert_eq!((target.client_id.as_str(), target.ca_pem.as_deref()), ("C", Some(&b"PEM"[..])));
        assert!(!format!("{target:?}").contains("r`et"));
        let empty = tempfile::tempdir().unwrap();
        assert!(!is_set_up(empty.path()));
        assert!(environment_lines(empty.path(), EnvFormat::Shell, false).unwrap_err().contains("casemate up"));
        fs::write(empty.path().join("credentials.json"), "{").unwrap();
        assert!(environment_lines(empty.path(), EnvFormat::Shell, false).unwrap_err().contains("damaged"));
    }
}
