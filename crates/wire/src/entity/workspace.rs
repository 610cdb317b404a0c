//! Workspaces, and the template by which one is made together with what it depends on.

use std::collections::BTreeMap;

use casemate_model::Fault;
use serde_json::{Map, Value, json};

use super::{document::Document, identity::Identity, rule::OutboundRule, show};
use crate::{artifact::hash_bytes, yaml::Fields};

/// The longest name of a storage account and of a vault.
const LONGEST_DEPENDENCY: usize = 24;

/// What a workspace's deployments may reach.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ManagedNetwork {
    /// `Disabled`, `AllowInternetOutbound` or `AllowOnlyApprovedOutbound`.
    pub isolation_mode: Option<&'static str>,
    /// The user's rules.
    pub rules: Vec<OutboundRule>,
    /// `Standard` or `Basic`.
    pub firewall_sku: Option<&'static str>,
}

/// A workspace as its YAML file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workspace {
    /// Its name.
    pub name: Option<String>,
    /// Its region.
    pub location: Option<String>,
    /// The group it lies in.
    pub resource_group: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// A readable name.
    pub display_name: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Whether it holds data of high business impact.
    pub hbi_workspace: Option<bool>,
    /// Id of an existing storage account.
    pub storage_account: Option<String>,
    /// Id of an existing registry.
    pub container_registry: Option<String>,
    /// Id of an existing vault.
    pub key_vault: Option<String>,
    /// Id of an existing metrics store.
    pub application_insights: Option<String>,
    /// Compute that builds images.
    pub image_build_compute: Option<String>,
    /// Whether it may be reached from outside.
    pub public_network_access: Option<bool>,
    /// The callers that may come from outside; empty lifts the list.
    pub ip_allowlist: Option<Vec<String>>,
    /// The 2021 network rules; must be off for managed endpoints.
    pub v1_legacy_mode: Option<bool>,
    /// Who it is towards others.
    pub identity: Option<Identity>,
    /// The identity it uses first.
    pub primary_user_assigned_identity: Option<String>,
    /// What its deployments may reach.
    pub managed_network: Option<ManagedNetwork>,
    /// Whether the managed network is made at once.
    pub provision_network_now: Option<bool>,
    /// How system datastores are opened.
    pub system_datastores_auth_mode: Option<String>,
}

/// The isolation modes as YAML, the command line and the API call them.
pub(crate) const ISOLATION_MODES: &[(&str, &str)] = &[
    ("disabled", "Disabled"),
    ("allow_internet_outbound", "AllowInternetOutbound"),
    ("allow_only_approved_outbound", "AllowOnlyApprovedOutbound"),
];

