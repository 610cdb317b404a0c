//! From a conda file to an environment, and from a wrong one to words that help.

use std::path::Path;
use std::time::Instant;

use casemate_model::FaultKind;
use casemate_runtime::environment::{EnvironmentRequest, PythonPolicy};

use super::Test;
use super::index::Index;
use super::world::{SCOPE, World, block_on, request};

pub const TESTS: &[Test] = &[
    ("an_environment_is_built_once_and_found_again", an_environment_is_built_once_and_found_again),
    ("without_a_conda_file_there_is_a_default_environment", without_a_conda_file_there_is_a_default_environment),
    ("what_the_index_lacks_is_named_with_the_choices", what_the_index_lacks_is_named_with_the_choices),
    ("free_packages_are_as_old_as_the_pinned_ones", free_packages_are_as_old_as_the_pinned_ones),
    ("limits_of_age_give_way_when_nothing_fits", limits_of_age_give_way_when_nothing_fits),
    ("a_server_that_does_not_import_fails_the_build", a_server_that_does_not_import_fails_the_build),
    ("pythons_are_chosen_by_policy", pythons_are_chosen_by_policy),
    ("credentials_are_used_and_never_shown", credentials_are_used_and_never_shown),
    ("an_index_that_is_away_is_no_fault_of_the_file", an_index_that_is_away_is_no_fault_of_the_file),
];

fn an_environment_is_built_once_and_found_again() {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("small", "1.2.3", &["inner>=1"], "import inner\nanswer = 6 * inner.seven");
    packages.wheel("inner", "1.0", &[], "seven = 7");
    packages.wheel("addition", "2.0", &[], "");
    let conda_file =
        "name: e\nchannels: [conda-forge]\ndependencies:\n- small=1.2\n- cudatoolkit=11\n- pip:\n  - addition\n";
    let environment = world.build(conda_file).unwrap();
    assert_eq!(world.python(&environment, "import small; print(small.answer)"), "42\n");
    assert_eq!(world.shelf(), [environment.digest.as_str()]);
    // A directory doesn't tell how old its packages are.
    assert!(environment.warnings.iter().all(|warning| warning.contains("doesn't tell")), "{:?}", environment.warnings);
    let log = world.log_text("blue");
    for said in [
        "small=1.2: small==1.2.*",
        "cudatoolkit=11: left out",
        "azureml-inference-server-http is added",
        "small==1.2.3",
        "The environment is ready: ",
    ] {
        assert!(log.contains(said), "{said}");
    }
    let home = world.state.join("environments").join(&environment.digest);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.join("manifest.json")).unwrap()).unwrap();
    let installed = manifest["packages"].as_array().unwrap();
    for package in ["addition==2.0", "azureml-inference-server-http==1.5.0", "inner==1.0", "small==1.2.3"] {
        assert!(installed.contains(&package.into()), "{package} is not in {installed:?}");
    }
    assert_eq!(
        manifest["requirements"],
        serde_json::json!(["small==1.2.*", "addition", "azureml-inference-server-http"])
    );
    let modules = home.join("venv/lib");
    assert!(has_file(&modules, "small.cpython-"), "the modules are compiled");

    // The same content in another order is the same environment, in no time, even for a builder of a later run.
    let builder = world.builder();
    let again = "dependencies: [{pip: [addition]}, small=1.2, pip]";
    block_on(async {
        let first = builder.prepare(SCOPE, request(again), &world.log("green")).await.unwrap();
        assert_eq!(first, environment);
        let started = Instant::now();
        builder.prepare(SCOPE, request(again), &world.log("green")).await.unwrap();
        let elapsed = started.elapsed();
        println!("found again in {elapsed:?}");
        assert!(elapsed.as_millis() < 500, "{elapsed:?}");
    });
    assert!(world.log_text("green").contains("built earlier"));
}

fn has_file(dir: &Path, beginning: &str) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            has_file(&path, beginning)
        } else {
            entry.file_name().to_string_lossy().starts_with(beginning)
        }
    })
}

fn without_a_conda_file_there_is_a_default_environment() {
    let mut world = World::new();
    world.packages();
    let image = EnvironmentRequest { image: Some("registry.example/base:1".into()), ..EnvironmentRequest::default() };
    let environment = block_on(world.builder().prepare(SCOPE, image, &world.log("blue"))).unwrap();
    assert!(environment.warnings[0].contains("registry.example/base:1 is not used"));
    assert!(world.log_text("blue").contains("registry.example/base:1 is not used"));
    assert_eq!(world.python(&environment, "import azureml_inference_server_http; print('served')"), "served\n");
    let build = EnvironmentRequest { build: true, ..EnvironmentRequest::default() };
    let fault = block_on(world.builder().prepare(SCOPE, build, &world.log("blue"))).unwrap_err();
    assert!(fault.kind == FaultKind::NotImplemented && fault.message.contains("not available on this platform yet"));
}

