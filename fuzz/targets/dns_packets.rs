//! Packets that a sandbox sends to port 53, each behind its length in one byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (mut rest, mut packets) = (bytes, Vec::new());
    while let Some((length, bytes)) = rest.split_first() {
        let (packet, others) = bytes.split_at(bytes.len().min(usize::from(*length)));
        packets.push(packet);
        rest = others;
    }
    casemate_egress::fuzz::dns_packets(&packets);
});
