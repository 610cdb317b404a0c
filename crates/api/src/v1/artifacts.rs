//! Artifacts: the files that clients upload to register them as models, or to deploy them as code, and download again.
//!
//! An artifact is named by origin, container and path, such as `LocalUpload/231122T054200-1a2b/model.pkl`; that is its
//! path in the workspace's artifact store. The files of models that lie in another datastore are named by the origin
//! [`ELSEWHERE`], whose containers are the datastores.

use std::fmt::Write;

use casemate_blob::{BlobInfo, Permissions};
use casemate_model::Fault;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::Asked;
use crate::{
    ApiError, ApiState, OpContext,
    context::Outcome,
    ml::{datastores, workspace},
    respond,
};

/// The origin of files outside of the artifact store.
pub(crate) const ELSEWHERE: &str = "Datastore";
/// How long an address is good for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Most artifacts in one request or answer.
const MAX_ARTIFACTS: usize = 5000;

/// Answers a request.
pub(crate) async fn handle(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    let parts = asked.parts();
    let Some((&"artifacts", parts)) = parts.split_first() else { return Err(asked.nothing_here().into()) };
    match (&asked.call.method, parts) {
        (&Method::POST, ["batch", "metadata", origin, container]) => {
            asked.authorize(ctx, "artifacts/write")?;
            announce(ctx, state, asked, origin, container).await
        }
        (&Method::GET, ["contentinfo", origin, container, path @ ..]) => {
            let place = read(ctx, state, asked, origin, container, path).await?;
            let found = place.files(state, true).await?;
            let [only] = found.as_slice() else { return Err(place.missing().into()) };
            Ok(respond::ok(&place.content(ctx, state, asked, &only.name, Way::Read)?))
        }
        (&Method::GET, ["prefix", "contentinfo", origin, container, path @ ..]) => {
            let place = read(ctx, state, asked, origin, container, path).await?;
            let found = place.files(state, false).await?;
            let contents: Result<Vec<Value>, Fault> =
                found.iter().map(|file| place.content(ctx, state, asked, &file.name, Way::Read)).collect();
            Ok(respond::ok(&json!({"value": contents?, "continuationToken": null, "nextLink": null})))
        }
        (&Method::GET, ["metadata", origin, container, path @ ..]) => {
            let place = read(ctx, state, asked, origin, container, path).await?;
            let found = place.files(state, true).await?;
            let [only] = found.as_slice() else { return Err(place.missing().into()) };
            Ok(respond::ok(&place.artifact(&only.name)))
        }
        (&Method::GET, ["write", origin, container, path @ ..]) => {
            asked.authorize(ctx, "artifacts/write")?;
            let place = Place::find(state, asked, origin, container, path).await?;
            place.check_upload()?;
            Ok(respond::ok(&place.content(ctx, state, asked, &place.path, Way::Write)?))
        }
        (&Method::GET, [origin, container, path @ ..]) => {
            let place = read(ctx, state, asked, origin, container, path).await?;
            let found = place.files(state, false).await?;
            let artifacts: Vec<Value> = found.iter().map(|file| place.artifact(&file.name)).collect();
            Ok(respond::ok(&json!({"value": artifacts, "continuationToken": null, "nextLink": null})))
        }
        _ => Err(asked.nothing_here().into()),
    }
}

async fn read(
    ctx: &OpContext,
    state: &ApiState,
    asked: &Asked,
    origin: &str,
    container: &str,
    path: &[&str],
) -> Result<Place, ApiError> {
    asked.authorize(ctx, "artifacts/read")?;
    Place::find(state, asked, origin, container, path).await
}

/// Gives the addresses to upload new artifacts to.
async fn announce(ctx: &OpContext, state: &ApiState, asked: &Asked, origin: &str, container: &str) -> Outcome {
    let body = asked.call.json()?;
    let paths = body.get("paths").and_then(Value::as_array).filter(|paths| paths.len() <= MAX_ARTIFACTS);
    let paths = paths.ok_or_else(|| {
        Fault::invalid("BadArgument", format!("'paths' is not a list of at most {MAX_ARTIFACTS} paths.")).at("paths")
    })?;
    let (mut artifacts, mut contents) = (Map::new(), Map::new());
    for path in paths {
        let given = path.get("path").and_then(Value::as_str);
        let given = given.ok_or_else(|| Fault::invalid("BadArgument", "A path has no 'path'.").at("paths"))?;
        let place = Place::find(state, asked, origin, container, &[given]).await?;
        place.check_upload()?;
        artifacts.insert(given.to_owned(), place.artifact(&place.path));
        contents.insert(given.to_owned(), place.content(ctx, state, asked, &place.path, Way::Write)?);
    }
    Ok(respond::ok(&json!({"artifacts": artifacts, "artifactContentInformation": contents, "errors": {}})))
}

/// What an address is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

/// Where artifacts lie.
#[derive(Debug)]
pub(crate) struct Place {
    origin: String,
    container: String,
    /// The container in the artifact store.
    pub(crate) store: String,
    /// What goes before a path in it; empty or ending with a slash.
    base: String,
    /// Below the base.
    path: String,
}

