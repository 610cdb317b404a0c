//! What must hold for whatever a conda file, pip's configuration or a package index says. The targets in `fuzz/` run
//! these on raw bytes, the tests below on generated texts; each panics when a promise is broken.

use std::collections::BTreeMap;

use url::Url;

use super::{
    EnvironmentRequest,
    index_settings::merge_ini,
    mask::{Mask, mask_urls},
    match_spec::MatchSpec,
    pip_line::{PipLine, PipRequirement},
    plan::Plan,
    simple_index::{Page, platform_rank, wheel},
    version::{compare, is_pep440, release_of},
};

/// A conda file becomes a plan or a refusal; the plan's lines are single requirements, and the same each time.
pub fn conda_file(text: &str) {
    let request = EnvironmentRequest { conda_file: Some(text.to_owned()), ..EnvironmentRequest::default() };
    let plan = match Plan::new(&request) {
        Ok(plan) => plan,
        Err(fault) => {
            assert_eq!(fault.code, "ImageBuildFailure");
            assert_eq!(mask_urls(&fault.message), fault.message, "a message shows credentials");
            return;
        }
    };
    assert_eq!(Plan::new(&request).as_ref(), Ok(&plan));
    for said in plan.notes.iter().chain(&plan.warnings) {
        assert_eq!(&mask_urls(said), said, "the log shows credentials");
    }
    plan.requirements().for_each(requirement);
    for conda in &plan.conda {
        let line = PipLine::parse(&conda.requirement.text);
        assert_eq!(line, Ok(Some(PipLine::Requirement(conda.requirement.clone()))), "of {}", conda.origin);
    }
    assert!(plan.options.iter().all(|option| !matches!(option.value, PipLine::Requirement(_))));
    if let Some((specifier, _)) = &plan.python {
        let _ = (specifier.admits(&[3, 12, 1]), specifier.is_pin());
    }
    // What tells two environments apart is in the normalized text, one requirement a line.
    let lines = plan.normalized().lines().count();
    assert!(lines <= 7 + plan.requirements().count() + plan.options.len(), "{}", plan.normalized());
}

/// A requirement is handed to the installer as one line, which must not be an option or more than one line to it.
fn requirement(requirement: &PipRequirement) {
    let PipRequirement { name, text, .. } = requirement;
    let breaks = |c: char| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.contains(breaks) && !text.starts_with('-') && !text.starts_with('#'), "{text:?}");
    assert_eq!(text.trim(), text);
    assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
}

/// One dependency of conda: what it says of versions, the index understands in the same sense.
pub fn match_spec(text: &str) {
    let Ok(spec) = MatchSpec::parse(text) else { return };
    assert!(!spec.name.is_empty() && spec.name == spec.name.to_ascii_lowercase());
    let Ok(specifier) = spec.specifier() else { return };
    for clause in &specifier.0 {
        version(&clause.version);
        assert!(is_pep440(&clause.version), "{text}: {clause}");
    }
    // Names that only conda can have are refused here.
    if let Ok(Some(PipLine::Requirement(read))) = PipLine::parse(&format!("{}{specifier}", spec.name)) {
        assert_eq!(read, PipRequirement::new(&spec.name, &specifier), "{text}");
        requirement(&read);
    }
}

/// One line under `pip:`: what is accepted is accepted again as it will be written.
pub fn pip_line(line: &str) {
    let Ok(Some(read)) = PipLine::parse(line) else { return };
    match &read {
        PipLine::Requirement(one) => {
            requirement(one);
            assert_eq!(PipLine::parse(&one.text), Ok(Some(read.clone())), "{line:?}");
        }
        PipLine::IndexUrl(url) | PipLine::ExtraIndexUrl(url) | PipLine::FindLinks(url) => {
            let parsed = Url::parse(url).expect("an address was checked");
            assert!(matches!(parsed.scheme(), "http" | "https"), "{line:?}");
            assert!(!url.contains(char::is_control), "{line:?}");
            let (shown, mask) = (mask_urls(url), Mask::of_urls([url.as_str()]));
            if let Some(password) = parsed.password().filter(|password| password.len() > 5) {
                // What follows the host may say the same by chance.
                assert!(shown.split_once("://").is_some_and(|(_, rest)| rest.starts_with("****@")), "{shown}");
                assert!(!mask.apply(&format!("said {password}")).contains(password), "{url}");
            }
            assert_eq!(mask_urls(&shown), shown);
        }
        PipLine::TrustedHost(host) => assert!(!host.is_empty() && !host.contains(char::is_whitespace)),
        PipLine::NoIndex | PipLine::PreReleases => {}
    }
}

/// A version is compared by its numbers; each equals itself.
pub fn version(text: &str) {
    let release = release_of(text);
    assert!(compare(&release, &release).is_eq());
    assert!(!is_pep440(text) || !release.is_empty(), "{text}");
}

