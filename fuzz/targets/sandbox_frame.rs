//! What travels over the helper's socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_sandbox::fuzz::frame(bytes));
