//! A server's answers: a status in the first two bytes, then the body.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let [high, low, body @ ..] = bytes {
        casemate_wire::fuzz::answer(u16::from_be_bytes([*high, *low]), body);
    }
});
