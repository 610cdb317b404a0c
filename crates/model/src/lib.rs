//! The nouns of the platform: resource ids, names, the specs of endpoints, deployments and assets, operations,
//! faults and the route table. Everything here is plain data with its arithmetic and its checks.
//!
//! This room does no I/O, knows no runtime (tokio) and no HTTP: what is here can be tested with a table.

pub mod asset;
pub mod challenge;
pub mod clock;
pub mod deployment;
pub mod egress;
pub mod endpoint;
pub mod fault;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod id;
pub mod inbound;
pub mod instance_type;
pub mod managed_identity;
pub mod names;
pub mod network;
pub mod operation;
pub mod resource;
pub mod route;
pub mod secret;
pub mod service;
pub mod tls;
pub mod traffic;
pub mod vault;
pub mod workspace;

pub use clock::Clock;
pub use fault::{Fault, FaultKind};
pub use id::ResourceId;
pub use operation::{Operation, OperationStatus};
pub use resource::{ProvisioningState, Resource, SystemData};
pub use secret::Secret;
