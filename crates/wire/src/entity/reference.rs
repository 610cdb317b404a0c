//! How one asset names another.

use casemate_model::ResourceId;

/// What sort of asset a reference is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssetKind {
    /// A registered model.
    Model,
    /// A registered environment.
    Environment,
    /// Registered code.
    Code,
}

impl AssetKind {
    /// The collection in ids: `models`, `environments`, `codes`.
    #[must_use]
    pub fn collection(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Environment => "environments",
            Self::Code => "codes",
        }
    }

    /// In words.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Environment => "environment",
            Self::Code => "code",
        }
    }
}

/// How short references to the original's curated environments start; what they stand for is the platform's to say.
const CURATED_PREFIX: &str = "AzureML-";

/// A reference to a registered asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssetRef {
    /// A full id.
    Id(String),
    /// An asset of a registry, `azureml://registries/…`, or a curated one, `azureml:AzureML-…`: passed on as written.
    Registry(String),
    /// `azureml:name:version`.
    Version {
        /// The asset.
        name: String,
        /// Its version.
        version: String,
    },
    /// `azureml:name@label`.
    Label {
        /// The asset.
        name: String,
        /// Such as `latest`.
        label: String,
    },
}

impl AssetRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// A sentence saying what is wrong and which forms there are.
    pub fn parse(text: &str, kind: AssetKind) -> Result<Self, String> {
        let forms = || {
            format!(
                "Write azureml:NAME:VERSION, azureml:NAME@latest, azureml://registries/REGISTRY/{}/NAME/versions/VERSION or a full id.",
                kind.collection()
            )
        };
        let bad =
            |why: &str| format!("'{text}' is no reference to {} {}: {why}. {}", article(kind), kind.word(), forms());
        let body = text.strip_prefix("azureml:").unwrap_or(text);
        if let Some(rest) = body.strip_prefix("//") {
            return match rest.split('/').next() {
                Some("registries") => Ok(Self::Registry(text.to_owned())),
                Some("subscriptions") => full_id(&format!("/{rest}"), kind).map_err(|why| bad(&why)),
                _ => Err(bad("only azureml://registries/… and azureml://subscriptions/… name assets")),
            };
        }
        if body.starts_with('/') && text.starts_with("azureml:")
            || body.to_ascii_lowercase().starts_with("/subscriptions/")
        {
            return full_id(body, kind).map_err(|why| bad(&why));
        }
        if kind == AssetKind::Environment && body.starts_with(CURATED_PREFIX) && text.starts_with("azureml:") {
            return Ok(Self::Registry(text.to_owned()));
        }
        if !text.starts_with("azureml:") {
            return Err(bad("it does not start with 'azureml:'"));
        }
        let named = |name: &str, rest: &str| {
            let fits = |part: &str| {
                !part.is_empty()
                    && part.len() <= 255
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            (fits(name) && fits(rest)).then(|| (name.to_owned(), rest.to_owned()))
        };
        if let Some((name, label)) = body.rsplit_once('@') {
            let (name, label) = named(name, label).ok_or_else(|| {
                bad("the name or the label is empty or has other characters than letters, digits, '-', '_', '.'")
            })?;
            return Ok(Self::Label { name, label });
        }
        if let Some((name, version)) = body.rsplit_once(':') {
            let (name, version) = named(name, version).ok_or_else(|| {
                bad("the name or the version is empty or has other characters than letters, digits, '-', '_', '.'")
            })?;
            return Ok(Self::Version { name, version });
        }
        Err(bad("it has no version"))
    }
}

fn article(kind: AssetKind) -> &'static str {
    if kind == AssetKind::Environment { "an" } else { "a" }
}

/// Reads a full id; the short datastore-like form without `providers` is expanded.
fn full_id(text: &str, kind: AssetKind) -> Result<AssetRef, String> {
    let expanded = if text.to_ascii_lowercase().contains("/providers/") {
        text.to_owned()
    } else {
        text.replacen("/workspaces/", "/providers/Microsoft.MachineLearningServices/workspaces/", 1).replacen(
            "/resourcegroups/",
            "/resourceGroups/",
            1,
        )
    };
    let id = ResourceId::parse(&expanded).map_err(|fault| fault.message.trim_end_matches('.').to_owned())?;
    let wanted = format!("Microsoft.MachineLearningServices/workspaces/{}/versions", kind.collection());
    if !id.is_type(&wanted) {
        return Err(format!("the id is one of type '{}', not '{wanted}'", id.resource_type()));
    }
    Ok(AssetRef::Id(id.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/models/m/versions/1";

    #[test]
    fn forms() {
        let version = AssetRef::Version { name: "m".into(), version: "1".into() };
        let registry = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest";
        for (text, kind, reference) in [
            ("azureml:m:1", AssetKind::Model, version),
            ("azureml:m@latest", AssetKind::Model, AssetRef::Label { name: "m".into(), label: "latest".into() }),
            (registry, AssetKind::Environment, AssetRef::Registry(registry.into())),
            (
                "azureml:AzureML-sklearn-1.5@latest",
                AssetKind::Environment,
                AssetRef::Registry("azureml:AzureML-sklearn-1.5@latest".into()),
            ),
            (ID, AssetKind::Model, AssetRef::Id(ID.into())),
            (&format!("azureml:{ID}"), AssetKind::Model, AssetRef::Id(ID.into())),
            (
                "azureml://subscriptions/s/resourcegroups/g/workspaces/w/models/m/versions/1",
                AssetKind::Model,
                AssetRef::Id(ID.into()),
            ),
        ] {
            assert_eq!(AssetRef::parse(text, kind).unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn bad_references() {
        for (text, kind, why) in [
            ("azureml:m", AssetKind::Model, "no version"),
            ("azureml:m:", AssetKind::Model, "empty"),
            ("azureml:@latest", AssetKind::Model, "empty"),
            ("azureml:a b:1", AssetKind::Model, "other characters"),
            ("azureml:../m:1", AssetKind::Model, "other characters"),
            ("m:1", AssetKind::Model, "does not start with 'azureml:'"),
            ("azureml://jobs/x", AssetKind::Model, "only azureml://registries"),
            (ID, AssetKind::Environment, "not 'Microsoft.MachineLearningServices/workspaces/environments/versions'"),
            ("/subscriptions/s/resourceGroups", AssetKind::Model, "no resource group"),
            ("", AssetKind::Code, "does not start"),
        ] {
            let message = AssetRef::parse(text, kind).expect_err(text);
            assert!(message.contains(why), "{message} lacks {why}");
        }
    }
}
