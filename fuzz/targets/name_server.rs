//! What a client of the DNS server may send.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    casemate_dns::fuzz::packet(bytes);
});
