//! Registered assets: models, code, environments and data. Each has a container (`models/NAME`) with versions
//! (`models/NAME/versions/1`); a version's substance never changes once it is written.

mod check;
mod containers;
mod listing;
mod upload;
mod versions;

use casemate_model::{
    Fault, ResourceId,
    asset::{CODE_VERSION_TYPE, ENVIRONMENT_VERSION_TYPE, MODEL_VERSION_TYPE},
};
use http::Method;

pub(super) use versions::latest;
pub(crate) use {
    check::name as check_name,
    versions::{container_ensure, refuse_used},
};

use crate::{ApiState, Call, OpContext, Target, context::Outcome};

/// One sort of asset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The collection in ids.
    pub(crate) collection: &'static str,
    /// In words.
    pub(super) word: &'static str,
    /// The resource type of a container.
    pub(super) container_type: &'static str,
    /// The resource type of a version.
    pub(super) version_type: &'static str,
    /// Properties that never change.
    substance: &'static [&'static str],
}

/// Models.
pub(crate) static MODELS: Family = Family {
    collection: "models",
    word: "model",
    container_type: "Microsoft.MachineLearningServices/workspaces/models",
    version_type: MODEL_VERSION_TYPE,
    substance: &["modelUri", "modelType"],
};
/// Scoring code.
pub(super) static CODES: Family = Family {
    collection: "codes",
    word: "code",
    container_type: "Microsoft.MachineLearningServices/workspaces/codes",
    version_type: CODE_VERSION_TYPE,
    substance: &["codeUri"],
};
/// Environments.
pub(super) static ENVIRONMENTS: Family = Family {
    collection: "environments",
    word: "environment",
    container_type: "Microsoft.MachineLearningServices/workspaces/environments",
    version_type: ENVIRONMENT_VERSION_TYPE,
    substance: &["condaFile", "image", "build", "inferenceConfig", "osType", "environmentVariables"],
};
/// Data, as far as data collection registers it.
static DATA: Family = Family {
    collection: "data",
    word: "data asset",
    container_type: "Microsoft.MachineLearningServices/workspaces/data",
    version_type: "Microsoft.MachineLearningServices/workspaces/data/versions",
    substance: &["dataUri", "dataType"],
};

impl Family {
    /// The family of a type below a workspace, such as `models/versions`; lower case.
    pub(super) fn of(kind: &str) -> Option<&'static Self> {
        let (collection, rest) = kind.split_once('/').unwrap_or((kind, ""));
        let fits = matches!(rest, "" | "versions" | "labels");
        let families = [&MODELS, &CODES, &ENVIRONMENTS, &DATA];
        families.into_iter().find(|family| fits && family.collection == collection)
    }

    /// The id of a version.
    pub(crate) fn version_id(&self, workspace: &ResourceId, name: &str, version: &str) -> Result<ResourceId, Fault> {
        workspace.child(self.collection, name)?.child("versions", version)
    }
}

/// Answers calls about one family.
pub(super) async fn handle(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    family: &'static Family,
    kind: &str,
) -> Outcome {
    let of_versions = kind.ends_with("/versions");
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET | &Method::HEAD) if kind.ends_with("/labels") => {
            versions::labelled(ctx, state, call, family, id).await
        }
        (Target::Resource(_), _) if kind.ends_with("/labels") => call.method_not_allowed(),
        (Target::Resource(id), &Method::GET | &Method::HEAD) if of_versions => {
            versions::get(ctx, state, call, family, id).await
        }
        (Target::Resource(id), &Method::PUT | &Method::PATCH) if of_versions => {
            versions::put(ctx, state, call, family, id).await
        }
        (Target::Resource(id), &Method::DELETE) if of_versions => versions::delete(ctx, state, call, family, id).await,
        (Target::Resource(id), &Method::GET | &Method::HEAD) => containers::get(ctx, state, call, family, id).await,
        (Target::Resource(id), &Method::PUT | &Method::PATCH) => containers::put(ctx, state, call, family, id).await,
        (Target::Resource(id), &Method::DELETE) => containers::delete(ctx, state, call, family, id).await,
        (Target::Collection { parent: Some(parent), .. }, &Method::GET) if of_versions => {
            versions::list(ctx, state, call, family, parent).await
        }
        (Target::Collection { parent: Some(parent), .. }, &Method::GET) if !kind.ends_with("/labels") => {
            containers::list(ctx, state, call, family, parent).await
        }
        (Target::Action { resource, name }, &Method::POST)
            if of_versions && name.eq_ignore_ascii_case("startPendingUpload") =>
        {
            upload::start(ctx, state, call, resource).await
        }
        _ => call.method_not_allowed(),
    }
}
