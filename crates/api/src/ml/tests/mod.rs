//! This family as clients see it: requests through the router, answers out, a real store and real files below.
//! The reconcilers are played by the tests.

mod assets;
mod bench;
mod deployments;
mod endpoints;
mod rights;
