//! `$filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_api::fuzz::filter(text));
