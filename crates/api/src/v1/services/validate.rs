//! The questions that clients ask before they send the request itself. An answer of 200 without `error` means yes.

use serde_json::{Value, json};

use super::{Asked, Service, document, wish, write};
use crate::{ApiError, ApiState, OpContext, context::Outcome, respond, v1::patch};

/// Answers a question.
pub(super) async fn answer(ctx: &OpContext, state: &ApiState, asked: &Asked, rest: &[&str]) -> Outcome {
    asked.authorize(ctx, "services/read")?;
    let checked = match rest {
        ["name", name] => write::check_free(state, asked, name).await,
        ["resource"] => Ok(()),
        [] => request(state, asked).await,
        _ => return Err(asked.nothing_here().into()),
    };
    Ok(respond::ok(&match checked {
        Ok(()) => json!({}),
        Err(error) => json!({"error": {"code": error.fault().code, "message": error.fault().message}}),
    }))
}

/// Whether a request would be accepted.
async fn request(state: &ApiState, asked: &Asked) -> Result<(), ApiError> {
    let body = asked.call.json()?;
    let name = body["serviceName"].as_str().unwrap_or_default();
    match body["type"].as_str().unwrap_or_default() {
        "Create" => wish::Wish::read(state, asked, name, &body["createRequest"], None).await.map(drop),
        "Update" => {
            let service = Service::read(state, asked, name).await?;
            let mut document = document::of(&service)?;
            // A deletion of what is there is all that a null asks for.
            if let Some(changes) = body.get("updateRequest").filter(|changes| **changes != Value::Null) {
                patch::apply(&mut document, changes)?;
            }
            wish::Wish::read(state, asked, name, &document, Some(&service)).await.map(drop)
        }
        _ => Service::read(state, asked, name).await.map(drop),
    }
}
