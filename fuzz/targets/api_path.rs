//! Paths and queries of the management API, as GET and POST.
#![no_main]

libfuzzer_sys::fuzz_target!(|path: &str| {
    for method in [http::Method::GET, http::Method::POST] {
        casemate_api::fuzz::path(&method, path);
    }
});
