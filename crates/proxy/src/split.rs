//! Which deployment gets a request, and whether the mirror target gets a copy.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode};

use crate::{answer::Refusal, queue::Deployment, random::Random, snapshot::Endpoint};

/// Names the deployment: in a request the wanted one, in an answer the one that answered.
pub(crate) const DEPLOYMENT: HeaderName = HeaderName::from_static("azureml-model-deployment");

/// The choice for one request.
pub(crate) struct Choice<'a> {
    /// The deployment that answers.
    pub(crate) live: &'a Arc<Deployment>,
    /// The deployment that gets a copy.
    pub(crate) mirror: Option<&'a Arc<Deployment>>,
}

/// Chooses by the header, else by weight. A request with the header is never mirrored.
///
/// # Errors
/// 404 when the named deployment does not exist, or no deployment has a positive weight.
pub(crate) fn choose<'a>(endpoint: &'a Endpoint, headers: &HeaderMap, random: &Random) -> Result<Choice<'a>, Refusal> {
    if let Some(name) = headers.get(DEPLOYMENT) {
        let live = name.to_str().ok().and_then(|name| endpoint.deployment(name));
        return live.map(|live| Choice { live, mirror: None }).ok_or_else(|| unknown(endpoint, name.as_bytes()));
    }
    let live = endpoint.draw(random).ok_or_else(|| no_traffic(endpoint))?;
    let mirror = endpoint.mirror.as_ref().filter(|(percent, _)| random.below(100) < *percent).map(|(_, target)| target);
    Ok(Choice { live, mirror })
}

fn unknown(endpoint: &Endpoint, name: &[u8]) -> Refusal {
    let shown: String = String::from_utf8_lossy(name).chars().take(64).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        "DeploymentNotFound",
        format!(
            "The endpoint '{}' has no deployment '{shown}' that can be called. Name another one in the header \
             azureml-model-deployment, or leave the header out.",
            endpoint.route.name
        ),
    )
}

fn no_traffic(endpoint: &Endpoint) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "NoDeploymentWithTraffic",
        format!(
            "No deployment of the endpoint '{}' has a positive traffic weight. Give one a share of the traffic, or \
             name one in the header azureml-model-deployment.",
            endpoint.route.name
        ),
    )
}