impl Workspace {
    /// Reads it from a document.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the workspace", |fields, _| {
            fields.ignore(&[
                "id",
                "discovery_url",
                "mlflow_tracking_uri",
                "resourceGroup",
                "workspace_id",
                "provisioning_state",
                "creation_context",
            ]);
            fields.refuse(&[
                "customer_managed_key",
                "network_acls",
                "serverless_compute",
                "workspace_hub",
                "enable_data_isolation",
                "allow_roleassignment_on_rg",
            ]);
            Self {
                name: fields.text("name"),
                location: fields.text("location"),
                resource_group: fields.text("resource_group"),
                description: fields.text("description"),
                display_name: fields.text("display_name"),
                tags: fields.texts("tags"),
                hbi_workspace: fields.boolean("hbi_workspace"),
                storage_account: fields.text("storage_account"),
                container_registry: fields.text("container_registry"),
                key_vault: fields.text("key_vault"),
                application_insights: fields.text("application_insights"),
                image_build_compute: fields.text("image_build_compute"),
                public_network_access: fields
                    .choice("public_network_access", &[("enabled", true), ("disabled", false)]),
                ip_allowlist: fields.text_list("ip_allowlist"),
                v1_legacy_mode: fields.boolean("v1_legacy_mode"),
                identity: Identity::read(fields),
                primary_user_assigned_identity: fields.text("primary_user_assigned_identity"),
                managed_network: read_network(fields),
                provision_network_now: fields.boolean("provision_network_now"),
                system_datastores_auth_mode: fields.text("system_datastores_auth_mode"),
            }
        })
    }

    /// What the file says of the workspace itself, as `properties` of the API's shape; what it does not say is absent.
    fn properties(&self) -> Map<String, Value> {
        let text = |value: &Option<String>| value.as_ref().map(|text| json!(text));
        let entries = [
            ("friendlyName", text(&self.display_name)),
            ("description", text(&self.description)),
            ("hbiWorkspace", self.hbi_workspace.map(|v| json!(v))),
            ("imageBuildCompute", text(&self.image_build_compute)),
            (
                "publicNetworkAccess",
                self.public_network_access.map(|open| json!(if open { "Enabled" } else { "Disabled" })),
            ),
            ("ipAllowlist", self.ip_allowlist.as_ref().map(|list| json!(list))),
            ("v1LegacyMode", self.v1_legacy_mode.map(|v| json!(v))),
            ("primaryUserAssignedIdentity", text(&self.primary_user_assigned_identity)),
            ("systemDatastoresAuthMode", text(&self.system_datastores_auth_mode)),
            ("managedNetwork", self.managed_network.as_ref().map(ManagedNetwork::to_arm)),
            ("provisionNetworkNow", self.provision_network_now.map(|v| json!(v))),
            ("storageAccount", text(&self.storage_account)),
            ("keyVault", text(&self.key_vault)),
            ("applicationInsights", text(&self.application_insights)),
            ("containerRegistry", text(&self.container_registry)),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// The body of a PATCH: only what the file or the options say.
    #[must_use]
    pub fn to_patch(&self) -> Value {
        let mut body = json!({"properties": self.properties()});
        if !self.tags.is_empty() {
            body["tags"] = json!(self.tags);
        }
        if let Some(identity) = &self.identity {
            body["identity"] = identity.to_arm();
        }
        body
    }

    /// A template deployment's body that makes the workspace `name` in `group` (the id of a resource group), and a
    /// storage account, a vault and a metrics store where it names none.
    #[must_use]
    pub fn to_template(&self, group: &str, tenant: &str, name: &str, location: &str) -> Value {
        let mut properties = self.properties();
        let mut resources = Vec::new();
        let mut depends_on = Vec::new();
        let short: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let digest = hash_bytes(format!("{group}/{name}").to_ascii_lowercase().as_bytes());
        let tail = &digest[..10];
        let open = self.public_network_access.unwrap_or(true);
        let access = if open { "Enabled" } else { "Disabled" };
        for (key, kind, version, word, extra) in [
            (
                "storageAccount",
                "Microsoft.Storage/storageAccounts",
                "2023-04-01",
                "storage",
                json!({"kind": "StorageV2", "sku": {"name": "Standard_LRS"}, "properties": {
                    "supportsHttpsTrafficOnly": true, "allowBlobPublicAccess": false, "minimumTlsVersion": "TLS1_2", "publicNetworkAccess": access}}),
            ),
            (
                "keyVault",
                "Microsoft.KeyVault/vaults",
                "2023-07-01",
                "keyvault",
                json!({"properties": {"tenantId": tenant, "sku": {"name": "standard", "family": "A"}, "accessPolicies": [],
                    "enableRbacAuthorization": true, "publicNetworkAccess": access}}),
            ),
            (
                "applicationInsights",
                "Microsoft.Insights/components",
                "2020-02-02-preview",
                "insights",
                json!({"kind": "web", "properties": {"Application_Type": "web"}}),
            ),
        ] {
            if properties.contains_key(key) {
                continue;
            }
            let mut dependency = format!("{short}{word}{tail}");
            dependency.truncate(LONGEST_DEPENDENCY);
            let id = format!("{group}/providers/{kind}/{dependency}");
            let mut resource = json!({"type": kind, "apiVersion": version, "name": dependency, "location": location, "tags": literal(&json!(self.tags))});
            if let (Some(map), Some(extra)) = (resource.as_object_mut(), extra.as_object()) {
                map.extend(extra.clone());
            }
            resources.push(resource);
            depends_on.push(json!(id));
            properties.insert(key.to_owned(), json!(id));
        }
        properties.entry("friendlyName").or_insert_with(|| json!(name));
        properties.entry("publicNetworkAccess").or_insert_with(|| json!("Enabled"));
        properties.entry("managedNetwork").or_insert_with(|| json!({"isolationMode": "Disabled"}));
        resources.push(json!({
            "type": "Microsoft.MachineLearningServices/workspaces",
            "apiVersion": "2023-08-01-preview",
            "name": name,
            "kind": "Default",
            "location": location,
            "tags": literal(&json!(self.tags)),
            "identity": self.identity.clone().unwrap_or_default().to_arm(),
            "dependsOn": depends_on,
            "properties": literal(&Value::Object(properties)),
        }));
        json!({"properties": {"mode": "Incremental", "parameters": {}, "template": {
            "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
            "contentVersion": "1.0.0.0",
            "resources": resources,
        }}})
    }

    /// What the command line prints for the API's shape.
    #[must_use]
    pub fn show(arm: &Value) -> Value {
        let copy = |pointer: &str| show::copy(arm, pointer);
        let group = show::text(arm, "/id").and_then(|id| id.split('/').nth(4)).map(|name| json!(name));
        show::object([
            ("application_insights", copy("/properties/applicationInsights")),
            ("container_registry", copy("/properties/containerRegistry")),
            ("description", copy("/properties/description")),
            ("discovery_url", copy("/properties/discoveryUrl")),
            ("display_name", copy("/properties/friendlyName")),
            ("hbi_workspace", copy("/properties/hbiWorkspace")),
            ("id", copy("/id")),
            ("identity", Identity::show(arm)),
            ("image_build_compute", copy("/properties/imageBuildCompute")),
            ("ip_allowlist", copy("/properties/ipAllowlist")),
            ("key_vault", copy("/properties/keyVault")),
            ("location", copy("/location")),
            ("managed_network", show_network(arm)),
            ("mlflow_tracking_uri", copy("/properties/mlFlowTrackingUri")),
            ("name", copy("/name")),
            ("primary_user_assigned_identity", copy("/properties/primaryUserAssignedIdentity")),
            ("provisioning_state", copy("/properties/provisioningState")),
            ("public_network_access", copy("/properties/publicNetworkAccess")),
            ("resource_group", group),
            ("storage_account", copy("/properties/storageAccount")),
            ("system_datastores_auth_mode", copy("/properties/systemDatastoresAuthMode")),
            ("tags", Some(copy("/tags").unwrap_or_else(|| json!({})))),
            ("v1_legacy_mode", copy("/properties/v1LegacyMode")),
            ("workspace_id", copy("/properties/workspaceId")),
        ])
    }
}

impl ManagedNetwork {
    /// The API's shape.
    #[must_use]
    pub fn to_arm(&self) -> Value {
        let rules: Map<String, Value> = self.rules.iter().map(|rule| (rule.name.clone(), rule.body.clone())).collect();
        show::object([
            ("isolationMode", self.isolation_mode.map(|mode| json!(mode))),
            ("outboundRules", Some(Value::Object(rules)).filter(|_| !self.rules.is_empty())),
            ("firewallSku", self.firewall_sku.map(|sku| json!(sku))),
        ])
    }
}

/// Escapes texts that a template would take for expressions.
fn literal(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with('[') => json!(format!("[{text}")),
        Value::Array(items) => items.iter().map(literal).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), literal(value))).collect()),
        other => other.clone(),
    }
}

