//! What a model process prints, and answers to a probe.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_runtime::fuzz::output(bytes));
