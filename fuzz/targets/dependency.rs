//! One dependency: a match spec of conda, a line of pip, a version.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    casemate_runtime::fuzz::match_spec(text);
    casemate_runtime::fuzz::pip_line(text);
    casemate_runtime::fuzz::version(text);
});
