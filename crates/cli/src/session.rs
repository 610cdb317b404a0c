//! Whom the command talks to and as whom: from variables, the state directory or a stored sign-in; and which
//! subscription, group and workspace it means.

use std::path::{Path, PathBuf};

use casemate_model::Secret;
use casemate_wire::client::{Client, Credential};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    config::{self, Settings},
    failure::Failure,
    grammar::{Globals, Scope},
    state::{self, Target, state_dir},
    terminal,
};

/// Version of the machine learning API that is spoken.
pub(crate) const ML_API: &str = "api-version=2024-10-01-preview";
/// Version of the resource API that is spoken.
pub(crate) const ARM_API: &str = "api-version=2022-09-01";
/// What a part of a path may hold unescaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One part of a path.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A stored sign-in.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredLogin {
    pub(crate) url: String,
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
}

/// Where the sign-in is stored.
pub(crate) fn login_path(directory: &Path) -> PathBuf {
    directory.join("casemate-login.json")
}

/// A command's view of one platform.
pub(crate) struct Session {
    client: Client,
    target: Target,
    settings: Settings,
    /// Given with `--subscription`, or by the variable that goes with the platform's.
    chosen: Option<String>,
    subscription: OnceCell<String>,
}

impl Session {
    /// Finds the platform. Nothing is sent yet.
    pub(crate) fn open(globals: &Globals) -> Result<Self, Failure> {
        let state = state_dir(globals.state.as_deref());
        let directory = config::directory(globals);
        let settings = Settings::read(&directory)?;
        let target = find(globals, &state, &directory)?;
        if globals.verbose || globals.debug {
            terminal::note(&format!("The platform at {}, as {}", target.url, target.client_id));
        }
        Self::with(target, settings, globals)
    }

    /// A session with a known target.
    pub(crate) fn with(target: Target, settings: Settings, globals: &Globals) -> Result<Self, Failure> {
        let credential = Credential {
            tenant: target.tenant.clone(),
            client_id: target.client_id.clone(),
            client_secret: target.client_secret.clone(),
        };
        // With `--state` the variables may be about another platform.
        let variable = || std::env::var("AZURE_SUBSCRIPTION_ID").ok().filter(|id| !id.is_empty());
        let chosen = globals.subscription.clone().or_else(|| variable().filter(|_| globals.state.is_none()));
        let mut client = Client::new(&target.url, target.ca_pem.as_deref(), credential)?;
        if globals.debug {
            client = client.traced(Box::new(terminal::note));
        }
        Ok(Self { client, target, settings, chosen, subscription: OnceCell::new() })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.target.tenant
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.target.client_id
    }

    /// The subscriptions that one may see.
    pub(crate) async fn subscriptions(&self) -> Result<Vec<Value>, Failure> {
        Ok(self.client.list("/subscriptions?api-version=2022-12-01").await?)
    }

    /// The subscription's id: the one given, the one chosen before, the platform's own, the first one.
    pub(crate) async fn subscription(&self) -> Result<&str, Failure> {
        let find = || async {
            let chosen = self.chosen.clone().or_else(|| self.settings.get("account", "subscription"));
            match chosen.or_else(|| self.target.subscription.clone()) {
                Some(id) if uuid::Uuid::parse_str(&id).is_ok() => Ok(id),
                Some(name) => self.subscription_by_name(&name).await,
                None => self.first_subscription().await,
            }
        };
        self.subscription.get_or_try_init(find).await.map(String::as_str)
    }

    async fn first_subscription(&self) -> Result<String, Failure> {
        let all = self.subscriptions().await?;
        let first = all.first().and_then(|one| one.get("subscriptionId")).and_then(Value::as_str);
        first
            .map(str::to_owned)
            .ok_or_else(|| Failure::not_found("You may see no subscription. Ask the platform's owner for a role."))
    }

    /// Finds a subscription by its name or id.
    pub(crate) async fn subscription_by_name(&self, name: &str) -> Result<String, Failure> {
        let all = self.subscriptions().await?;
        let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = all
            .iter()
            .find(|one| ["displayName", "subscriptionId"].iter().any(|key| text(one, key).eq_ignore_ascii_case(name)));
        found.map(|one| text(one, "subscriptionId")).ok_or_else(|| {
            Failure::not_found(format!("The subscription '{name}' doesn't exist here, or you may not see it. `casemate account list` lists those there are."))
        })
    }

