//! Where the installer comes from, and what happens without it.

use std::path::{Path, PathBuf};

use super::Test;
use super::index::Index;
use super::packages::Packages;
use super::world::{World, uv};

pub const TESTS: &[Test] = &[
    ("pip_serves_when_uv_cannot_be_had", pip_serves_when_uv_cannot_be_had),
    ("uv_is_fetched_by_pip", uv_is_fetched_by_pip),
    ("uv_is_fetched_from_the_index_where_pip_is_missing", uv_is_fetched_from_the_index_where_pip_is_missing),
    ("no_installer_at_all_is_said_with_the_ways_out", no_installer_at_all_is_said_with_the_ways_out),
];

/// Takes every uv of this host off the path and out of the home directory.
fn without_uv(world: &mut World) {
    let has_uv = |dir: &PathBuf| dir.join("uv").exists();
    let path = std::env::split_paths(&std::env::var("PATH").unwrap()).filter(|dir| !has_uv(dir)).collect::<Vec<_>>();
    world.set("PATH", std::env::join_paths(path).unwrap().to_str().unwrap());
    let home = world.dir.path().join("home").display().to_string();
    world.set("HOME", &home);
}

/// Makes `python -m pip` of this host fail as if it weren't there.
fn without_pip(world: &mut World) {
    let dir = world.dir.path().join("nopip");
    std::fs::create_dir_all(dir.join("pip")).unwrap();
    std::fs::write(dir.join("pip/__main__.py"), "raise SystemExit('No module named pip')").unwrap();
    world.set("PYTHONPATH", &dir.display().to_string());
}

fn pip_serves_when_uv_cannot_be_had() {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("small", "1.0", &["inner"], "answer = 42");
    packages.wheel("inner", "1.0", &[], "");
    without_uv(&mut world);
    let environment = world.build("dependencies: [small=1.0]").unwrap();
    assert_eq!(world.python(&environment, "import small, inner; print(small.answer)"), "42\n");
    let log = world.log_text("blue");
    assert!(log.contains("using pip") && log.contains("Successfully installed"), "{log}");
    assert!(environment.warnings[0].contains("Without uv"), "{:?}", environment.warnings);
    let fault = world.build("dependencies: [small=2.0]").unwrap_err();
    assert!(fault.message.contains("No matching distribution found for small==2.0"), "{}", fault.message);
}

/// A wheel of the uv that the tests have, as the index would have it.
fn uv_wheel(packages: &Packages) -> String {
    let architecture = std::env::consts::ARCH;
    let name = format!("uv-0.13.9-py3-none-manylinux_2_17_{architecture}.manylinux2014_{architecture}.whl");
    let code = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
    archive.write(sys.argv[2], "uv-0.13.9.data/scripts/uv")
    archive.writestr("uv-0.13.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 0.13.9\n")
    archive.writestr("uv-0.13.9.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-manylinux2014_ARCH\n".replace("ARCH", sys.argv[3]))
    archive.writestr("uv-0.13.9.dist-info/RECORD", "")
"#;
    let file = packages.dir.join(&name);
    super::packages::python(&["-c", code, file.to_str().unwrap(), uv().to_str().unwrap(), architecture]);
    name
}

fn fetched(world: &World) -> PathBuf {
    let tools = world.state.join("tools");
    let left: Vec<_> = std::fs::read_dir(&tools).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["uv-0.13.9"]);
    tools.join("uv-0.13.9/uv")
}

fn uv_is_fetched_by_pip() {
    let mut world = World::new();
    let packages = world.packages();
    uv_wheel(&packages);
    without_uv(&mut world);
    world.build("dependencies: []").unwrap();
    assert!(fetched(&world).is_file());
    assert!(world.log_text("blue").contains("The installer is uv 0.13.9"));
    // The next run finds it.
    std::fs::remove_dir_all(&packages.dir).unwrap();
    let packages = world.packages();
    packages.wheel("small", "1.0", &[], "");
    world.build("dependencies: [small]").unwrap();
}

fn uv_is_fetched_from_the_index_where_pip_is_missing() {
    let mut world = World::new();
    let packages = world.packages();
    let wheel = uv_wheel(&packages);
    let index = Index::serve(packages.dir, &[], None);
    world.use_index(&index.url());
    without_uv(&mut world);
    without_pip(&mut world);
    world.build("dependencies: []").unwrap();
    assert!(fetched(&world).is_file());
    let asked = index.asked.lock().unwrap();
    assert!(asked.contains(&format!("/files/{wheel}")), "{asked:?}");
}

fn no_installer_at_all_is_said_with_the_ways_out() {
    let mut world = World::new();
    world.packages();
    without_uv(&mut world);
    without_pip(&mut world);
    // An interpreter whose venv can't be used either.
    let bin = world.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let dir = bin.display().to_string();
    let fake = bare_python(Path::new(&dir));
    world.set("PATH", &dir);
    assert!(fake.exists());
    let fault = world.build("dependencies: []").unwrap_err();
    assert!(fault.message.contains("uv can't be had") && fault.message.contains("python3-venv"), "{}", fault.message);
}

/// A `python3` that is a real one, but without the module `venv`.
fn bare_python(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    let code = r#"
import os, shutil, sys, sysconfig
root = sys.argv[1]
lib = os.path.join(root, "lib", os.path.basename(sysconfig.get_path("stdlib")))
os.makedirs(os.path.join(root, "bin"))
os.makedirs(lib)
source = sysconfig.get_path("stdlib")
for name in os.listdir(source):
    if name not in ("venv", "ensurepip", "site-packages", "dist-packages", "test", "__pycache__"):
        path = os.path.join(source, name)
        (shutil.copytree if os.path.isdir(path) else shutil.copy)(path, os.path.join(lib, name))
shutil.copy(os.path.realpath(sys.executable), os.path.join(root, "bin", "python3"))
"#;
    // The system's own: it needs no library from its directory.
    let done = std::process::Command::new("/usr/bin/python3").args(["-c", code]).arg(&root).status().unwrap();
    assert!(done.success());
    let link = dir.join("python3");
    std::os::unix::fs::symlink(root.join("bin/python3"), &link).unwrap();
    link
}
