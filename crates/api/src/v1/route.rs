//! The paths of the first generation of the SDK.

use casemate_model::{Fault, ResourceId, workspace::WORKSPACE_TYPE};
use http::Method;
use percent_encoding::percent_decode_str;

use crate::call::Target;

/// Parts of a workspace's id: subscriptions/S/resourceGroups/G/providers/P/workspaces/W.
const WORKSPACE_PARTS: usize = 8;
/// Most parts after the workspace; artifacts have paths of their own.
const MAX_REST: usize = 64;

/// Which service a path is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `/rp/workspaces` + an id: reads of what the resource manager writes.
    Computes,
    /// `/history/v1.0` + a workspace.
    History,
    /// `/artifact/v2.0` + a workspace.
    Artifacts,
    /// `/modelmanagement/v1.0` + a workspace.
    Management,
}

impl Door {
    /// The door that a path begins with.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.trim_start_matches('/').split('/').next()? {
            "rp" => Some(Self::Computes),
            "history" => Some(Self::History),
            "artifact" => Some(Self::Artifacts),
            "modelmanagement" => Some(Self::Management),
            _ => None,
        }
    }

    /// What a path through this door is about: the workspace and the decoded parts after it, or the compute.
    ///
    /// # Errors
    /// `NotFound` or `InvalidResourceId` saying what the path should be.
    pub(crate) fn parse(self, method: &Method, path: &str) -> Result<(Target, Vec<String>), Fault> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let version = parts.get(1).copied().unwrap_or_default();
        let inside = parts.get(2..).unwrap_or_default();
        match self {
            Self::Computes if version.eq_ignore_ascii_case("workspaces") => {
                let target = Target::parse(method, &format!("/{}", inside.join("/")))?;
                let kind = target.kind();
                if kind.starts_with(&format!("{WORKSPACE_TYPE}/computes").to_lowercase()) {
                    return Ok((target, Vec::new()));
                }
                Err(nothing(path, "/rp/workspaces/subscriptions/…/workspaces/W/computes"))
            }
            Self::Computes => Err(nothing(path, "/rp/workspaces/subscriptions/…/workspaces/W/computes")),
            _ => {
                let id = workspace(method, inside).filter(|_| version.starts_with('v'));
                let id = id.ok_or_else(|| nothing(path, "/SERVICE/vN.N/subscriptions/…/workspaces/W/…"))?;
                let rest = inside[WORKSPACE_PARTS..].iter().copied();
                Ok((Target::Resource(id), rest.take(MAX_REST).map(decoded).collect::<Result<_, _>>()?))
            }
        }
    }
}

/// The workspace that the parts begin with.
fn workspace(method: &Method, parts: &[&str]) -> Option<ResourceId> {
    let id = parts.get(..WORKSPACE_PARTS)?.join("/");
    match Target::parse(method, &format!("/{id}")) {
        Ok(Target::Resource(id)) if id.is_type(WORKSPACE_TYPE) => Some(id),
        _ => None,
    }
}

fn nothing(path: &str, expected: &str) -> Fault {
    let shown: String = path.chars().take(200).collect();
    Fault::not_found("NotFound", format!("There is nothing at '{shown}'; paths here look like {expected}."))
}

fn decoded(part: &str) -> Result<String, Fault> {
    let refused = |why: &str| Fault::invalid("InvalidPath", format!("The path has a part that {why}."));
    let text = percent_decode_str(part).decode_utf8().map_err(|_| refused("is not UTF-8 when decoded"))?;
    if matches!(&*text, "." | "..") || text.contains(|c: char| c.is_control() || c == '/' || c == '\\') {
        return Err(refused("holds a character that names can't have"));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "subscriptions/5e/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";

    #[test]
    fn paths_of_the_sdk() {
        for (path, door, kind, rest) in [
            (format!("/rp/workspaces/{HOME}/computes/c"), Door::Computes, "workspaces/computes", ""),
            (format!("/rp/workspaces/{HOME}/computes"), Door::Computes, "workspaces/computes", ""),
            (format!("/modelmanagement/v1.0/{HOME}/services/s"), Door::Management, "workspaces", "services s"),
            (
                format!("/modelmanagement/v1.0/{HOME}/models/m:1?x").replace("?x", ""),
                Door::Management,
                "workspaces",
                "models m:1",
            ),
            (
                format!("/artifact/v2.0/{}/artifacts/batch/metadata/LocalUpload/a%20b", HOME.to_lowercase()),
                Door::Artifacts,
                "workspaces",
                "artifacts batch metadata LocalUpload a b",
            ),
            (format!("/history/v1.0/{HOME}"), Door::History, "workspaces", ""),
        ] {
            assert_eq!(Door::of(&path), Some(door), "{path}");
            let (target, found) = door.parse(&Method::GET, &path).unwrap();
            assert_eq!(target.kind(), format!("microsoft.machinelearningservices/{kind}"), "{path}");
            assert_eq!(found.join(" "), rest, "{path}");
        }
        assert_eq!(Door::of("/subscriptions/5e"), None);
    }

    #[test]
    fn refusals() {
        for path in [
            "/rp".to_owned(),
            format!("/rp/workspaces/{HOME}"),
            format!("/rp/workspaces/{HOME}/onlineEndpoints/e"),
            format!("/rp/other/{HOME}/computes"),
            "/modelmanagement/v1.0".to_owned(),
            format!("/modelmanagement/{HOME}/models"),
            "/modelmanagement/v1.0/subscriptions/5e/resourceGroups/g/providers/Microsoft.Storage/a/b/models".to_owned(),
            format!("/modelmanagement/v1.0/{HOME}/models/%2e%2e"),
            format!("/modelmanagement/v1.0/{HOME}/models/a%2fb"),
            format!("/modelmanagement/v1.0/{HOME}/models/%ff"),
        ] {
            assert!(Door::of(&path).unwrap().parse(&Method::GET, &path).is_err(), "{path}");
        }
    }
}
