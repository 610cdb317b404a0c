//! Certificates from any ACME certificate authority (RFC 8555).
//!
//! [`AcmeIssuer`] is an issuer like the built-in one: names in, a certificate with a fresh key out. In between it keeps an
//! account at the authority, posts the answers to its challenges on the platform's [`ChallengeBoard`] and takes them off
//! again, and checks that what comes back is what was asked for. Every request, wait and retry has a bound, a few orders
//! run at a time, and an authority that asks for rest gets it.
//!
//! What it refuses to do: to decide when a certificate is renewed or which one is served (the room `control` does), to
//! show the answers to challenges (the front door and the DNS server do), to keep the account anywhere but where its
//! [`AccountStore`] puts it, and to sign or parse ACME's messages itself (`instant-acme` does).
//!
//! [`ChallengeBoard`]: casemate_model::challenge::ChallengeBoard

mod account;
mod certificate;
mod challenge;
mod config;
mod failure;
mod http;
mod issuer;
mod order;
#[cfg(test)]
mod tests;

pub use account::AccountStore;
pub use config::{AcmeConfig, ChallengeKind, ExternalAccount, Limits};
pub use issuer::AcmeIssuer;
