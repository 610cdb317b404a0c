//! The whole system, from outside: the real binary, real sandboxes, real TLS, the real clients.

mod acme;
mod bad_input;
mod demo;
mod disk_full;
mod judges;
mod keyvault;
mod kill;
mod leak;
mod limits;
mod roles;
mod rollout;
mod rotation;
mod sdk;
mod start_stop;
mod tls;
mod unprivileged;
mod v1;
mod vnet;
