//! wire

pub mod envelope;
pub mod operation;
