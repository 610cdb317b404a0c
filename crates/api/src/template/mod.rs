//! Deployment templates: a document of parameters, variables, resources and outputs whose strings may hold
//! expressions such as `[concat('sa', uniqueString(parameters('name')))]`.
//!
//! The evaluator is pure. What it must know of resources outside the document (`reference(…)`) it asks for by
//! failing with [`Halt::Needs`]; the caller looks the resource up and evaluates again. It refuses linked and nested
//! templates, and whatever would make the work unbounded: deep nesting, long expressions, values that grow by
//! doubling. No input can make it panic.

mod document;
mod evaluate;
mod functions;
mod lexer;
mod parameters;
mod parser;

pub use document::{Declared, Deployment, Place, Planned, Template};
pub(crate) use evaluate::is_shallow;
pub use evaluate::{Halt, Known};
pub use parser::{Expression, parse_expression};

#[cfg(test)]
mod tests;
