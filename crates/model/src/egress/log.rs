//! One decision as the log keeps it.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HostName;

/// One decision of the gateway: who asked for what, what was decided and why, and how much went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// When it was decided.
    pub time: Timestamp,
    /// The deployment whose instance asked.
    pub deployment: String,
    /// The instance that asked.
    pub instance: String,
    /// The host's name, when it was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address that was asked for, or that the name led to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port; 0 when only the name was asked for.
    pub port: u16,
    /// `tcp`, `dns`, `http` or `metadata`.
    pub protocol: String,
    /// Whether it was let through.
    pub allowed: bool,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// Bytes from the sandbox to the destination.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Bytes from the destination to the sandbox.
    #[serde(default)]
    pub bytes_received: u64,
    /// Learn mode only: the rules would have refused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub would_deny: bool,
}

impl LogEntry {
    /// The entry as one line of JSON in ASCII, without its line end: whatever a model put into a name, nothing in it
    /// moves a terminal's cursor or starts another line.
    #[must_use]
    pub fn line(&self) -> String {
        // A struct of strings and numbers has a JSON form.
        let json = serde_json::to_string(self).unwrap_or_default();
        if json.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return json;
        }
        let mut line = String::with_capacity(json.len() + 16);
        for c in json.chars() {
            if matches!(c, ' '..='~') {
                line.push(c);
            } else {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        line
    }

    /// Reads what [`LogEntry::line`] wrote.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The name asked for, when it is one.
    #[must_use]
    pub fn host(&self) -> Option<HostName> {
        HostName::parse(self.name.as_deref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ascii_and_back() {
        let entry = LogEntry {
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
            deployment: "blue".into(),
            instance: "blue-0".into(),
            name: Some("a\n{\"allowed\":true}\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{1f600}".into()),
            address: Some("1.2.3.4".parse().unwrap()),
            port: 443,
            protocol: "tcp".into(),
            allowed: false,
            rule: None,
            reason: "No rule \"approves\" it.\r\n".into(),
            bytes_sent: 1,
            bytes_received: u64::MAX,
            would_deny: false,
        };
        let line = entry.line();
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
        assert!(line.contains("\"bytesSent\":1") && line.contains("\\u001b[2J\\u007f\\u009b\\u202e"), "{line}");
        assert_eq!(LogEntry::from_line(&line), Some(entry));
        assert_eq!(LogEntry::from_line("{}"), None);
    }
}
