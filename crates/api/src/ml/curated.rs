//! Stand-ins for the original's curated environments, whose images this platform can't pull.

use casemate_model::{Fault, ResourceId};
use serde_json::{Value, json};

use super::assets::ENVIRONMENTS;

/// How short references to curated environments start.
const PREFIX: &str = "AzureML-";

/// A curated environment that a deployment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Curated {
    name: String,
    version: String,
}

impl Curated {
    /// Reads `azureml://registries/azureml/environments/NAME/versions/V`, `…/labels/latest` and
    /// `azureml:AzureML-NAME[:V|@latest]`; none for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let made = |name: &str, version: &str| {
            let fits = |part: &str| {
                !part.is_empty()
                    && part.len() <= 200
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            (fits(name) && fits(version)).then(|| Self { name: name.to_owned(), version: version.to_owned() })
        };
        if let Some(rest) = text.strip_prefix("azureml://registries/azureml/environments/") {
            return match rest.split('/').collect::<Vec<_>>()[..] {
                [name, "versions" | "labels", version] => made(name, version),
                _ => None,
            };
        }
        let rest = text.strip_prefix("azureml:").unwrap_or(text);
        let (name, version) = rest.split_once([':', '@']).unwrap_or((rest, "latest"));
        if name.starts_with(PREFIX) { made(name, version) } else { None }
    }

    /// The environment of the workspace that stands in for it.
    ///
    /// # Errors
    /// When the name can't be part of an id.
    pub(super) fn id(&self, workspace: &ResourceId) -> Result<ResourceId, Fault> {
        ENVIRONMENTS.version_id(workspace, &format!("curated-{}", self.name), &self.version)
    }

    /// Its body: what the name says that it holds, or the platform's default environment.
    pub(super) fn body(&self) -> Value {
        let mut properties = json!({
            "description": self.warning(),
            "image": format!("mcr.microsoft.com/azureml/curated/{}:{}", self.name, self.version),
            "environmentType": "Curated",
            "osType": "Linux",
            "isAnonymous": true,
            "isArchived": false,
            "tags": {},
            "properties": {},
        });
        if let Some(version) = self.scikit_learn() {
            properties["condaFile"] = format!(
                "name: {}\nchannels: [conda-forge]\ndependencies:\n  - pip\n  - pip:\n      - scikit-learn=={version}.*\n      - numpy\n      - scipy\n      - pandas\n      - joblib\n      - azureml-inference-server-http\n",
                self.name
            )
            .into();
        }
        json!({ "properties": properties })
    }

    /// What the user should know.
    pub(super) fn warning(&self) -> String {
        let held = match self.scikit_learn() {
            Some(version) => format!("scikit-learn {version} with numpy, scipy, pandas and joblib"),
            None => "the platform's default environment".to_owned(),
        };
        format!(
            "The curated environment '{}' is an image that this platform does not pull; {held} stands in for it. If the scoring script misses a package, give a conda_file that lists it.",
            self.name
        )
    }

    /// The version in names such as `sklearn-1.5` and `AzureML-sklearn-1.0-ubuntu20.04-py38-cpu`.
    fn scikit_learn(&self) -> Option<&str> {
        let rest = self.name.split_once("sklearn-")?.1;
        let version = rest.split('-').next()?;
        let (major, minor) = version.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        (digits(major) && digits(minor)).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for (text, expected) in [
            (
                "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
                Some(("sklearn-1.5", "latest", Some("1.5"))),
            ),
            ("azureml://registries/azureml/environments/x/versions/7", Some(("x", "7", None))),
            (
                "azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest",
                Some(("AzureML-sklearn-1.0-ubuntu20.04-py38-cpu", "latest", Some("1.0"))),
            ),
            ("AzureML-pytorch-1.9:3", Some(("AzureML-pytorch-1.9", "3", None))),
            ("azureml:my-env:1", None),
            ("azureml://registries/mine/environments/x/versions/7", None),
            ("azureml://registries/azureml/environments/x/versions/../7", None),
            ("azureml://registries/azureml/environments/x", None),
        ] {
            let parsed = Curated::parse(text);
            let seen = parsed.as_ref().map(|it| (it.name.as_str(), it.version.as_str(), it.scikit_learn()));
            assert_eq!(seen, expected, "{text}");
        }
    }
}
