//! The unmodified azure-ai-ml client.

use std::fs;

use anyhow::{Result, ensure};
use casemate_testkit::{Platform, binary, sample::Sample};

/// Tells whom its token is of.
const SCORE: &str = r#"
import base64, json, os
from azure.identity import DefaultAzureCredential

def init():
    global credential
    credential = DefaultAzureCredential()

def run(data):
    token = credential.get_token(json.loads(data)["scope"]).token
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return {"aud": claims["aud"], "oid": claims["oid"], "endpoint": os.environ["IDENTITY_ENDPOINT"]}
"#;

/// Its environment.
const CONDA: &str =
    "name: identity\ndependencies:\n  - pip:\n      - azureml-inference-server-http\n      - azure-identity\n";

#[test]
fn the_sdk_walks_from_workspace_to_delete() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_flow.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_rest_of_the_sdks_surface_works() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_surface.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_sdk_manages_the_network_of_a_workspace() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_network.py", &[&binary().to_string_lossy()])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_originals_network_clients_manage_virtual_networks() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_vnet.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

/// The tokens that a model gets are those of its endpoint's identity.
#[test]
fn the_sdks_default_credential_works_inside_a_model() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "identity", SCORE)?;
    fs::write(sample.path("conda.yaml"), CONDA)?;
    fs::write(sample.path("request.json"), r#"{"scope": "https://ml.azure.com/.default"}"#)?;
    let patient = "request_settings:\n  request_timeout_ms: 60000\n";
    let blue = sample.deployment("blue", patient)?;
    platform.casemate(&format!("ml online-endpoint create -n sample -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -n blue -e sample -f {} --all-traffic", blue.display()))?;
    let principal = platform.casemate("ml online-endpoint show -n sample --query identity.principal_id -o tsv")?;
    let request = sample.path("request.json");
    let said =
        platform.casemate(&format!("ml online-endpoint invoke -n sample --request-file {}", request.display()))?;
    ensure!(said.contains(principal.trim()) && said.contains("https://ml.azure.com"), "{said}");
    ensure!(said.contains("169.254.169.254/msi/token"), "{said}");
    Ok(())
}
