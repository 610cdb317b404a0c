//! The entities that users write as YAML: read strictly from a [`Document`], turned into the JSON bodies of the
//! management API, and turned back into what the command line prints.
//!
//! Reading checks form and local files only. What only the platform can know (does the model exist, does the traffic
//! add up) is left to the platform.

mod data_collector;
mod deployment;
mod document;
mod duration;
mod endpoint;
mod environment;
mod identity;
mod model;
mod reference;
mod rule;
mod settings;
mod show;
mod workspace;

pub use data_collector::{Collection, DataCollector};
pub use deployment::{Code, CodeConfiguration, ComputeKind, Deployment, MERGED_FIELDS, ResolvedAssets, Source};
pub use document::Document;
pub use duration::{iso_from_ms, ms_from_iso};
pub use endpoint::Endpoint;
pub use environment::{ANONYMOUS_ENVIRONMENT, Build, Environment};
pub use identity::Identity;
pub use model::{Model, ModelPath};
pub use reference::{AssetKind, AssetRef};
pub use rule::OutboundRule;
pub use settings::{Probe, RequestSettings, ScaleSettings};
pub use show::{add_resource_group, camel_from_snake, snake_from_camel};
pub use workspace::{ManagedNetwork, Workspace};
