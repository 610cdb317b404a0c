//! Expressions of templates.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_api::fuzz::expression(text));
