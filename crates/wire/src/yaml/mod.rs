//! YAML files as trees that remember where each value stood, so that every complaint can name a line and a column.
//!
//! Typing happens elsewhere ([`crate::entity`]); this module parses, changes (`--set`) and reads trees. It accepts
//! one document of at most 4 MiB, no duplicate keys, and expands aliases within a budget.

mod edit;
mod fields;
mod node;
mod parse;

pub use edit::{apply_setting, merge_over};
pub use fields::{Fields, Issues, closest};
pub use node::{Key, Kind, Node, Scalar, Spot};
pub use parse::{parse, read_file};
