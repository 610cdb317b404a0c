//! Registering what a deployment needs: code, environments and models, uploaded where they are local, and not again
//! where the same content is registered already.

use std::path::Path;

use casemate_model::{Fault, FaultKind, Secret};
use casemate_wire::{
    artifact::{
        BlobTarget, CONTENT_HASH_VERSION, Tree, Uploaded, content_hash, hash_bytes, object_hash, scan, upload_tree,
    },
    entity::{
        ANONYMOUS_ENVIRONMENT, AssetKind, AssetRef, Code, Deployment, Environment, Model, ModelPath, ResolvedAssets,
        Source,
    },
};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    failure::Failure,
    grammar::Globals,
    progress::Step,
    session::{ML_API, Session, segment},
};

/// The datastore that models are uploaded to.
const DATASTORE: &str = "workspaceblobstore";
/// Directory of uploads in it, as the public clients name it.
const UPLOADS: &str = "LocalUpload";

/// The assets of one workspace.
pub(crate) struct Assets<'a> {
    session: &'a Session,
    globals: &'a Globals,
    /// The workspace's id as the platform writes it.
    id: String,
    /// Its region.
    pub(crate) location: String,
}

impl<'a> Assets<'a> {
    /// Looks the workspace up; `path` is its id, escaped.
    pub(crate) async fn open(session: &'a Session, globals: &'a Globals, path: &str) -> Result<Self, Failure> {
        let workspace = session.client().get(&format!("{path}?{ML_API}")).await?;
        let text = |key: &str| workspace.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text("id").ok_or_else(|| Fault::internal("The workspace's answer has no id."))?;
        Ok(Self { session, globals, id, location: text("location").unwrap_or_else(|| "local".to_owned()) })
    }

    /// The path of something below the workspace.
    pub(crate) fn path(&self, parts: &[&str]) -> String {
        let workspace: Vec<String> = self.id.split('/').map(segment).collect();
        let below: Vec<String> = parts.iter().map(|part| segment(part)).collect();
        format!("{}/{}", workspace.join("/"), below.join("/"))
    }

    fn versioned(&self, parts: &[&str]) -> String {
        format!("{}?{ML_API}", self.path(parts))
    }

    /// Registers all that a deployment names.
    pub(crate) async fn resolve_all(&self, deployment: &Deployment) -> Result<ResolvedAssets, Failure> {
        let code = match deployment.code.as_ref().and_then(|code| code.code.as_ref()) {
            None => None,
            Some(Code::Ref(reference)) => Some(self.resolve(AssetKind::Code, reference).await?),
            Some(Code::Local(path)) => Some(self.register_code(path).await?),
        };
        let environment = match &deployment.environment {
            None => None,
            Some(Source::Ref(reference)) => Some(self.resolve(AssetKind::Environment, reference).await?),
            Some(Source::Inline(environment)) => Some(id_of(&self.register_environment(environment).await?)?),
        };
        let model = match &deployment.model {
            None => None,
            Some(Source::Ref(reference)) => Some(self.resolve(AssetKind::Model, reference).await?),
            Some(Source::Inline(model)) => Some(id_of(&self.register_model(model).await?)?),
        };
        Ok(ResolvedAssets { code, environment, model })
    }

    /// The id behind a reference.
    pub(crate) async fn resolve(&self, kind: AssetKind, reference: &AssetRef) -> Result<String, Failure> {
        match reference {
            AssetRef::Id(id) | AssetRef::Registry(id) => Ok(id.clone()),
            AssetRef::Version { name, version } => {
                Ok(format!("{}/{}/{name}/versions/{version}", self.id, kind.collection()))
            }
            AssetRef::Label { name, label } if label.eq_ignore_ascii_case("latest") => {
                id_of(&self.latest(kind, name).await?)
            }
            AssetRef::Label { name, label } => Err(Failure::here(format!(
                "The label '{label}' of the {} '{name}' is not supported by casemate yet; only 'latest' is.",
                kind.word()
            ))),
        }
    }

    /// The version that was registered last.
    pub(crate) async fn latest(&self, kind: AssetKind, name: &str) -> Result<Value, Failure> {
        let path = self.path(&[kind.collection(), name, "versions"]);
        let order = "$orderBy=createdtime%20desc&$top=1";
        let found = self.session.client().list(&format!("{path}?{ML_API}&{order}")).await?;
        found.into_iter().next().ok_or_else(|| {
            Failure::not_found(format!(
                "The workspace has no {} '{name}'. `casemate ml {} list` lists those there are.",
                kind.word(),
                kind.word()
            ))
        })
    }

