//! Ignore files; the last line is a path.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (file, path) = text.rsplit_once('\n').unwrap_or((text, ""));
    casemate_wire::fuzz::ignore_file(file, path);
});
