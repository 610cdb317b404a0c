//! Online endpoints.

use std::collections::BTreeMap;

use casemate_model::{Fault, endpoint::AuthMode};
use serde_json::{Value, json};

use super::{document::Document, identity::Identity, show};

/// An endpoint as its YAML file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Endpoint {
    /// Its name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Free properties.
    pub properties: BTreeMap<String, String>,
    /// How callers authenticate; `Key` when absent.
    pub auth_mode: Option<AuthMode>,
    /// Who it is towards others; system-assigned when absent.
    pub identity: Option<Identity>,
    /// Live percentages.
    pub traffic: Option<BTreeMap<String, u64>>,
    /// Mirrored percentage.
    pub mirror_traffic: Option<BTreeMap<String, u64>>,
    /// Whether it may be called from outside the managed network.
    pub public_network_access: Option<bool>,
    /// Kubernetes compute; managed endpoints have none.
    pub compute: Option<String>,
}

impl Endpoint {
    /// Reads it from a document.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the endpoint", |fields, _| {
            fields.ignore(&[
                "id",
                "scoring_uri",
                "openapi_uri",
                "provisioning_state",
                "kind",
                "location",
                "resourceGroup",
            ]);
            Self {
                name: fields.text("name"),
                description: fields.text("description"),
                tags: fields.texts("tags"),
                properties: fields.texts("properties"),
                auth_mode: fields.choice(
                    "auth_mode",
                    &[("key", AuthMode::Key), ("aml_token", AuthMode::AMLToken), ("aad_token", AuthMode::AADToken)],
                ),
                identity: Identity::read(fields),
                traffic: fields.counts("traffic"),
                mirror_traffic: fields.counts("mirror_traffic"),
                public_network_access: fields
                    .choice("public_network_access", &[("enabled", true), ("disabled", false)]),
                compute: fields.text("compute"),
            }
        })
    }

    /// The body of a PUT.
    #[must_use]
    pub fn to_arm(&self, location: &str) -> Value {
        let access = self.public_network_access.map(|open| json!(if open { "Enabled" } else { "Disabled" }));
        // Zero shares say the same as no share, and the original drops them before it sends.
        let without_zeroes = |shares: &Option<BTreeMap<String, u64>>| {
            let kept: BTreeMap<&String, &u64> = shares.iter().flatten().filter(|(_, share)| **share > 0).collect();
            json!(kept)
        };
        // What the platform adds to the shown properties must not come back as the user's.
        let properties: BTreeMap<&String, &String> =
            self.properties.iter().filter(|(key, _)| !SHOWN_SYSTEM_DATA.contains(&key.as_str())).collect();
        json!({
            "location": location,
            "tags": self.tags,
            "identity": self.identity.clone().unwrap_or_default().to_arm(),
            "properties": show::object([
                ("authMode", Some(json!(self.auth_mode.unwrap_or(AuthMode::Key)))),
                ("description", self.description.as_ref().map(|text| json!(text))),
                ("properties", Some(json!(properties))),
                ("traffic", Some(without_zeroes(&self.traffic))),
                ("mirrorTraffic", Some(without_zeroes(&self.mirror_traffic))),
                ("publicNetworkAccess", access),
                ("compute", self.compute.as_ref().map(|id| json!(id))),
            ]),
        })
    }

    /// What the command line prints for the API's shape. `deployments` are the names of those that exist: one without
    /// a share is shown with 0.
    #[must_use]
    pub fn show(arm: &Value, deployments: &[String]) -> Value {
        let mut properties = show::copy(arm, "/properties/properties").unwrap_or_else(|| json!({}));
        if let (Some(map), Some(system)) = (properties.as_object_mut(), show::at(arm, "/systemData")) {
            for key in SHOWN_SYSTEM_DATA {
                if let Some(value) = system.get(key) {
                    map.entry(key).or_insert_with(|| value.clone());
                }
            }
        }
        let mut traffic = show::copy(arm, "/properties/traffic").unwrap_or_else(|| json!({}));
        let mirror = show::copy(arm, "/properties/mirrorTraffic").unwrap_or_else(|| json!({}));
        if let Some(map) = traffic.as_object_mut() {
            for name in deployments {
                if mirror.get(name).is_none() {
                    map.entry(name.as_str()).or_insert_with(|| json!(0));
                }
            }
        }
        let lower = |pointer: &str| show::text(arm, pointer).map(|text| json!(text.to_ascii_lowercase()));
        let auth = show::text(arm, "/properties/authMode").map(|mode| match mode.to_ascii_lowercase().as_str() {
            "amltoken" => "aml_token".to_owned(),
            "aadtoken" => "aad_token".to_owned(),
            other => other.to_owned(),
        });
        show::object([
            ("auth_mode", auth.map(|mode| json!(mode))),
            ("compute", show::copy(arm, "/properties/compute")),
            ("description", show::copy(arm, "/properties/description")),
            ("id", show::copy(arm, "/id")),
            ("identity", Identity::show(arm)),
            ("kind", show::copy(arm, "/kind")),
            ("location", show::copy(arm, "/location")),
            ("mirror_traffic", Some(mirror)),
            ("name", show::copy(arm, "/name")),
            ("openapi_uri", show::copy(arm, "/properties/swaggerUri")),
            ("properties", Some(properties)),
            ("provisioning_state", show::copy(arm, "/properties/provisioningState")),
            ("public_network_access", lower("/properties/publicNetworkAccess")),
            ("scoring_uri", show::copy(arm, "/properties/scoringUri")),
            ("tags", Some(show::copy(arm, "/tags").unwrap_or_else(|| json!({})))),
            ("traffic", Some(traffic)),
        ])
    }
}