impl Place {
    async fn find(
        state: &ApiState,
        asked: &Asked,
        origin: &str,
        container: &str,
        path: &[&str],
    ) -> Result<Self, ApiError> {
        let path = path.join("/").trim_matches('/').to_owned();
        let elsewhere = origin == ELSEWHERE;
        let datastore = if elsewhere { container } else { datastores::ARTIFACTS };
        let store = datastores::container(state, &asked.workspace, datastore).await?;
        let base = if elsewhere { String::new() } else { format!("{origin}/{container}/") };
        Ok(Self { origin: origin.to_owned(), container: container.to_owned(), store, base, path })
    }

    /// Reads an artifact's id: origin, container and path.
    ///
    /// # Errors
    /// `BadArgument` for anything else.
    pub(crate) async fn parse(state: &ApiState, asked: &Asked, id: &str) -> Result<Self, ApiError> {
        let mut parts = id.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(origin), Some(container), Some(path)) => Self::find(state, asked, origin, container, &[path]).await,
            _ => {
                let shown: String = id.chars().filter(|c| !c.is_control()).take(200).collect();
                let message = format!("'{shown}' names no artifact; it should read ORIGIN/CONTAINER/PATH.");
                Err(Fault::invalid("BadArgument", message).into())
            }
        }
    }

    /// The blob, or the directory of blobs.
    pub(crate) fn blob(&self) -> String {
        format!("{}{}", self.base, self.path).trim_end_matches('/').to_owned()
    }

    /// An azureml uri of it.
    pub(crate) fn uri(&self) -> String {
        let datastore = if self.origin == ELSEWHERE { &self.container } else { datastores::ARTIFACTS };
        format!("azureml://datastores/{datastore}/paths/{}", self.blob())
    }

    /// The file of this name, or unless `alone`, all files in the directory of this name. Names are in the container.
    pub(crate) async fn files(&self, state: &ApiState, alone: bool) -> Result<Vec<BlobInfo>, Fault> {
        let blob = self.blob();
        if !self.path.is_empty()
            && let Some(file) = state.blob.info(&self.store, &blob).await?
        {
            return Ok(vec![file]);
        }
        if alone {
            return Ok(Vec::new());
        }
        let directory = if blob.is_empty() { blob } else { format!("{blob}/") };
        Ok(state.blob.list(&self.store, &directory, MAX_ARTIFACTS).await?)
    }

    fn missing(&self) -> Fault {
        let message = format!("There is no artifact '{}'. Upload it first.", self.id(&self.path));
        Fault::not_found("NotFound", message)
    }

    fn id(&self, path: &str) -> String {
        format!("{}/{}/{path}", self.origin, self.container)
    }

    /// Uploads go to the artifact store only, and the client encodes addresses in a way of its own.
    fn check_upload(&self) -> Result<(), Fault> {
        let why = if self.origin == ELSEWHERE {
            "this origin holds files of other datastores"
        } else if self.path.is_empty() || self.blob().contains(['?', '#', '%']) {
            "its name is empty, or holds '?', '#' or '%'"
        } else {
            return Ok(());
        };
        let message = format!("The artifact '{}' can't be uploaded: {why}. Choose another name.", self.id(&self.path));
        Err(Fault::invalid("BadArgument", message).at("paths"))
    }

    /// `blob` as clients see it: its name below the base.
    fn shown<'a>(&self, blob: &'a str) -> &'a str {
        blob.strip_prefix(&self.base).unwrap_or(blob)
    }

    fn artifact(&self, blob: &str) -> Value {
        let path = self.shown(blob);
        json!({
            "artifactId": self.id(path),
            "origin": self.origin,
            "container": self.container,
            "path": path,
            "etag": null,
            "createdTime": null,
            "dataPath": null,
        })
    }

    /// The address of a blob. Clients take an address for uploads apart as `ACCOUNT.blob.REST/CONTAINER/BLOB`, whatever
    /// that is; so the platform's own address goes where the name of the service would be, which needs no DNS, and the
    /// account stands in the path, too.
    fn content(&self, ctx: &OpContext, state: &ApiState, asked: &Asked, blob: &str, way: Way) -> Result<Value, Fault> {
        let path = self.shown(blob);
        let blob = format!("{}{path}", self.base);
        let directory = blob.rsplit_once('/').map_or("", |(directory, _)| directory);
        let permissions = match way {
            Way::Read => Permissions { list: false, ..Permissions::READ },
            Way::Write => Permissions { delete: false, list: false, ..Permissions::ALL },
        };
        let query = state.blob.sign(&self.store, directory, permissions, state.clock.now() + LIFETIME)?;
        let query = query.expose_str().map_err(|_| Fault::internal("The signature is no text."))?;
        let host = ctx.base.trim_start_matches("https://");
        let account = workspace::account(&asked.workspace);
        let user = if way == Way::Write { format!("{account}.blob.u@") } else { String::new() };
        let mut address =
            format!("https://{user}{host}/{account}.blob.{}/{}/", state.config.storage_suffix(), self.store);
        for c in blob.chars() {
            match c {
                '%' | '?' | '#' => {
                    write!(address, "%{:02X}", u32::from(c)).map_err(|_| Fault::internal("No memory."))?
                }
                c => address.push(c),
            }
        }
        Ok(json!({
            "contentUri": format!("{address}?{query}"),
            "origin": self.origin,
            "container": self.container,
            "path": path,
        }))
    }
}
