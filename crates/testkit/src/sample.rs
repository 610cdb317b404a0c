//! Small models to deploy: a directory with YAML files, a conda file and a score.py of the test's choice.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A score.py that answers with the sum of the request's numbers and its own flavour.
pub const SUM: &str = r#"
import json, os, time

def init():
    print("init of", os.environ.get("FLAVOUR"), flush=True)

def run(data):
    request = json.loads(data)
    time.sleep(request.get("sleep", 0))
    return {"sum": sum(request["data"]), "flavour": os.environ.get("FLAVOUR"), "pid": os.getpid()}
"#;

const CONDA: &str =
    "name: small\nchannels: [conda-forge]\ndependencies:\n  - pip:\n      - azureml-inference-server-http\n";

/// A directory with what a deployment needs.
pub struct Sample {
    directory: PathBuf,
}

impl Sample {
    /// Writes a sample with this score.py below `parent`.
    ///
    /// # Errors
    /// When the files can't be written.
    pub fn new(parent: &Path, name: &str, score: &str) -> Result<Self> {
        let directory = parent.join(name);
        fs::create_dir_all(directory.join("code"))?;
        fs::create_dir_all(directory.join("model"))?;
        fs::write(directory.join("code/score.py"), score)?;
        fs::write(directory.join("model/model.txt"), "a model\n")?;
        fs::write(directory.join("conda.yaml"), CONDA)?;
        fs::write(directory.join("endpoint.yml"), "name: sample\nauth_mode: key\n")?;
        fs::write(directory.join("request.json"), r#"{"data": [1, 2, 3]}"#)?;
        let sample = Self { directory };
        sample.deployment("blue", "")?;
        Ok(sample)
    }

    /// Writes `<name>.yml`, a deployment with FLAVOUR set to its name, and further YAML lines at its end.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn deployment(&self, name: &str, more: &str) -> Result<PathBuf> {
        let text = format!(
            "name: {name}\nendpoint_name: sample\nmodel:\n  path: model\ncode_configuration:\n  code: code\n  scoring_script: score.py\n\
             environment:\n  conda_file: conda.yaml\n  image: docker.io/library/debian:12\n\
             environment_variables:\n  FLAVOUR: {name}\ninstance_type: Standard_DS3_v2\ninstance_count: 1\n{more}"
        );
        let path = self.path(&format!("{name}.yml"));
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The path of a file in the sample.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}
