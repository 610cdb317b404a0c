//! A long-running operation: a row that outlives the process.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{fault::Fault, id::ResourceId};

/// What an operation does to its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationKind {
    /// Bring the resource to the generation that its PUT or PATCH wrote.
    Put,
    /// Remove the resource and all inside it.
    Delete,
    /// An action (POST) that ends with a result.
    Action,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperationStatus {
    InProgress,
    Succeeded,
    Failed(Fault),
    Canceled,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name in the URL that clients poll.
    pub id: Uuid,
    /// What it works on.
    pub resource: ResourceId,
    /// What it does.
    pub kind: OperationKind,
    /// The generation it must reach (`Put`); a later `Put` of the same resource supersedes it.
    pub generation: i64,
    /// How far it is.
    pub status: OperationStatus,
    /// What a finished action answers.
    pub result: Option<Value>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}
