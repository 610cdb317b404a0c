//! What is shown as a token, signed or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    casemate_identity::fuzz::token(&String::from_utf8_lossy(bytes));
    casemate_identity::fuzz::claims(bytes);
    if let [high, low, byte, ..] = bytes {
        casemate_identity::fuzz::changed(usize::from(u16::from_be_bytes([*high, *low])), *byte);
    }
});
