//! The management API from outside, over a real store.

mod dns;
mod front;
mod fuzzy;
mod groups;
mod inbound;
mod outbound;
mod roles;
mod templates;
mod tokens;
mod virtual_networks;
mod workspaces;
