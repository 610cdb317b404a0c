//! YAML files of entities; the last line is a `--set` argument.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (file, setting) = text.rsplit_once('\n').unwrap_or((text, ""));
    casemate_wire::fuzz::file(file, setting);
});
