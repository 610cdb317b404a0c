//! Outbound rules of a workspace's managed network.

use casemate_model::{Fault, egress::PortRanges};
use serde_json::{Value, json};

use super::{document::Document, show};
use crate::yaml::{Fields, Node};

/// One outbound rule, in the API's shape but for its name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OutboundRule {
    /// Its name.
    pub name: String,
    /// The API's shape: `{type, category, destination, …}`.
    pub body: Value,
}

#[derive(Clone, Copy)]
enum Kind {
    Fqdn,
    ServiceTag,
    PrivateEndpoint,
}

impl OutboundRule {
    /// Reads one from a document of its own.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the outbound rule", |fields, _| Self::from_fields(fields).unwrap_or_default())
    }

    pub(super) fn from_node(node: &Node, fields: &Fields<'_>) -> Option<Self> {
        let inner = Fields::open(node, "the outbound rule", fields.issues())?;
        let rule = Self::from_fields(&inner);
        inner.finish();
        rule
    }

    fn from_fields(fields: &Fields<'_>) -> Option<Self> {
        fields.ignore(&["category", "status", "error_information", "parent_rule_names", "id", "resourceGroup"]);
        let name = fields.text("name");
        fields.require("name", name.is_some());
        let kind = fields.choice(
            "type",
            &[("fqdn", Kind::Fqdn), ("service_tag", Kind::ServiceTag), ("private_endpoint", Kind::PrivateEndpoint)],
        );
        fields.require("type", fields.node("type").is_some());
        fields.require("destination", fields.node("destination").is_some());
        let body = match kind? {
            Kind::Fqdn => {
                // The original has no ports here, so they travel in a place of our own, which its clients let pass. They
                // are always said: where a client is silent the platform keeps those that were.
                let ports = fields.text("port_ranges").unwrap_or_else(|| PortRanges::web().to_string());
                json!({"type": "FQDN", "category": "UserDefined", "destination": fields.text("destination"),
                    "casemate": {"portRanges": ports}})
            }
            Kind::ServiceTag => service_tag(fields.nested("destination")?),
            Kind::PrivateEndpoint => {
                let mut body = private_endpoint(fields.nested("destination")?);
                if let Some(fqdns) = fields.text_list("fqdns") {
                    body["fqdns"] = json!(fqdns);
                }
                body
            }
        };
        Some(Self { name: name?, body })
    }

    /// What the command line prints for the API's shape of a rule, as it stands under `properties`.
    #[must_use]
    pub fn show(name: &str, rule: &Value) -> Value {
        let snake = |pointer: &str| show::text(rule, pointer).map(|text| json!(show::snake_from_camel(text)));
        let destination = show::at(rule, "/destination").map(|destination| match destination {
            Value::Object(map) => Value::Object(
                map.iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(key, value)| (show::snake_from_camel(key), value.clone()))
                    .collect(),
            ),
            other => other.clone(),
        });
        show::object([
            ("name", Some(json!(name))),
            ("type", snake("/type")),
            ("category", snake("/category")),
            ("status", show::copy(rule, "/status")),
            ("error_information", show::copy(rule, "/errorInformation")),
            ("parent_rule_names", show::copy(rule, "/parentRuleNames").filter(|names| names != &json!([]))),
            ("destination", destination),
            ("port_ranges", show::copy(rule, "/casemate/portRanges")),
            ("fqdns", show::copy(rule, "/fqdns")),
        ])
    }
}

fn service_tag(inner: Fields<'_>) -> Value {
    let (tag, prefixes) = (inner.text("service_tag"), inner.text_list("address_prefixes"));
    if tag.is_none() && prefixes.is_none() {
        inner.require("service_tag", false);
    }
    let (protocol, ports) = (inner.text("protocol"), inner.text("port_ranges"));
    inner.require("protocol", protocol.is_some());
    inner.require("port_ranges", ports.is_some());
    let action = inner.choice("action", &[("allow", "Allow"), ("deny", "Deny")]);
    inner.finish();
    let destination = show::object([
        ("serviceTag", tag.map(|v| json!(v))),
        ("protocol", protocol.map(|v| json!(v))),
        ("portRanges", ports.map(|v| json!(v))),
        ("addressPrefixes", prefixes.map(|v| json!(v))),
        ("action", action.map(|v| json!(v))),
    ]);
    json!({"type": "ServiceTag", "category": "UserDefined", "destination": destination})
}

fn private_endpoint(inner: Fields<'_>) -> Value {
    let (id, target) = (inner.text("service_resource_id"), inner.text("subresource_target"));
    inner.require("service_resource_id", id.is_some());
    inner.require("subresource_target", target.is_some());
    let spark = inner.boolean("spark_enabled").unwrap_or(false);
    inner.finish();
    json!({"type": "PrivateEndpoint", "category": "UserDefined",
        "destination": {"serviceResourceId": id, "subresourceTarget": target, "sparkEnabled": spark}})
}
