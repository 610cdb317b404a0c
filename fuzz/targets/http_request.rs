//! What a client says first on port 80.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_egress::fuzz::http_request(bytes));
