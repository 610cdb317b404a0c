//! The platform's DNS server: each client gets the answers of the network it asks from.
//!
//! A client of a virtual network (its source address lies in the network, or it asks the network's own DNS address) is
//! answered from the private zones linked to the network, then from the platform's own zone as that network sees it, and
//! other names are looked up for it at the network's forwarders. Everybody else gets the platform's public zone and
//! nothing more: the server is never an open resolver. A name inside a zone of the client's view is answered here or not
//! at all; it leaves for no other server.
//!
//! Answers come from one immutable set of views, made anew from each [`casemate_model::network::NetworkSnapshot`]: the
//! query path takes no lock on shared state and reads no database; only a name that begins with `_acme-challenge` is looked
//! up on the board of answers to certificate authorities, which has one. Transfers, updates and notifications are refused,
//! questions for everything get a minimal answer, and every queue, cache, connection and wait has a bound.
//!
//! What it refuses to do: to keep state of its own, to decide what the names mean (that is
//! [`casemate_model::names`]), and to configure interfaces (the room `vnet` does).

mod compile;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handler;
mod limit;
mod listen;
mod message;
mod server;
#[cfg(test)]
mod tests;
mod view;
mod zone;

pub use server::{DnsConfig, Server};
