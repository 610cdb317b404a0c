//! Makes small packages out of nothing: wheels and source archives, written by the host's Python.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The module name of the scoring server, which every environment is asked to import.
const SERVER: (&str, &str) = ("azureml_inference_server_http", "1.5.0");

const MAKE_WHEEL: &str = r#"
import sys, zipfile
out, name, version, needs, code = sys.argv[1:6]
info = "%s-%s.dist-info" % (name, version)
meta = "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version)
meta += "".join("Requires-Dist: %s\n" % need for need in needs.split("|") if need)
files = {
    name + ".py": code,
    info + "/METADATA": meta,
    info + "/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
files[info + "/RECORD"] = "".join("%s,,\n" % path for path in files) + info + "/RECORD,,\n"
with zipfile.ZipFile("%s/%s-%s-py3-none-any.whl" % (out, name, version), "w") as archive:
    for path, text in files.items():
        archive.writestr(path, text)
"#;

const MAKE_SOURCE: &str = r#"
import io, sys, tarfile
out, name, version, setup = sys.argv[1:5]
# The package builds itself: no other build tool is needed, so none has to be on the index.
files = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "hook"\nbackend-path = ["."]\n',
    "PKG-INFO": "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version),
    "hook.py": setup,
}
with tarfile.open("%s/%s-%s.tar.gz" % (out, name, version), "w:gz") as archive:
    for path, text in files.items():
        entry = tarfile.TarInfo("%s-%s/%s" % (name, version, path))
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
"#;

/// The part of a build hook that makes the wheel; `result` is the text of the module.
pub const HOOK_TAIL: &str = r#"
def build_wheel(directory, config_settings=None, metadata_directory=None):
    import os, zipfile
    name, version = NAME, "1.0"
    result = work()
    info = "%s-%s.dist-info" % (name, version)
    wheel = "%s-%s-py3-none-any.whl" % (name, version)
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as archive:
        archive.writestr(name + ".py", result)
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (name, version))
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "/RECORD", "%s.py,,\n%s/METADATA,,\n%s/WHEEL,,\n%s/RECORD,,\n" % (name, info, info, info))
    return wheel
"#;

/// A directory of packages.
pub struct Packages {
    pub dir: PathBuf,
}

impl Packages {
    /// A directory that has stand-ins for what every environment gets.
    pub fn new(dir: PathBuf) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        let packages = Self { dir };
        packages.wheel(SERVER.0, SERVER.1, &[], "");
        packages.wheel("setuptools", "60.0", &[], "");
        packages
    }

    /// Adds a wheel with one module of the package's name.
    pub fn wheel(&self, name: &str, version: &str, needs: &[&str], code: &str) -> PathBuf {
        python(&["-c", MAKE_WHEEL, &self.dir.display().to_string(), name, version, &needs.join("|"), code]);
        self.dir.join(format!("{name}-{version}-py3-none-any.whl"))
    }

    /// Adds a source archive, version 1.0, whose build runs the Python function `work() -> str` (the module's text).
    pub fn source(&self, name: &str, work: &str) -> PathBuf {
        let hook = format!("NAME = {name:?}\n{work}\n{HOOK_TAIL}");
        python(&["-c", MAKE_SOURCE, &self.dir.display().to_string(), name, "1.0", &hook]);
        self.dir.join(format!("{name}-1.0.tar.gz"))
    }
}

/// Runs the host's Python.
pub fn python(args: &[&str]) {
    let done = Command::new("python3").args(args).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256(file: &Path) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(file).unwrap());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
