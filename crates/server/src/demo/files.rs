//! The sample's files, carried in the binary, and the commands to go on with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const FILES: [(&str, &str); 7] = [
    ("endpoint.yml", include_str!("../../../../examples/diabetes/endpoint.yml")),
    ("blue-deployment.yml", include_str!("../../../../examples/diabetes/blue-deployment.yml")),
    ("conda.yaml", include_str!("../../../../examples/diabetes/conda.yaml")),
    ("train.py", include_str!("../../../../examples/diabetes/train.py")),
    ("src/score.py", include_str!("../../../../examples/diabetes/src/score.py")),
    ("reach-deployment.yml", include_str!("../../../../examples/diabetes/reach-deployment.yml")),
    ("reach/score.py", include_str!("../../../../examples/diabetes/reach/score.py")),
];

/// Writes the sample's files below the state directory and gives their directory.
///
/// # Errors
/// When the disk is full or the directory can't be written.
pub fn unpack(state: &Path) -> io::Result<PathBuf> {
    let directory = super::directory(state);
    for inner in ["src", "reach"] {
        fs::create_dir_all(directory.join(inner))?;
    }
    for (name, text) in FILES {
        fs::write(directory.join(name), text)?;
    }
    Ok(directory)
}

/// The conda file's text.
pub fn conda_file() -> String {
    FILES.iter().find(|(name, _)| *name == "conda.yaml").map(|(_, text)| (*text).to_owned()).unwrap_or_default()
}

/// The exact commands to go on by hand: curl, the CLI, the Python SDK.
pub fn commands(url: &str, state: &Path, files: &Path) -> String {
    let (state, files) = (state.display(), files.display());
    let (group, workspace, endpoint) = (super::GROUP, super::WORKSPACE, super::ENDPOINT);
    format!(
        r#"
To go on by hand (while a platform runs on this state directory):

  export CASEMATE_STATE={state}
  eval "$(casemate env)"
  cd {files}
  casemate configure --defaults group={group} workspace={workspace}

  # the command line
  casemate ml online-endpoint show -n {endpoint}
  casemate ml online-endpoint invoke -n {endpoint} --request-file sample-request.json

  # curl
  KEY=$(casemate ml online-endpoint get-credentials -n {endpoint} -o tsv --query primaryKey)
  curl {url}/api/v1/endpoint/{endpoint}/score -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d @sample-request.json

  # Python: pip install azure-ai-ml azure-identity
  python3 - <<'END'
  import os
  from azure.ai.ml import MLClient
  from azure.identity import DefaultAzureCredential
  client = MLClient(DefaultAzureCredential(), os.environ["AZURE_SUBSCRIPTION_ID"], "{group}", "{workspace}")
  print(client.online_endpoints.invoke("{endpoint}", request_file="sample-request.json"))
  END
"#
    )
}
