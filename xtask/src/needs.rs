//! What the tests need from the machine: looked for first, installed when it is missing.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    project::{Project, cargo},
    shell,
};

/// A Debian package and the question that tells whether it is needed: the first word is a program, the rest are its
/// arguments, and success means that all is there.
const PACKAGES: &[(&str, &[&str])] = &[
    ("python3", &["python3", "--version"]),
    ("python3-venv", &["python3", "-c", "import ensurepip, venv"]),
    ("curl", &["curl", "--version"]),
    ("ca-certificates", &["test", "-s", "/etc/ssl/certs/ca-certificates.crt"]),
    ("openssl", &["openssl", "version"]),
    ("bind9-dnsutils", &["dig", "-v"]),
    ("bind9-utils", &["/usr/bin/named-checkzone", "-v"]),
    ("unbound", &["test", "-x", "/usr/sbin/unbound-checkconf"]),
    ("dnsmasq-base", &["/usr/sbin/dnsmasq", "--version"]),
    ("iproute2", &["ip", "-V"]),
    ("pebble", &["test", "-x", "/usr/bin/pebble"]),
    ("testssl.sh", &["test", "-x", "/usr/bin/testssl"]),
    ("sslscan", &["sslscan", "--version"]),
];

/// Makes sure of the Debian packages. Installing asks for root.
///
/// # Errors
/// When one is missing and cannot be installed.
pub fn packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.iter().filter(|(_, question)| !holds(question)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if shell::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("the tests need {}; install with: sudo apt-get install {}", missing.join(", "), missing.join(" "));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::step("apt-get update", apt().args(["update", "-qq"]))?;
    let mut install = apt();
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
    shell::step(&format!("install {}", missing.join(", ")), &mut install)
}

fn holds(question: &[&str]) -> bool {
    let [program, arguments @ ..] = question else { return true };
    shell::succeeds(Command::new(program).args(arguments))
}

/// Makes sure of rustfmt, clippy and nextest.
///
/// # Errors
/// When one is missing and cannot be installed.
pub fn cargo_tools() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !shell::succeeds(Command::new(cargo()).args([tool, "--version"])) {
            let mut rustup = Command::new("rustup");
            shell::step(&format!("install {component}"), rustup.args(["component", "add", component]))?;
        }
    }
    cargo_command("nextest")
}

/// Makes sure of cargo-fuzz.
///
/// # Errors
/// When it is missing and cannot be installed.
pub fn cargo_fuzz() -> Result<()> {
    cargo_command("fuzz")
}

fn cargo_command(name: &str) -> Result<()> {
    if shell::succeeds(Command::new(cargo()).args([name, "--version"])) {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    let mut install = Command::new(cargo());
    install.args(["install", &package, "--locked"]);
    // Its own build must not land among ours, nor rebuild ours.
    install.env_remove("CARGO_TARGET_DIR");
    shell::step(&format!("install {package} (once, some minutes)"), &mut install)
}

/// Makes sure of a Python with the clients that the end-to-end tests drive, as a file in `tests/e2e` lists them, and gives
/// its interpreter. It is made once for each content of the file and each Python.
///
/// # Errors
/// When it cannot be made; a half-made one is made anew the next time.
pub fn python(project: &Project, requirements: &str) -> Result<PathBuf> {
    let requirements = project.root.join("tests/e2e").join(requirements);
    let wanted =
        fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let about = "import sys; print(sys.executable, sys.version)";
    let interpreter = shell::output(Command::new("python3").args(["-c", about]))?;
    let kept = project.target.join("test-env");
    let venv = kept.join(digest(&[&wanted, &interpreter]));
    let python = venv.join("bin/python");
    let complete = venv.join("complete");
    fs::create_dir_all(&kept)?;
    let lock = fs::File::create(kept.join("lock"))?;
    lock.lock()?;
    if complete.exists() {
        return Ok(python);
    }
    if venv.exists() {
        fs::remove_dir_all(&venv)?;
    }
    shell::step("make the tests' Python environment", Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    shell::step("install the tests' Python packages", &mut pip)?;
    fs::write(&complete, wanted)?;
    Ok(python)
}

/// Where environment builds of the tests keep their downloads.
#[must_use]
pub fn download_cache(project: &Project) -> PathBuf {
    env::var_os("CASEMATE_TEST_CACHE").map_or_else(|| project.target.join("test-env/cache"), PathBuf::from)
}

/// A name for a directory; a collision or a change between releases of Rust costs one more installation.
fn digest(parts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The program as `cargo build` leaves it.
#[must_use]
pub fn binary(target: &Path, profile: &str) -> PathBuf {
    target.join(profile).join("casemate")
}
