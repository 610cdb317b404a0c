//! The arrows between rooms: the table in ARCHITECTURE.md against the manifests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::Problem;
use crate::project::Package;

/// Each room and the rooms that it may depend on.
pub type Table = BTreeMap<String, BTreeSet<String>>;

/// What helps to build and test the rooms, and is no room: no room may depend on it but in its tests.
const HELPERS: &[&str] = &["testkit", "xtask"];

/// Reads the lines `room -> room, room` in the block that opens with "```arrows".
pub fn parse(architecture: &str, problems: &mut Vec<Problem>) -> Table {
    let mut table = Table::new();
    let mut inside = false;
    for (index, line) in architecture.lines().enumerate() {
        if line.starts_with("```") {
            inside = line.trim_end() == "```arrows";
        } else if inside && !line.trim().is_empty() {
            let Some((room, needed)) = line.split_once("->") else {
                problems.push(problem(Some(index + 1), "is not of the form 'room -> room, room'"));
                continue;
            };
            let needed = needed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
            table.insert(room.trim().to_owned(), needed.collect());
        }
    }
    if table.is_empty() {
        problems.push(problem(None, "holds no block that opens with ```arrows"));
    }
    table
}

/// Finds what the table and the manifests say differently, and manifests without the workspace's lints.
pub fn compare(table: &Table, root: &Path, packages: &[Package], problems: &mut Vec<Problem>) {
    for package in packages {
        let room = package.room();
        let (own, of_tests) = (package.rooms_needed(false), package.rooms_needed(true));
        let mut told = |what: String| {
            let path = package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path);
            problems.push(Problem { path: path.to_owned(), line: None, what });
        };
        if room != "sandbox" && !has_workspace_lints(&package.manifest_path) {
            told("does not take the workspace's lints: add '[lints]' with 'workspace = true'".to_owned());
        }
        if HELPERS.contains(&room) {
            continue;
        }
        let Some(allowed) = table.get(room) else {
            told(format!("the room '{room}' is not in the arrows of ARCHITECTURE.md"));
            continue;
        };
        let allows = |name: &&str| allowed.contains(*name);
        for needed in own.iter().filter(|name| !allows(name)) {
            told(format!("depends on '{needed}', against the arrows of ARCHITECTURE.md"));
        }
        for needed in of_tests.iter().filter(|name| !allows(name) && !HELPERS.contains(name)) {
            told(format!("its tests depend on '{needed}', against the arrows of ARCHITECTURE.md"));
        }
        for unused in allowed.iter().filter(|name| !own.contains(name.as_str()) && !of_tests.contains(name.as_str())) {
            told(format!("does not depend on '{unused}', but the arrows of ARCHITECTURE.md say so"));
        }
    }
    for room in table.keys().filter(|room| packages.iter().all(|package| package.room() != *room)) {
        problems.push(problem(None, &format!("names the room '{room}', which no crate is")));
    }
}

fn has_workspace_lints(manifest: &Path) -> bool {
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let mut lines = text.lines().skip_while(|line| line.trim() != "[lints]").skip(1);
    lines.next().is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

fn problem(line: Option<usize>, what: &str) -> Problem {
    Problem { path: "ARCHITECTURE.md".into(), line, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LINTED: &str = "[package]\n\n[lints]\nworkspace = true\n";

    /// Name, dependencies as (name, kind), manifest.
    type Wanted<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)], &'a str);

    /// Packages in a directory of their own.
    fn packages(dir: &Path, wanted: &[Wanted]) -> Vec<Package> {
        let package = |(name, needed, manifest): &Wanted| {
            let path = dir.join("crates").join(name).join("Cargo.toml");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, manifest).unwrap();
            let needed: Vec<_> =
                needed.iter().map(|(name, kind)| json!({"name": name, "kind": kind, "path": "/x"})).collect();
            let outside = json!({"name": "serde", "kind": null, "path": null});
            let needed = [needed, vec![outside]].concat();
            let shape = json!({"name": name, "manifest_path": path, "dependencies": needed, "targets": []});
            serde_json::from_value(shape).unwrap()
        };
        wanted.iter().map(package).collect()
    }

    #[test]
    fn the_table_is_the_fenced_block_alone() {
        let mut problems = Vec::new();
        let text = "a -> b\n```arrows\nmodel  ->\nserver -> api, model\n\nwrong\n```\nc -> d\n```text\ne -> f\n```\n";
        let table = parse(text, &mut problems);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["model", "server"]);
        assert_eq!(table["server"].iter().collect::<Vec<_>>(), ["api", "model"]);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [Some(6)]);
        parse("no block", &mut problems);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn manifests_and_table_must_agree() {
        let dir = tempfile::tempdir().unwrap();
        let table = parse("```arrows\nmodel ->\nstore -> model\nserver -> store, model\n```\n", &mut Vec::new());
        let model = ("casemate-model", &[][..], LINTED);
        let store = ("casemate-store", &[("casemate-model", None), ("casemate-testkit", Some("dev"))][..], LINTED);
        let server = ("casemate", &[("casemate-store", Some("dev")), ("casemate-model", Some("build"))][..], LINTED);
        let kit = ("casemate-testkit", &[("casemate-store", None)][..], LINTED);
        let count = |wanted: &[_]| {
            let mut problems = Vec::new();
            compare(&table, dir.path(), &packages(dir.path(), wanted), &mut problems);
            problems
        };
        assert_eq!(count(&[model, store, server, kit]), []);
        let table = [
            (
                "an arrow against the table",
                vec![("casemate-model", &[("casemate-store", None)][..], LINTED), store, server],
            ),
            (
                "one of a build script",
                vec![("casemate-model", &[("casemate-store", Some("build"))][..], LINTED), store, server],
            ),
            ("one of tests", vec![("casemate-model", &[("casemate-store", Some("dev"))][..], LINTED), store, server]),
            ("a stale arrow", vec![model, ("casemate-store", &[][..], LINTED), server]),
            ("an unknown room", vec![model, store, server, ("casemate-new", &[][..], LINTED)]),
            ("a missing room", vec![model, store]),
            (
                "a helper in a room",
                vec![
                    model,
                    store,
                    server,
                    ("casemate-testkit", &[][..], LINTED),
                    ("casemate-model", &[("casemate-testkit", None)][..], LINTED),
                ],
            ),
            (
                "no lints",
                vec![("casemate-model", &[][..], "[package]\n[lints.rust]\nworkspace = true\n"), store, server],
            ),
        ];
        for (what, wanted) in table {
            assert_eq!(count(&wanted).len(), 1, "{what}: {:?}", count(&wanted));
        }
    }
}
