//! The front door as its callers and the models see it: real TLS sockets on loopback, real HTTP servers as models,
//! certificates of a real authority.

#![allow(clippy::disallowed_methods, reason = "each test's runtime owns its tasks and ends them")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]

mod auth;
mod bodies;
mod codes;
mod hostile;
mod http2;
mod inbound;
mod life;
mod plain;
mod queue;
mod services;
mod settings;
mod split;
mod support;
mod swap;