    async fn register_code(&self, directory: &Path) -> Result<String, Failure> {
        let client = self.session.client();
        let tree = scan(directory)?;
        let digest = content_hash(&tree)?;
        let name = Uuid::new_v4().to_string();
        let version = CONTENT_HASH_VERSION.to_string();
        let path = self.path(&["codes", &name, "versions"]);
        let known = client.list(&format!("{path}?{ML_API}&hash={digest}&hashVersion={version}")).await?;
        if let Some(known) = known.first() {
            return id_of(known);
        }
        let path = self.path(&["codes", &name, "versions", "1"]);
        let asked = json!({"pendingUploadType": "TemporaryBlobReference"});
        let place = client.post(&format!("{path}/startPendingUpload?{ML_API}"), &asked).await?;
        let text = |pointer: &str| place.pointer(pointer).and_then(Value::as_str);
        let (Some(signed), Some(uri)) =
            (text("/blobReferenceForConsumption/credential/sasUri"), text("/blobReferenceForConsumption/blobUri"))
        else {
            return Err(Fault::internal("The server gave no place to upload the code to.").into());
        };
        let target = BlobTarget::from_signed_address(signed)?;
        self.upload(&target, &tree, "", (&name, "1")).await?;
        let body = json!({"properties": {
            "codeUri": format!("{}/{}", uri.trim_end_matches('/'), tree.name),
            "isAnonymous": true,
            "properties": {"hash_sha256": digest, "hash_version": version},
        }});
        let made =
            client.write_and_wait(Method::PUT, &format!("{path}?{ML_API}"), Some(&body), None, &mut |_| {}).await?;
        id_of(&made)
    }

    /// Registers an environment; the API's answer.
    pub(crate) async fn register_environment(&self, environment: &Environment) -> Result<Value, Failure> {
        let mut context = None;
        let mut digest = None;
        if let Some(build) = &environment.build {
            match &build.path {
                Err(url) => context = Some(url.clone()),
                Ok(directory) => {
                    let tree = scan(directory)?;
                    let content = object_hash(&tree)?;
                    let name = environment.name.as_deref().unwrap_or(ANONYMOUS_ENVIRONMENT);
                    let version = environment.version.as_deref().unwrap_or("1");
                    context = Some(self.upload_to_datastore(&tree, &content, (name, version)).await?.0);
                    digest = Some(content);
                }
            }
        }
        let put = async |name: &str, version: &str, anonymous: bool| -> Result<Value, Failure> {
            let body = environment.to_arm(context.as_deref(), anonymous);
            let path = self.versioned(&["environments", name, "versions", version]);
            Ok(self.session.client().write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?)
        };
        match (&environment.name, &environment.version) {
            (None, _) => put(ANONYMOUS_ENVIRONMENT, &environment.anonymous_version(digest.as_deref()), true).await,
            (Some(name), Some(version)) => put(name, version, false).await,
            (Some(name), None) => {
                // The same content stays the same version; other content becomes the next one.
                let (latest, next) = self.versions(AssetKind::Environment, name).await?;
                match put(name, latest.as_deref().unwrap_or(&next), false).await {
                    Err(failure) if failure.kind() == FaultKind::Conflict && latest.is_some() => {
                        put(name, &next, false).await
                    }
                    result => result,
                }
            }
        }
    }

    /// Registers a model; the API's answer.
    pub(crate) async fn register_model(&self, model: &Model) -> Result<Value, Failure> {
        let client = self.session.client();
        let Some(path) = &model.path else {
            return Err(Failure::here("The model has no 'path'."));
        };
        let (uri, name, version) = match path {
            ModelPath::Uri(uri) => {
                let name = model.name.clone().unwrap_or_else(|| hash_bytes(uri.as_bytes()));
                (self.long_uri(uri), name, model.version.clone())
            }
            ModelPath::Local(local) => {
                let tree = scan(local)?;
                let digest = object_hash(&tree)?;
                let name = model.name.clone().unwrap_or_else(|| hash_bytes(digest.as_bytes()));
                let marked = model.version.clone().unwrap_or_else(|| "1".to_owned());
                let (uri, uploaded) = self.upload_to_datastore(&tree, &digest, (&name, &marked)).await?;
                // The same content registered before under this name: that version is meant, not a new one.
                let known = (uploaded.already_there && uploaded.name == name).then_some(uploaded.version);
                let known = match known {
                    Some(version) if model.version.is_none() => self.same_model(&name, &version, &uri).await?,
                    _ => None,
                };
                if let Some(known) = known {
                    return Ok(known);
                }
                (uri, name, model.version.clone())
            }
        };
        let version = match (version, &model.name) {
            (Some(version), _) => version,
            (None, None) => "1".to_owned(),
            (None, Some(_)) => self.versions(AssetKind::Model, &name).await?.1,
        };
        let body = model.to_arm(&uri, model.name.is_none());
        let path = self.versioned(&["models", &name, "versions", &version]);
        Ok(client.write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?)
    }

