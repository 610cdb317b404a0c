//! Certificates and keys that somebody brings.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    casemate_pki::fuzz::custom(bytes);
    if let [high, low, byte, ..] = bytes {
        casemate_pki::fuzz::custom_changed(usize::from(u16::from_be_bytes([*high, *low])), *byte);
    }
});
