//! The operator's file of service tags, and lines of the decision log.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| casemate_model::egress::fuzz::tags_and_lines(text));
