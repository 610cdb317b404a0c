//! pip's configuration files.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_runtime::fuzz::configuration(text));