fn what_the_index_lacks_is_named_with_the_choices() {
    let mut world = World::new();
    let packages = world.packages();
    for version in ["1.0", "1.4", "2.0", "3.0"] {
        packages.wheel("small", version, &[], "");
    }
    let cases = [
        ("dependencies:\n- small\n- nosuch=1.0\n", vec!["'nosuch=1.0' (line 3", "no package 'nosuch'", "pip:"]),
        ("dependencies:\n- small=1.7\n", vec!["'small=1.7' (line 2", "Versions it has: 1.4, 2.0, 3.0"]),
        ("dependencies: [{pip: [nosuch]}]", vec!["nosuch was not found", "last words"]),
        ("dependencies: [{pip: ['small==1.0', 'small>=2']}]", vec!["small==1.0", "last words"]),
        ("dependencies:\n- gcc\n", vec!["'gcc'", "a program"]),
        ("dependencies:\n- small==\n", vec!["line 2, column 3"]),
    ];
    for (conda_file, expected) in cases {
        let fault = world.build(conda_file).unwrap_err();
        assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Invalid, "ImageBuildFailure"));
        for words in expected {
            assert!(fault.message.contains(words), "{words:?} is not in: {}", fault.message);
        }
        assert!(world.shelf().is_empty(), "{:?}", world.shelf());
    }
}

/// Packages as they were published over the years: what `old` needs changed its ways later, without `old` saying so.
fn old_world() -> (World, Index) {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("old", "1.2.2", &["base>=1"], "");
    packages.wheel("old", "2.0.0", &["base>=2"], "");
    packages.wheel("base", "1.5", &[], "");
    packages.wheel("base", "2.0", &[], "");
    packages.wheel("later", "1.0", &["newthing"], "");
    packages.wheel("newthing", "1.0", &[], "");
    packages.wheel("demanding", "1.0", &["base>=2"], "");
    packages.wheel("setuptools", "82.0", &[], "");
    let published = [
        ("old-1.2.2", "2023-03-09T10:00:00Z"),
        ("base-1.5", "2023-03-09T20:00:00Z"),
        ("old-2.0.0", "2024-06-01T00:00:00Z"),
        ("base-2.0", "2024-06-01T00:00:00Z"),
        ("later-1.0", "2025-01-01T00:00:00Z"),
        ("newthing-1.0", "2025-01-01T00:00:00Z"),
        ("demanding-1.0", "2025-01-01T00:00:00Z"),
        ("azureml", "2025-06-01T00:00:00Z"),
        ("setuptools-60.0", "2022-01-01T00:00:00Z"),
        ("setuptools-82.0", "2025-06-01T00:00:00Z"),
    ];
    let index = Index::serve(packages.dir, &published, None);
    world.use_index(&index.url());
    (world, index)
}

fn free_packages_are_as_old_as_the_pinned_ones() {
    let (world, _index) = old_world();
    let installed = |conda_file: &str| {
        let environment = world.build(conda_file).unwrap();
        let code = "from importlib.metadata import version as v; print(v('old'), v('base'))";
        world.python(&environment, code).trim().to_owned()
    };
    // conda's Python brought setuptools along until 3.12, of the same age.
    let environment = world.build("dependencies: [old=1.2.2, 'python<3.13']").unwrap();
    let code = "from importlib.metadata import version; print(version('setuptools'))";
    assert_eq!(world.python(&environment, code), "60.0\n");
    // Pinned on conda's side; a newer one under pip: (free or pinned) doesn't drag the rest along.
    assert_eq!(installed("dependencies: [old=1.2.2]"), "1.2.2 1.5");
    assert!(world.log_text("blue").contains("taken as of 2023-03-09, when old 1.2.2 was published"));
    assert_eq!(installed("dependencies: [old=1.2.2, base]"), "1.2.2 1.5");
    assert_eq!(installed("dependencies: [old=1.2.2, {pip: [base, later==1.0]}]"), "1.2.2 1.5");
    assert_eq!(installed("dependencies: [old=1.2, {pip: [later]}]"), "1.2.2 1.5");
    // What is pinned is taken as it is, on either side.
    assert_eq!(installed("dependencies: [old=1.2.2, {pip: [base==2.0]}]"), "1.2.2 2.0");
    // Without conda's side, pip's side decides; without any pin, nothing is limited.
    assert_eq!(installed("dependencies: [{pip: [old==1.2.2]}]"), "1.2.2 1.5");
    assert_eq!(installed("dependencies: [old, base]"), "2.0.0 2.0");
    assert_eq!(installed("dependencies: [old>=1.0, {pip: ['azureml-inference-server-http==1.5.0']}]"), "2.0.0 2.0");
}

