//! Milliseconds in YAML, ISO 8601 durations on the wire.

use jiff::SignedDuration;

/// `5000` → `PT5S`, `1500` → `PT1.5S`.
#[must_use]
pub fn iso_from_ms(ms: u64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    if rest == 0 {
        return format!("PT{seconds}S");
    }
    let fraction = format!("{rest:03}");
    format!("PT{seconds}.{}S", fraction.trim_end_matches('0'))
}

/// The other way; none for anything that is no duration from 0 up.
#[must_use]
pub fn ms_from_iso(text: &str) -> Option<u64> {
    let duration: SignedDuration = text.parse().ok()?;
    u64::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (ms, iso) in [(0, "PT0S"), (5000, "PT5S"), (500, "PT0.5S"), (90_001, "PT90.001S"), (1_500, "PT1.5S")] {
            assert_eq!(iso_from_ms(ms), iso);
            assert_eq!(ms_from_iso(iso), Some(ms));
        }
        assert_eq!(ms_from_iso("PT1M30S"), Some(90_000));
        for bad in ["", "5000", "-PT1S", "PT"] {
            assert_eq!(ms_from_iso(bad), None, "{bad}");
        }
    }
}
