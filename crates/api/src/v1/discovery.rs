//! Where the services of a workspace are: all at the address by which the client came. Clients ask without a token, and
//! are told nothing but that address.

use axum::response::Response;
use http::Method;
use serde_json::{Map, Value};

use crate::respond;

/// The names under which clients look services up.
const SERVICES: [&str; 19] = [
    "api",
    "artifact",
    "catalog",
    "dataset",
    "discovery",
    "environment",
    "experimentation",
    "gallery",
    "history",
    "hyperdrive",
    "jasmine",
    "metric",
    "modelmanagement",
    "notebooks",
    "pipelines",
    "pipelinesapi",
    "portal",
    "rp",
    "studio",
];

/// Whether a request is for the list: `GET /discovery` and what older clients put below it.
pub(crate) fn is_asked(method: &Method, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    method == Method::GET && first.is_some_and(|first| first.eq_ignore_ascii_case("discovery"))
}

/// The list.
pub(crate) fn answer(base: &str) -> Response {
    let services: Map<String, Value> = SERVICES.iter().map(|name| ((*name).to_owned(), base.into())).collect();
    respond::ok(&Value::Object(services))
}
