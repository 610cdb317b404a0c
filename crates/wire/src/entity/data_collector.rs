//! Which inputs and outputs of a deployment are collected.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::show;
use crate::yaml::{Fields, Kind};

/// Settings of the data collector.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DataCollector {
    /// What is collected, by name (`model_inputs`, `model_outputs`, …).
    pub collections: BTreeMap<String, Collection>,
    /// `Minute`, `Hour` or `Day`.
    pub rolling_rate: Option<&'static str>,
    /// Share of the requests, 0 to 1.
    pub sampling_rate: Option<f64>,
    /// Request headers to keep.
    pub capture_headers: Option<Vec<String>>,
}

/// One collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collection {
    /// Whether it is collected.
    pub enabled: bool,
    /// Id of the data asset that it is written to.
    pub data: Option<String>,
    /// Client id used for writing.
    pub client_id: Option<String>,
}

impl DataCollector {
    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let inner = fields.nested("data_collector")?;
        let mut collections = BTreeMap::new();
        for (key, node) in inner.entries("collections") {
            let what = format!("the collection '{}'", key.text);
            let Some(one) = Fields::open(node, &what, inner.issues()) else { continue };
            if let Some(data) = one.node("data")
                && !matches!(data.kind, Kind::Scalar { .. })
            {
                let message = format!(
                    "'data' in {what} as a mapping is not supported by casemate yet; give the data asset's id."
                );
                inner.issues().add(data.spot, message);
            }
            let data = one.node("data").and_then(|data| data.as_written()).map(str::to_owned);
            let enabled = one.boolean("enabled");
            one.require("enabled", enabled.is_some());
            let collection = Collection { enabled: enabled.unwrap_or(false), data, client_id: one.text("client_id") };
            collections.insert(key.text.clone(), collection);
            one.finish();
        }
        let sampling_rate = inner.number("sampling_rate");
        if sampling_rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            let spot = inner.node("sampling_rate").and_then(|node| node.spot);
            inner.issues().add(spot, "'sampling_rate' of the data collector must be from 0 to 1.");
        }
        let rolling_rate = inner.choice("rolling_rate", &[("minute", "Minute"), ("hour", "Hour"), ("day", "Day")]);
        let capture_headers = inner.nested("request_logging").and_then(|logging| {
            let headers = logging.text_list("capture_headers");
            logging.finish();
            headers
        });
        inner.finish();
        Some(Self { collections, rolling_rate, sampling_rate, capture_headers })
    }

    /// The API's shape.
    #[must_use]
    pub fn to_arm(&self) -> Value {
        let collections: Map<String, Value> = self
            .collections
            .iter()
            .map(|(name, one)| {
                let body = show::object([
                    ("dataCollectionMode", Some(json!(if one.enabled { "Enabled" } else { "Disabled" }))),
                    ("samplingRate", self.sampling_rate.map(|rate| json!(rate))),
                    ("dataId", one.data.as_ref().map(|id| json!(id))),
                    ("clientId", one.client_id.as_ref().map(|id| json!(id))),
                ]);
                (name.clone(), body)
            })
            .collect();
        show::object([
            ("collections", Some(Value::Object(collections))),
            ("rollingRate", self.rolling_rate.map(|rate| json!(rate))),
            ("requestLogging", self.capture_headers.as_ref().map(|headers| json!({"captureHeaders": headers}))),
        ])
    }

    /// What the command line prints for the API's shape.
    pub(super) fn show(arm: &Value) -> Option<Value> {
        let collector = show::at(arm, "/properties/dataCollector")?;
        let mut sampling_rate = None;
        let mut collections = Map::new();
        for (name, one) in collector.get("collections").and_then(Value::as_object).into_iter().flatten() {
            sampling_rate = show::copy(one, "/samplingRate").or(sampling_rate);
            let enabled =
                show::text(one, "/dataCollectionMode").is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"));
            let shown = show::object([
                ("enabled", Some(json!(if enabled { "true" } else { "false" }))),
                ("data", show::copy(one, "/dataId")),
                ("client_id", show::copy(one, "/clientId")),
            ]);
            collections.insert(name.clone(), shown);
        }
        Some(show::object([
            ("collections", Some(Value::Object(collections))),
            ("rolling_rate", show::text(collector, "/rollingRate").map(|rate| json!(rate.to_ascii_lowercase()))),
            ("sampling_rate", sampling_rate),
            (
                "request_logging",
                show::copy(collector, "/requestLogging/captureHeaders")
                    .map(|headers| json!({"capture_headers": headers})),
            ),
        ]))
    }
}
