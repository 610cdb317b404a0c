//! Pages of a package index.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| casemate_runtime::fuzz::index_page(json));
