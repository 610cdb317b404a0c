//! The parts of outbound rules (hosts, patterns, ports, prefixes) on one line, and a host's name on the next.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (part, name) = text.split_once('\n').unwrap_or((text, text));
    casemate_model::egress::fuzz::host_name(part);
    casemate_model::egress::fuzz::rule_parts(part, name);
});
