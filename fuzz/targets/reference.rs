//! References to assets, durations.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_wire::fuzz::reference(text));
