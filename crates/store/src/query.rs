//! The statements, one module per table. Each takes a connection, so that reads outside and inside a transaction are
//! the same code. Nothing here begins or commits.

pub mod operation;
pub mod resource;
pub mod secret;
pub mod sequence;

use casemate_model::Clock;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::StoreError;

/// The present in the resolution that is stored, microseconds, so that what is written reads back the same.
pub fn now(clock: &Clock) -> Timestamp {
    timestamp(clock.now().as_microsecond())
}

fn timestamp(microseconds: i64) -> Timestamp {
    // The column is only ever written from a timestamp; a foreign value is brought to the nearest end.
    Timestamp::from_microsecond(microseconds).unwrap_or(if microseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the model's types have string keys and cannot fail to serialize")
}

fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("the column {column} does not parse ({error})")))
}