    async fn same_model(&self, name: &str, version: &str, uri: &str) -> Result<Option<Value>, Failure> {
        let found = self.session.client().get_optional(&self.versioned(&["models", name, "versions", version])).await?;
        Ok(found.filter(|model| model.pointer("/properties/modelUri").and_then(Value::as_str) == Some(uri)))
    }

    /// The latest version of an asset, if any, and the next free one.
    async fn versions(&self, kind: AssetKind, name: &str) -> Result<(Option<String>, String), Failure> {
        let container = self.session.client().get_optional(&self.versioned(&[kind.collection(), name])).await?;
        let text = |key: &str| {
            let value = container.as_ref()?.pointer(&format!("/properties/{key}"))?;
            value.as_str().map(str::to_owned).or_else(|| value.as_u64().map(|number| number.to_string()))
        };
        Ok((text("latestVersion"), text("nextVersion").unwrap_or_else(|| "1".to_owned())))
    }

    /// The long form of a datastore's address.
    fn long_uri(&self, uri: &str) -> String {
        match uri.strip_prefix("azureml://datastores/") {
            Some(rest) => format!("{}/datastores/{rest}", self.datastores()),
            None => uri.to_owned(),
        }
    }

    fn datastores(&self) -> String {
        let mut parts = self.id.split('/').skip(1);
        let (mut subscription, mut group, mut workspace) = ("", "", "");
        while let (Some(kind), Some(name)) = (parts.next(), parts.next()) {
            match kind.to_ascii_lowercase().as_str() {
                "subscriptions" => subscription = name,
                "resourcegroups" => group = name,
                // The provider's own name takes the place of a value, so its type comes as the next kind.
                "workspaces" => workspace = name,
                _ => {}
            }
        }
        format!("azureml://subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}")
    }

    /// Uploads to the workspace's datastore; the address there.
    async fn upload_to_datastore(
        &self,
        tree: &Tree,
        digest: &str,
        asset: (&str, &str),
    ) -> Result<(String, Uploaded), Failure> {
        let client = self.session.client();
        let store = client.get(&self.versioned(&["datastores", DATASTORE])).await?;
        let text = |pointer: &str| store.pointer(pointer).and_then(Value::as_str);
        let (Some(account), Some(container)) = (text("/properties/accountName"), text("/properties/containerName"))
        else {
            return Err(Fault::internal("The workspace's datastore has no account or container.").into());
        };
        let asked = json!({"expirableSecret": true, "expireAfterHours": 1});
        let path = self.path(&["datastores", DATASTORE]);
        let secrets = client.post(&format!("{path}/listSecrets?{ML_API}"), &asked).await?;
        let signature = secrets
            .get("sasToken")
            .and_then(Value::as_str)
            .ok_or_else(|| Fault::internal("The workspace's datastore gave no access signature."))?;
        let suffix = self.storage_suffix().await?;
        let address = format!("https://{account}.blob.{suffix}/{container}");
        let container = Url::parse(&address)
            .map_err(|error| Fault::internal(format!("The datastore's address '{address}' can't be read: {error}.")))?;
        let target = BlobTarget { container, signature: Secret::from(signature) };
        let uploaded = self.upload(&target, tree, &format!("{UPLOADS}/{digest}"), asset).await?;
        Ok((format!("{}/datastores/{DATASTORE}/paths/{}", self.datastores(), uploaded.path), uploaded))
    }

    async fn storage_suffix(&self) -> Result<String, Failure> {
        let clouds = self.session.client().get("/metadata/endpoints?api-version=2019-05-01").await?;
        let cloud = clouds.get(0).unwrap_or(&clouds);
        let suffix = cloud.pointer("/suffixes/storage").and_then(Value::as_str);
        suffix
            .map(str::to_owned)
            .ok_or_else(|| Fault::internal("The cloud's description has no storage suffix.").into())
    }

    async fn upload(
        &self,
        target: &BlobTarget,
        tree: &Tree,
        prefix: &str,
        asset: (&str, &str),
    ) -> Result<Uploaded, Failure> {
        let mut step = Step::begin(self.globals, format!("Uploading '{}'", tree.name));
        let http = self.session.client().http();
        let mut progress = |progress: casemate_wire::artifact::Progress| step.bytes(progress.sent, progress.total);
        Ok(upload_tree(http, target, tree, prefix, asset, &mut progress).await?)
    }
}

fn id_of(answer: &Value) -> Result<String, Failure> {
    let id = answer.get("id").and_then(Value::as_str);
    id.map(str::to_owned).ok_or_else(|| Fault::internal("The server's answer about an asset has no id.").into())
}
