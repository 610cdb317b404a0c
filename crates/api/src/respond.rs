//! The few shapes of a good answer.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use casemate_model::{Operation, Resource};
use casemate_store::Put;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{call::Call, context::OpContext};

/// How long clients are asked to wait between polls, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");
/// Leads to the operation's state.
const AZURE_ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// A JSON body.
#[must_use]
pub fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// 200 with a JSON body.
#[must_use]
pub fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

/// 204.
#[must_use]
pub fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A resource in its public shape with its ETag; 304 when the reader has it already.
#[must_use]
pub fn resource(call: &Call, row: &Resource) -> Response {
    shown(call, row, &row.to_public())
}

/// As [`resource`], with a shape of its own.
#[must_use]
pub fn shown(call: &Call, row: &Resource, body: &Value) -> Response {
    if call.has_version(&row.etag) {
        return with_etag(StatusCode::NOT_MODIFIED.into_response(), row);
    }
    with_etag(ok(body), row)
}

/// The answer to a write that is already done: 201 for a new resource, else 200.
#[must_use]
pub fn written(put: &Put) -> Response {
    written_as(put, &put.resource.to_public())
}

/// As [`written`], with a shape of its own.
#[must_use]
pub fn written_as(put: &Put, body: &Value) -> Response {
    with_etag(json(created_or_ok(put.created), body), &put.resource)
}

/// The answer to a PUT or PATCH that goes on in the background: 201 or 200 with the resource, and where to poll.
#[must_use]
pub fn accepted_put(ctx: &OpContext, put: &Put, operation: &Operation) -> Response {
    accepted_put_as(ctx, put, operation, &put.resource.to_public())
}

/// As [`accepted_put`], with a shape of its own.
#[must_use]
pub fn accepted_put_as(ctx: &OpContext, put: &Put, operation: &Operation, body: &Value) -> Response {
    let response = json(created_or_ok(put.created), body);
    with_operation(ctx, with_etag(response, &put.resource), operation, false)
}

/// The answer to a DELETE that goes on in the background: 202, and where to poll.
#[must_use]
pub fn accepted_delete(ctx: &OpContext, operation: &Operation) -> Response {
    with_operation(ctx, StatusCode::ACCEPTED.into_response(), operation, true)
}

/// The answer to a POST that goes on in the background: 202, and where to poll; the result comes at `Location`.
#[must_use]
pub fn accepted_action(ctx: &OpContext, operation: &Operation) -> Response {
    accepted_delete(ctx, operation)
}

/// A list. `items` is everything that matches; `$top` cuts it, and what is cut off is reached by `nextLink`.
///
/// # Errors
/// As [`Call::top`] and for a malformed `$skipToken`.
pub fn list(ctx: &OpContext, call: &Call, path: &str, items: Vec<Value>) -> Result<Response, crate::ApiError> {
    let top = call.top()?;
    let skip = match call.query.get("$skipToken").or_else(|| call.query.get("$skip")) {
        None => 0,
        Some(text) => text.parse::<usize>().map_err(|_| {
            casemate_model::Fault::invalid("BadArgument", format!("$skipToken '{text}' is not one of ours."))
        })?,
    };
    let total = items.len();
    let page: Vec<Value> = items.into_iter().skip(skip).take(top).collect();
    let next = skip.saturating_add(page.len());
    let mut body = json!({ "value": page });
    if next < total && !page_is_empty(&body) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for key in ["api-version", "$filter", "$top", "$orderBy", "listViewType", "tags", "hash", "hashVersion"] {
            if let Some(value) = call.query.get(key) {
                query.append_pair(key, value);
            }
        }
        query.append_pair("$skipToken", &next.to_string());
        body["nextLink"] = format!("{}{path}?{}", ctx.base, query.finish()).into();
    }
    Ok(ok(&body))
}

fn page_is_empty(body: &Value) -> bool {
    body["value"].as_array().is_none_or(Vec::is_empty)
}

fn created_or_ok(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

fn with_etag(mut response: Response, row: &Resource) -> Response {
    if let Ok(etag) = HeaderValue::from_str(&row.etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn with_operation(ctx: &OpContext, mut response: Response<Body>, operation: &Operation, location: bool) -> Response {
    let link = |kind: &str| HeaderValue::from_str(&operation_link(ctx, operation, kind)).ok();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, RETRY_AFTER);
    if let Some(status) = link("operationStatuses") {
        headers.insert(AZURE_ASYNC_OPERATION, status);
    }
    if let Some(result) = link("operationResults").filter(|_| location) {
        headers.insert(header::LOCATION, result);
    }
    response
}

/// The path of an operation below its subscription.
#[must_use]
pub fn operation_path(operation: &Operation, kind: &str) -> String {
    let scope = operation.resource.subscription().map_or_else(String::new, |id| format!("/subscriptions/{id}"));
    format!("{scope}/providers/Casemate.Platform/{kind}/{}", operation.id)
}

fn operation_link(ctx: &OpContext, operation: &Operation, kind: &str) -> String {
    format!("{}{}?api-version=2024-10-01", ctx.base, operation_path(operation, kind))
}
