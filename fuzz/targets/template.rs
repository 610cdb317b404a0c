//! Whole templates as JSON, with their parameters.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| casemate_api::fuzz::template(json));