/// Facts of the system data that are shown among an endpoint's properties.
const SHOWN_SYSTEM_DATA: [&str; 3] = ["createdAt", "createdBy", "lastModifiedAt"];

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        let root = crate::yaml::parse(text, "endpoint.yml").unwrap();
        Document { root, name: "endpoint.yml".to_owned(), base: ".".into() }
    }

    #[test]
    fn from_yaml_to_the_body() {
        let endpoint = Endpoint::read(&document(
            "$schema: https://x/endpoint.json\nname: my-endpoint\nauth_mode: aml_token\npublic_network_access: disabled\n\
             tags: {team: a}\nidentity: {type: user_assigned, user_assigned_identities: [{resource_id: /subscriptions/s/x}]}\n\
             traffic: {blue: 100, green: 0}\n",
        ))
        .unwrap();
        assert_eq!(endpoint.name.as_deref(), Some("my-endpoint"));
        assert_eq!(
            endpoint.to_arm("local"),
            json!({"location": "local", "tags": {"team": "a"},
                "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/s/x": {}}},
                "properties": {"authMode": "AMLToken", "properties": {}, "traffic": {"blue": 100}, "mirrorTraffic": {},
                    "publicNetworkAccess": "Disabled"}})
        );
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let arm = json!({"id": "/subscriptions/s/resourceGroups/g/providers/P/t/ep", "name": "ep", "location": "local",
            "kind": "Managed", "tags": {"a": "b"}, "identity": {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"},
            "systemData": {"createdAt": "2025-01-01T00:00:00Z", "createdBy": "me", "lastModifiedAt": "2025-01-01T00:00:00Z"},
            "properties": {"authMode": "Key", "traffic": {"blue": 100}, "mirrorTraffic": {"green": 10}, "publicNetworkAccess": "Enabled",
                "provisioningState": "Succeeded", "scoringUri": "https://x/score", "swaggerUri": "https://x/swagger.json",
                "properties": {"azureml.onlineendpointid": "q"}}});
        let shown = Endpoint::show(&arm, &["blue".to_owned(), "green".to_owned(), "grey".to_owned()]);
        assert_eq!(shown["traffic"], json!({"blue": 100, "grey": 0}));
        assert_eq!(shown["identity"], json!({"type": "system_assigned", "principal_id": "p", "tenant_id": "t"}));
        assert_eq!(shown["openapi_uri"], "https://x/swagger.json");
        assert_eq!(shown["properties"]["createdBy"], "me");
        let again = Endpoint::read(&Document::from_shown(&shown, "ep")).unwrap().to_arm("local");
        assert_eq!(again["properties"]["properties"], json!({"azureml.onlineendpointid": "q"}));
        assert_eq!(again["properties"]["traffic"], json!({"blue": 100}));
        assert_eq!(again["properties"]["mirrorTraffic"], json!({"green": 10}));
    }

    #[test]
    fn bad_input() {
        for (text, said) in [
            (
                "name: x\nauth_mod: key\n",
                "endpoint.yml:2:1: 'auth_mod' is not a field of the endpoint; did you mean 'auth_mode'?",
            ),
            (
                "auth_mode: none\n",
                "endpoint.yml:1:12: 'auth_mode' in the endpoint must be one of key, aml_token, aad_token",
            ),
            ("traffic: {blue: ninety}\n", "endpoint.yml:1:17: 'traffic.blue'"),
            ("identity: {type: user_assigned}\n", "needs the field 'user_assigned_identities'"),
            ("tags: [a]\n", "endpoint.yml:1:7: 'tags' in the endpoint must be a mapping of texts, not a list"),
        ] {
            let fault = Endpoint::read(&document(text)).expect_err(text);
            assert!(fault.message.contains(said), "{} lacks {said}", fault.message);
        }
    }
}
