//! What a request is addressed to: the TLS server name, the target and the hosts, each on a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|lines: &[u8]| {
    let mut lines = lines.split(|byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(lines.next().unwrap_or_default()).unwrap_or_default();
    let (server_name, uri) = (text(), text());
    let server_name = Some(server_name).filter(|name| !name.is_empty());
    casemate_proxy::fuzz::address(server_name, uri, &lines.take(3).collect::<Vec<_>>());
});
