//! What must hold for whatever a user writes in a YAML file, an option or an ignore file, and for whatever a server
//! answers. The targets in `fuzz/` run these on raw bytes, the tests below on generated texts; each panics when a
//! promise is broken.

use std::path::PathBuf;

use casemate_model::{ResourceId, endpoint::EndpointSpec};
use serde_json::Value;

use crate::{
    artifact::IgnoreFile,
    entity::{
        AssetKind, AssetRef, Deployment, Document, Endpoint, Environment, Model, OutboundRule, Workspace, iso_from_ms,
        ms_from_iso,
    },
    envelope::{envelope, fault_from_answer, status_of},
    operation::Progress,
    yaml::{Node, apply_setting, parse},
};

/// A file is read or refused with its place; a tree survives its JSON; each entity is read or refused, and what is read
/// is what the platform takes.
pub fn file(text: &str, setting: &str) {
    let mut root = match parse(text, "t.yml") {
        Ok(root) => root,
        Err(fault) => {
            assert!(fault.code == "InvalidYaml" && fault.message.starts_with("t.yml:"), "{}", fault.message);
            return;
        }
    };
    survives_json(&root);
    if apply_setting(&mut root, setting).is_ok() {
        survives_json(&root);
    }
    answer_shown(&root.to_json());
    let document = Document { root, name: "t.yml".to_owned(), base: PathBuf::from("/nonexistent") };
    if let Ok(endpoint) = Endpoint::read(&document) {
        let body = endpoint.to_arm("local");
        let spec = EndpointSpec::from_properties(&body["properties"]).expect("the platform reads what is sent");
        let sent = endpoint.traffic.iter().flatten().filter(|(_, share)| **share > 0).count();
        assert_eq!(spec.traffic.len(), sent);
        let shown = Endpoint::show(&body, &[]);
        let again = Endpoint::read(&Document::from_shown(&shown, "t")).expect("what is shown is read back");
        assert_eq!(again.to_arm("local"), body, "{shown:#}");
    }
    let _ = Deployment::read(&document).map(|one| one.to_arm("l", &Default::default()));
    let _ = Model::read(&document).map(|one| one.to_arm("u", true));
    if let Ok(environment) = Environment::read(&document) {
        assert_eq!(environment.anonymous_version(None), environment.anonymous_version(None));
        let _ = environment.to_arm(None, true);
    }
    let _ = Workspace::read(&document).map(|one| (one.to_patch(), one.to_template("/g", "t", "n", "l")));
    let _ = OutboundRule::read(&document);
}

fn survives_json(root: &Node) {
    let json = root.to_json();
    assert_eq!(Node::from_json(&json).to_json(), json);
    let shown = json.to_string();
    // Longer than a file may be, or deeper or wider than a tree: then it is not a file.
    if let Ok(again) = parse(&shown, "t.json") {
        assert_eq!(again.to_json(), json, "{shown}");
    }
}

fn answer_shown(answer: &Value) {
    let _ = (Endpoint::show(answer, &["blue".to_owned()]), Deployment::show(answer), Model::show(answer));
    let _ = (Environment::show(answer), Workspace::show(answer), OutboundRule::show("n", answer));
    let _ = Progress::from_body(answer);
}

/// A server's answer becomes a fault that says something, and survives its own envelope.
pub fn answer(status: u16, body: &[u8]) {
    let fault = fault_from_answer(status, body);
    assert!(!fault.code.is_empty() || body.contains(&b'"'), "{fault:?}");
    let again = fault_from_answer(status_of(&fault), envelope(&fault).to_string().as_bytes());
    assert_eq!((&again.code, &again.message, &again.target), (&fault.code, &fault.message, &fault.target));
    if let Ok(body) = serde_json::from_slice::<Value>(body) {
        answer_shown(&body);
    }
}

