//! Resource ids and names.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    casemate_model::fuzz::resource_id(text);
    casemate_model::fuzz::serving_name(text);
});
