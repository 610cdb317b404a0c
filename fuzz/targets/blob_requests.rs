//! Storage requests, one after the other, to a store on disk; their headers and block lists also by themselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    casemate_blob::fuzz::headers(script);
    casemate_blob::fuzz::block_list(script);
    casemate_blob::fuzz::requests(script);
});