/// A reference that is accepted says the same when it is written out.
pub fn reference(text: &str) {
    for kind in [AssetKind::Model, AssetKind::Environment, AssetKind::Code] {
        let Ok(read) = AssetRef::parse(text, kind) else { continue };
        let shown = match &read {
            AssetRef::Id(id) => {
                assert!(ResourceId::parse(id).is_ok(), "{id}");
                id.clone()
            }
            AssetRef::Registry(uri) => uri.clone(),
            AssetRef::Version { name, version } => format!("azureml:{name}:{version}"),
            AssetRef::Label { name, label } => format!("azureml:{name}@{label}"),
        };
        assert_eq!(AssetRef::parse(&shown, kind), Ok(read), "{text}");
    }
    if let Some(ms) = ms_from_iso(text) {
        assert_eq!(ms_from_iso(&iso_from_ms(ms)), Some(ms), "{text}");
    }
}

/// An ignore file is read or refused with its line, and answers for every path.
pub fn ignore_file(text: &str, path: &str) {
    match IgnoreFile::parse(text, "f") {
        Ok(file) => {
            let excluded = file.excludes(path);
            // One more line decides alone.
            let all = IgnoreFile::parse(&format!("{text}\n**"), "f").expect("a good line after good ones");
            assert!(path.is_empty() || path.starts_with('/') || all.excludes(path), "{path} is not in everything");
            let none = IgnoreFile::parse(&format!("{text}\n!**"), "f").expect("a good line after good ones");
            assert!(path.is_empty() || !none.excludes(path), "{path}, excluded before: {excluded}");
        }
        Err(fault) => assert!(fault.code == "InvalidIgnoreFile" && fault.message.starts_with("f:"), "{fault}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

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
            "auth_mode",
            "key",
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
            "0x1f",
            "0o7",
            ".inf",
            "1_000",
            "+1",
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
            "\u{2028}",
            "\u{85}",
        ]);
        prop_oneof![4 => prop::collection::vec(words, 0..40).prop_map(|words| words.concat()), 1 => any::<String>()]
    }

    /// Endpoints of which most fields are right.
    fn endpoint() -> impl Strategy<Value = String> {
        let line = prop::sample::select(vec![
            "auth_mode: aml_token",
            "description: 1",
            "tags: {a: b, c: 1}",
            "properties: {p: q, createdBy: x}",
            "traffic: {blue: 100, green: 0}",
            "mirror_traffic: {green: 10}",
            "public_network_access: disabled",
            "identity: {type: system_assigned}",
            "compute: azureml:k",
            "identity:\n  type: user_assigned\n  user_assigned_identities:\n    - resource_id: /subscriptions/s/x",
            "auth_mode: ~",
            "traffic: {}",
        ]);
        prop::collection::vec(line, 0..5).prop_map(|lines| format!("name: ep\n{}\n", lines.join("\n")))
    }

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(cases(250))]

        #[test]
        fn files(text in yamlish(), endpoint in endpoint(), setting in yamlish(), likely in "[a-z]{0,3}(\\.[a-z]{1,3}|\\[[0-9]{1,2}\\]|\\\\.|\\[\"x.y\"\\]){0,3}=[a-z0-9\"{}:\\[\\],. ]{0,8}") {
            file(&text, &setting);
            file(&text, &likely);
            file(&endpoint, &likely);
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
        fn answers(status in 100_u16..600, body in "(\\{\"error\":)?\\{(\"(code|message|target)\":\"[a-z]{0,3}\",?){0,3}\\}?\\}?", odd in "\\PC{0,20}") {
            answer(status, body.as_bytes());
            answer(status, odd.as_bytes());
        }

        #[test]
        fn references(text in "(azureml:)?(//registries/)?[a-zA-Z0-9._-]{0,6}[:@/]?[a-z0-9.]{0,5}", duration in "-?P?T?([0-9]{1,20}[HMS.]?){0,3}", odd in "\\PC{0,12}") {
            reference(&text);
            reference(&duration);
            reference(&odd);
        }
    }

    proptest! {
        // Regular expressions are slow without optimization.
        #![proptest_config(cases(80))]

        #[test]
        fn ignore_files(lines in prop::collection::vec("!?/?[ab*?\\[\\]\\\\!-]{0,5}(/(\\*\\*|[ab*]{1,2})){0,2}/?", 0..4), path in "[ab]{1,2}(/[ab-]{1,2}){0,2}", odd in "\\PC{0,12}") {
            ignore_file(&lines.join("\n"), &path);
            ignore_file(&odd, &path);
        }
    }
}
