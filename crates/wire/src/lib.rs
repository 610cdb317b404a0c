//! The public shapes and the nouns behind them: error and operation bodies, the YAML files that users write, the
//! JSON bodies that travel, what the command line prints, a thin client, and the hashing and upload of artifacts.
//!
//! This room holds no server and decides nothing about the platform's state; it only translates and carries.

pub mod artifact;
pub mod client;
pub mod entity;
pub mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod operation;
pub mod yaml;
