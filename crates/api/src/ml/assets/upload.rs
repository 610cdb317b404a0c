//! A place to upload to, before the version that will name it is registered.

use casemate_blob::Permissions;
use casemate_model::{Fault, ResourceId};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::check;
use crate::{
    ApiState, Call, OpContext,
    context::Outcome,
    ml::{datastores, workspace},
    respond,
};

/// How long an upload may take.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// Gives a new, empty directory of the workspace's default datastore and a signature that opens just that.
pub(super) async fn start(ctx: &OpContext, state: &ApiState, call: &Call, version: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let home = workspace::for_write(state, version).await?;
    check::name("version", version.name())?;
    let asked = call.json_or_empty()?;
    let kind = asked.get("pendingUploadType").and_then(Value::as_str).unwrap_or("TemporaryBlobReference");
    if !kind.eq_ignore_ascii_case("TemporaryBlobReference") && !kind.eq_ignore_ascii_case("None") {
        let message = format!("pendingUploadType is '{kind}'; only TemporaryBlobReference is known.");
        return Err(Fault::invalid("BadArgument", message).at("pendingUploadType").into());
    }
    let container = datastores::container(state, &home, datastores::DEFAULT).await?;
    let upload = uuid::Uuid::new_v4().to_string();
    let directory = format!("LocalUpload/{upload}");
    // It needs no right to delete: what is uploaded is only ever replaced by uploading it again.
    let permissions = Permissions { delete: false, ..Permissions::ALL };
    let expires = state.clock.now() + LIFETIME;
    let query = state.blob.sign(&container, &directory, permissions, expires).map_err(Fault::from)?;
    let query = query.expose_str().map_err(|_| Fault::internal("The signature is no text."))?;
    let host = format!("{}/{}.blob.{}", ctx.base, workspace::account(&home), state.config.storage_suffix());
    let address = format!("{host}/{container}/{directory}");
    let account = home.properties().get("storageAccount").cloned().unwrap_or(Value::Null);
    Ok(respond::ok(&json!({
        "pendingUploadId": upload,
        "pendingUploadType": "TemporaryBlobReference",
        "blobReferenceForConsumption": {
            "blobUri": address,
            "storageAccountArmId": account,
            "credential": { "credentialType": "SAS", "sasUri": format!("{address}?{query}") },
        },
    })))
}
