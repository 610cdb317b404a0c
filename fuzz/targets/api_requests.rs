//! Requests to the management API, one after the other, over a real store.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| casemate_api::fuzz::requests(script));
