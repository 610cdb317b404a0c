//! No text from outside, however odd, makes a parser panic or run away.

use std::path::PathBuf;

use casemate_wire::{
    artifact::IgnoreFile,
    entity::{
        AssetKind, AssetRef, Deployment, Document, Endpoint, Environment, Model, OutboundRule, Workspace, ms_from_iso,
    },
    yaml::{apply_setting, parse},
};
use proptest::prelude::*;

/// Texts that look like YAML often enough to get deep into it.
fn yamlish() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "name",
        "model",
        "environment",
        "code_configuration",
        "traffic",
        "tags",
        "identity",
        "managed_network",
        "outbound_rules",
        "type",
        "destination",
        "scale_settings",
        "path",
        "image",
        "conda_file",
        ": ",
        ":\n  ",
        "\n",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "&a ",
        "*a",
        "<<",
        "'",
        "\"",
        "|\n ",
        "#",
        "!!str ",
        "1",
        "-7",
        "1e999",
        "true",
        "~",
        "azureml:m:1",
        "/subscriptions/s",
        "é",
        "\t",
        "---\n",
        "%YAML 1.2\n",
        "\u{feff}",
        "\u{0}",
    ]);
    prop_oneof![prop::collection::vec(words, 0..40).prop_map(|words| words.concat()), any::<String>(),]
}

proptest! {
    #[test]
    fn yaml_and_every_entity(text in yamlish(), setting in yamlish()) {
        if let Ok(mut root) = parse(&text, "t.yml") {
            let _ = apply_setting(&mut root, &setting);
            let _ = root.to_json();
            let document = Document { root, name: "t.yml".to_owned(), base: PathBuf::from("/nonexistent") };
            let _ = Endpoint::read(&document).map(|one| one.to_arm("l"));
            let _ = Deployment::read(&document).map(|one| one.to_arm("l", &Default::default()));
            let _ = Model::read(&document).map(|one| one.to_arm("u", true));
            let _ = Environment::read(&document).map(|one| (one.to_arm(None, true), one.anonymous_version(None)));
            let _ = Workspace::read(&document).map(|one| (one.to_patch(), one.to_template("/g", "t", "n", "l")));
            let _ = OutboundRule::read(&document);
        }
    }

    #[test]
    fn settings_keep_the_value_that_they_set(key in "[a-z]{1,8}", inner in "[a-z]{1,8}", value in "[a-zA-Z0-9 =.,/-]{1,20}") {
        prop_assume!(!value.eq_ignore_ascii_case("null"));
        let mut root = parse("", "t.yml").expect("an empty file is fine");
        apply_setting(&mut root, &format!("{key}.{inner}={value}")).expect("a plain path fits");
        let set = root.get(&key).and_then(|node| node.get(&inner)).and_then(|node| node.as_written());
        prop_assert_eq!(set, Some(value.as_str()));
    }

    #[test]
    fn references_patterns_durations(text in any::<String>()) {
        for kind in [AssetKind::Model, AssetKind::Environment, AssetKind::Code] {
            let _ = AssetRef::parse(&text, kind);
        }
        if let Ok(file) = IgnoreFile::parse(&text, "f") {
            let _ = file.excludes(&text);
        }
        let _ = ms_from_iso(&text);
    }

    #[test]
    fn what_the_server_answers_is_shown_without_a_panic(text in yamlish()) {
        if let Ok(root) = parse(&text, "t.yml") {
            let value = root.to_json();
            let _ = (Endpoint::show(&value, &[]), Deployment::show(&value), Model::show(&value));
            let _ = (Environment::show(&value), Workspace::show(&value), OutboundRule::show("n", &value));
        }
    }
}
