//! Names, certificates, keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    casemate_pki::fuzz::names(&String::from_utf8_lossy(bytes));
    casemate_pki::fuzz::certificate(bytes);
    if let [high, low, byte, ..] = bytes {
        casemate_pki::fuzz::changed(usize::from(u16::from_be_bytes([*high, *low])), *byte);
    }
});
