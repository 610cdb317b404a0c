//! Conda files.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_runtime::fuzz::conda_file(text));