    /// `/subscriptions/S`.
    pub(crate) async fn subscription_id(&self) -> Result<String, Failure> {
        Ok(format!("/subscriptions/{}", segment(self.subscription().await?)))
    }

    /// The group's name: the one given, or the default.
    pub(crate) fn group(&self, given: Option<&str>) -> Result<String, Failure> {
        given
            .map(str::to_owned)
            .or_else(|| self.settings.default("group"))
            .ok_or_else(|| missing("resource group", "-g", "group"))
    }

    /// The workspace's name: the one given, or the default.
    pub(crate) fn workspace_name(&self, given: Option<&str>) -> Result<String, Failure> {
        given
            .map(str::to_owned)
            .or_else(|| self.settings.default("workspace"))
            .ok_or_else(|| missing("workspace", "-w", "workspace"))
    }

    /// `/subscriptions/S/resourceGroups/G`.
    pub(crate) async fn group_id(&self, given: Option<&str>) -> Result<String, Failure> {
        let group = self.group(given)?;
        Ok(format!("{}/resourceGroups/{}", self.subscription_id().await?, segment(&group)))
    }

    /// The workspace's id.
    pub(crate) async fn workspace_id(&self, scope: &Scope) -> Result<String, Failure> {
        let workspace = self.workspace_name(scope.workspace_name.as_deref())?;
        let group = self.group_id(scope.resource_group.as_deref()).await?;
        Ok(format!("{group}/providers/Microsoft.MachineLearningServices/workspaces/{}", segment(&workspace)))
    }
}

fn missing(what: &str, option: &str, name: &str) -> Failure {
    Failure::usage(format!(
        "No {what} was named. Give it with {option}, or keep a default: casemate configure --defaults {name}=NAME"
    ))
}

/// `--state`, then the variables, then the state directory, then the stored sign-in.
fn find(globals: &Globals, state: &Path, directory: &Path) -> Result<Target, Failure> {
    if globals.state.is_some() {
        return state::target(state);
    }
    if let Some(target) = from_variables()? {
        return Ok(target);
    }
    if state::is_set_up(state) {
        return state::target(state);
    }
    if let Some(target) = from_login(directory)? {
        return Ok(target);
    }
    Err(Failure::here(format!(
        "No platform is known here: nothing was set up in '{}', CASEMATE_URL is not set, and nobody signed in. Start one with `casemate up`, or sign in at one elsewhere with `casemate login --service-principal -u APP_ID -p SECRET -t TENANT --url URL`.",
        state.display()
    )))
}

/// The CA file named by the variables that `casemate env` sets.
pub(crate) fn ca_from_variables() -> Result<Option<Vec<u8>>, Failure> {
    let named = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].iter().find_map(|name| {
        std::env::var_os(name).filter(|file| !file.is_empty()).map(|file| (name, PathBuf::from(file)))
    });
    let Some((name, file)) = named else { return Ok(None) };
    let read = std::fs::read(&file);
    read.map(Some).map_err(|error| {
        Failure::here(format!("The CA file '{}' named by {name} can't be read: {error}.", file.display()))
    })
}

fn from_variables() -> Result<Option<Target>, Failure> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(url) = variable("CASEMATE_URL") else { return Ok(None) };
    let (Some(tenant), Some(client_id), Some(client_secret)) =
        (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"), variable("AZURE_CLIENT_SECRET"))
    else {
        return Ok(None);
    };
    Ok(Some(Target {
        url,
        tenant,
        client_id,
        client_secret: Secret::from(client_secret),
        subscription: None,
        ca_pem: ca_from_variables()?,
    }))
}

fn from_login(directory: &Path) -> Result<Option<Target>, Failure> {
    let path = login_path(directory);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::here(format!("The stored sign-in '{}' can't be read: {error}.", path.display())));
        }
    };
    let login: StoredLogin = serde_json::from_str(&text).map_err(|error| {
        Failure::here(format!("The stored sign-in '{}' is damaged: {error}. Sign in again.", path.display()))
    })?;
    Ok(Some(Target {
        url: login.url,
        tenant: login.tenant_id,
        client_id: login.client_id,
        client_secret: Secret::from(login.client_secret),
        subscription: None,
        ca_pem: login.ca_pem.map(String::into_bytes),
    }))
}
