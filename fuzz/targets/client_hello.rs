//! What a client says first on port 443, cut into pieces as long as the first byte says.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((cut, bytes)) = bytes.split_first() {
        casemate_egress::fuzz::client_hello(bytes, usize::from(*cut));
    }
});