fn read_network(fields: &Fields<'_>) -> Option<ManagedNetwork> {
    let inner = fields.nested("managed_network")?;
    inner.ignore(&["network_id", "status"]);
    let network = ManagedNetwork {
        isolation_mode: inner.choice("isolation_mode", ISOLATION_MODES),
        rules: inner
            .list("outbound_rules")
            .iter()
            .filter(|node| !required_by_platform(node))
            .filter_map(|node| OutboundRule::from_node(node, &inner))
            .collect(),
        firewall_sku: inner.choice("firewall_sku", &[("standard", "Standard"), ("basic", "Basic")]),
    };
    inner.require("isolation_mode", inner.node("isolation_mode").is_some());
    inner.finish();
    Some(network)
}

/// Rules that the platform makes itself are shown among the user's, but can't be sent back.
fn required_by_platform(node: &crate::yaml::Node) -> bool {
    let category = node.get("category").and_then(crate::yaml::Node::as_written);
    category.is_some_and(|category| !category.replace('_', "").eq_ignore_ascii_case("userdefined"))
}

fn show_network(arm: &Value) -> Option<Value> {
    let network = show::at(arm, "/properties/managedNetwork")?;
    let snake = |pointer: &str| show::text(network, pointer).map(|text| json!(show::snake_from_camel(text)));
    let rules = network.get("outboundRules").and_then(Value::as_object).into_iter().flatten();
    let rules: Vec<Value> = rules.map(|(name, rule)| OutboundRule::show(name, rule)).collect();
    let status = show::at(network, "/status").map(|status| {
        show::object([("spark_ready", show::copy(status, "/sparkReady")), ("status", show::copy(status, "/status"))])
    });
    Some(show::object([
        ("firewall_sku", snake("/firewallSku")),
        ("isolation_mode", snake("/isolationMode")),
        ("network_id", show::copy(network, "/networkId")),
        ("outbound_rules", Some(Value::Array(rules))),
        ("status", status),
    ]))
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
