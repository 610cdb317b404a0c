//! The `properties` of endpoints, deployments and assets as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| casemate_model::fuzz::properties(json));