fn limits_of_age_give_way_when_nothing_fits() {
    let (world, _index) = old_world();
    let environment = world.build("dependencies: [old=1.2.2, {pip: [demanding==1.0]}]").unwrap();
    let code = "from importlib.metadata import version as v; print(v('old'), v('base'))";
    assert_eq!(world.python(&environment, code), "1.2.2 2.0\n");
    assert!(world.log_text("blue").contains("No set of versions is that old"));
    let environment = world.build("dependencies: [old=1.2.2, {pip: [demanding]}]").unwrap();
    assert_eq!(world.python(&environment, code), "1.2.2 2.0\n");
    assert!(environment.warnings[0].contains("newest versions are used"), "{:?}", environment.warnings);
    // A directory of packages doesn't tell when they were published.
    let mut world = World::new();
    world.packages().wheel("small", "1.0", &[], "");
    let environment = world.build("dependencies: [small=1.0]").unwrap();
    assert!(environment.warnings[0].contains("doesn't tell"), "{:?}", environment.warnings);
}

fn a_server_that_does_not_import_fails_the_build() {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("azureml_inference_server_http", "9.0", &[], "import missing_module");
    let fault = world.build("dependencies: []").unwrap_err();
    assert!(
        fault.message.contains("can't be imported") && fault.message.contains("missing_module"),
        "{}",
        fault.message
    );
    assert!(world.shelf().is_empty());
}

fn pythons_are_chosen_by_policy() {
    let mut world = World::new();
    world.packages();
    let fault = world.build("dependencies: [python=3.99]").unwrap_err();
    for words in [
        "python=3.99",
        "this machine has Python 3.",
        "--environment-python nearest",
        "install that Python",
        "uv could not fetch it",
    ] {
        assert!(fault.message.contains(words), "{words:?} is not in: {}", fault.message);
    }
    world.policy = PythonPolicy::Nearest;
    let environment = world.build("dependencies: [python=3.99]").unwrap();
    assert!(
        environment.warnings[0].contains("WARNING: the conda file asks for python=3.99"),
        "{:?}",
        environment.warnings
    );
    assert!(world.log_text("blue").contains("WARNING: the conda file asks for python=3.99"));
    let version = world.python(&environment, "import sys; print('%d.%d' % sys.version_info[:2])");
    // The interpreter that an open request gets can be asked for by name, too, and is the same environment's.
    world.policy = PythonPolicy::Exact;
    let exact = world.build(&format!("dependencies: [python={}]", version.trim())).unwrap();
    assert_eq!(world.python(&exact, "import sys; print('%d.%d' % sys.version_info[:2])"), version);
}

fn credentials_are_used_and_never_shown() {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("small", "1.0", &[], "");
    // robot:very-secret-word
    let index = Index::serve(packages.dir, &[], Some("Basic cm9ib3Q6dmVyeS1zZWNyZXQtd29yZA=="));
    let url = index.url().replace("http://", "http://robot:very-secret-word@");
    world.use_index(&url);
    let environment = world.build("dependencies: [small]").unwrap();
    let wrong = url.replace("very-secret-word", "another-secret-word");
    let fault = world.build(&format!("dependencies: [{{pip: [small, '--index-url {wrong}']}}]")).unwrap_err();
    let home = world.state.join("environments").join(&environment.digest);
    let manifest = std::fs::read_to_string(home.join("manifest.json")).unwrap();
    let shown = format!("{} {} {manifest} {:?}", world.log_text("blue"), fault, environment);
    for secret in ["very-secret-word", "another-secret-word"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn an_index_that_is_away_is_no_fault_of_the_file() {
    let mut world = World::new();
    world.use_index("http://127.0.0.1:9/simple");
    let fault = world.build("dependencies: [small]").unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(
        fault.message.contains("could not get the packages' data") && fault.message.contains("127.0.0.1:9"),
        "{}",
        fault.message
    );
}
