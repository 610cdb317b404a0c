//! The management API: the front door of everything that is not a scoring request.
//!
//! A request passes named phases: **route** (metadata, token issuer, blobs and resources part ways), **authn**
//! (a bearer token becomes an [`OpContext`]), **parse** (method and path become a [`Call`] with a [`Target`]),
//! **authz** and **handle** (one module per family of resource types), **answer** (one error envelope, request
//! ids, ETags). Handlers write what is wanted and an operation row in one transaction and return; they never do
//! the work. This room never calls the reconcilers: the two meet only in the store.
//!
//! # Adding a family of resources
//!
//! Paths are case-insensitive and nest to any depth, so there are no path patterns. [`Target::parse`] turns a path
//! into one of
//!
//! * [`Target::Resource`] `(ResourceId)` for `GET|HEAD|PUT|PATCH|DELETE …/type/name`,
//! * [`Target::Collection`] `{ parent, kind }` for `GET …/type` (and a `POST` below a provider, such as
//!   `…/providers/N/checkNameAvailability`),
//! * [`Target::Action`] `{ resource, name }` for `POST …/type/name/action`,
//! * [`Target::Namespace`] for `…/providers/N` alone.
//!
//! and a family is a module with one entry point:
//!
//! ```text
//! pub async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Option<Result<Response, ApiError>>
//! ```
//!
//! which looks at `call.target.kind()` (the lower-case type of the resource, of the collection's members or of the
//! resource acted upon) and at `call.method`, and answers none for types that are not its own. A handler
//! authorizes first ([`OpContext::authorize`] or [`OpContext::authorize_call`]), then reads [`Call::json`] and
//! [`Call::condition`], writes in one [`casemate_store::Tx`], and answers with a helper of [`respond`].

mod arm;
mod bootstrap;
mod call;
mod certificates;
mod context;
mod error;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inbound;
mod metadata;
pub mod ml;
mod network;
pub mod respond;
mod state;
pub mod template;
mod token;
mod v1;
mod vault;

#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, bootstrap};
pub use call::{Call, Query, Target};
pub use context::OpContext;
pub use error::ApiError;
pub use front::router;
pub use state::{ApiConfig, ApiState, DeploymentLogs, OutboundLog};