/// A page of a package index: the wheels it gives have plain names and addresses on the web.
pub fn index_page(json: &[u8]) {
    let Ok(page) = serde_json::from_slice::<Page>(json) else { return };
    let at = Url::parse("https://index.example/simple/uv/").expect("a plain address");
    for wheel in page.files.into_iter().filter_map(|file| wheel(file, "uv", &at)) {
        assert!(!wheel.filename.contains(['/', '\\', '\0']) && !wheel.filename.starts_with('.'), "{}", wheel.filename);
        assert!(is_pep440(&wheel.version) && !release_of(&wheel.version).is_empty(), "{}", wheel.version);
        assert!(matches!(wheel.url.scheme(), "http" | "https"), "{}", wheel.url);
        let _ = platform_rank(&wheel.filename);
    }
}

/// pip's configuration file: keys are in pip's spelling, and reading it anew changes nothing.
pub fn configuration(text: &str) {
    let mut values = BTreeMap::new();
    merge_ini(text, &mut values);
    assert!(values.keys().all(|key| *key == key.trim().to_ascii_lowercase().replace('_', "-")), "{values:?}");
    let before = values.clone();
    merge_ini(text, &mut values);
    assert_eq!(values, before);
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn words(of: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(of), 0..most).prop_map(|words| words.concat())
    }

    fn spec() -> impl Strategy<Value = String> {
        let likely = words(
            &[
                "numpy",
                "conda-forge",
                "::",
                "=",
                "==",
                ">=",
                "<",
                "~=",
                "!=",
                "1.2",
                "2.0a0",
                "*",
                ".*",
                ",",
                "|",
                " ",
                "py_0",
                "[",
                "]",
                "version",
                "build",
                "'",
                "\"",
                "-",
                "_",
                ".",
                " #",
                "1!1",
                "+cpu",
                ".dev0",
                "é",
            ],
            8,
        );
        prop_oneof![4 => likely.prop_map(|tail| format!("numpy{tail}")), 1 => "\\PC{0,12}"]
    }

    fn line() -> impl Strategy<Value = String> {
        let likely = words(
            &[
                "six",
                "-i",
                "--index-url",
                "--extra-index-url",
                "--find-links",
                "--trusted-host",
                "--pre",
                "-e",
                "=",
                "==",
                " ",
                "\u{a0}",
                "\t",
                "\u{2028}",
                "\u{b}",
                "https://",
                "u:pass-word@",
                "example.org/",
                "[a,b]",
                "(",
                ")",
                ";",
                "1.0",
                "rc1",
                ".*",
                "===",
                "~=",
                ",",
                "@",
                " @ ",
                "#",
                " #",
                "python_version",
                "<'3'",
                "é",
                "_",
                ".",
            ],
            8,
        );
        let option = prop::sample::select(vec![
            "-i",
            "--index-url",
            "--extra-index-url",
            "-f",
            "--trusted-host",
            "--pre",
            "-e",
            "-r",
        ]);
        let gap = prop::sample::select(vec![" ", "=", "  ", "\u{a0}", "\t", "", "\u{2003}"]);
        let value =
            words(&["https://", "u:pass-word@", "example.org", "/simple", "file:", "\u{2028}", " ", "#", "@", "é"], 5);
        let option = (option, gap, value).prop_map(|(option, gap, value)| format!("{option}{gap}{value}"));
        let six = words(
            &[
                "==1.0",
                ">=1",
                ",<2",
                "[a,b]",
                " ",
                "\u{b}",
                "\u{2028}",
                "\u{85}",
                ";",
                "python_version<'3'",
                " # c",
                "@ https://h/x",
                "(",
                ")",
                " --pre",
                "é",
            ],
            4,
        );
        prop_oneof![2 => likely, 2 => option, 2 => six.prop_map(|tail| format!("six{tail}")), 1 => "\\PC{0,12}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 800, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn dependencies(spec in spec(), line in line(), number in "[0-9a-z.!+_-]{0,12}") {
            match_spec(&spec);
            pip_line(&line);
            version(&number);
        }

        #[test]
        fn conda_files(specs in prop::collection::vec(spec(), 0..3), lines in prop::collection::vec(line(), 0..3)) {
            let quoted = |text: &String| serde_json::to_string(text).unwrap();
            let specs: String = specs.iter().map(|text| format!("- {}\n", quoted(text))).collect();
            let lines: String = lines.iter().map(|text| format!("  - {}\n", quoted(text))).collect();
            conda_file(&format!("channels: [\"https://u:pass-word@h/c\"]\ndependencies:\n{specs}- pip:\n{lines}"));
        }

        #[test]
        fn other_texts(yaml in words(&["dependencies:", "\n", "- ", "pip", ":", "name", " ", "[", "]", "{", "}", "&a", "*a", "|", "!!str", "\t", "1"], 12),
            ini in words(&["[global]", "[install]", "\n", "index-url", "index_url", "=", ":", " ", "#", "x", "[", "]"], 12)) {
            conda_file(&yaml);
            configuration(&ini);
        }

        #[test]
        fn index_pages(name in "(uv|UV|\\.\\.|/)-[0-9.]{1,5}-py3-none-(any|manylinux_2_17_x86_64|x/y)\\.whl", url in "(\\.\\./|https?://h|ftp://h|//h)?/?[a-z]{0,3}", yanked in any::<bool>()) {
            let page = serde_json::json!({"files": [{"filename": name, "url": url, "hashes": {"sha256": "0"}, "yanked": yanked}]});
            index_page(page.to_string().as_bytes());
        }
    }
}
