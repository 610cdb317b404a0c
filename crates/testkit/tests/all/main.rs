//! The whole system, from outside: the real binary, real sandboxes, real TLS, the real clients.

mod acme;
mod bad_input;
mod demo;
mod disk_full;
mod kill;
mod leak;
mod limits;
mod roles;
mod rollout;
mod sdk;
mod start_stop;
mod unprivileged;
mod v1;
mod vnet;
