//! Private DNS zones and their record sets.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::{fault::Fault, id::ResourceId};

/// Most values of one record set.
const MAX_VALUES: usize = 20;
/// The longest text of one TXT record, in bytes.
const MAX_TEXT: usize = 1024;
/// The longest time to live, in seconds: DNS has 31 bits for it.
const MAX_TTL: u64 = (1 << 31) - 1;
/// The time to live when none is given, in seconds.
const USUAL_TTL: u32 = 3600;

/// The types of records that a private zone can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    A,
    Aaaa,
    Cname,
    Mx,
    Ptr,
    Srv,
    Txt,
}

impl RecordKind {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Ptr, Self::Srv, Self::Txt];

    /// Reads the word in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(word))
    }

    /// The word in ids and on the wire, such as `AAAA`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }

    /// The property that holds the values of this kind.
    #[must_use]
    pub fn property(self) -> &'static str {
        match self {
            Self::A => "aRecords",
            Self::Aaaa => "aaaaRecords",
            Self::Cname => "cnameRecord",
            Self::Mx => "mxRecords",
            Self::Ptr => "ptrRecords",
            Self::Srv => "srvRecords",
            Self::Txt => "txtRecords",
        }
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Lower is asked first.
    pub priority: u16,
    /// Share among equals.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its host.
    pub target: String,
}

/// The values of a record set. Names in it are lower-case and have no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordData {
    A(Vec<Ipv4Addr>),
    Aaaa(Vec<Ipv6Addr>),
    Cname(String),
    /// Preference and exchange.
    Mx(Vec<(u16, String)>),
    Ptr(Vec<String>),
    Srv(Vec<ServiceRecord>),
    /// Strings of at most 255 bytes for each record.
    Txt(Vec<Vec<String>>),
}

/// A record set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Lower-case name relative to the zone: `@` is the zone itself, and a first label `*` stands for any names.
    pub name: String,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
    /// Its values.
    pub data: RecordData,
}

/// A private zone with its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its id.
    pub id: ResourceId,
    /// Its lower-case name without a trailing dot.
    pub name: String,
    /// Its record sets, ordered by id.
    pub records: Vec<Record>,
}

impl RecordData {
    /// The kind of the values.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        match self {
            Self::A(_) => RecordKind::A,
            Self::Aaaa(_) => RecordKind::Aaaa,
            Self::Cname(_) => RecordKind::Cname,
            Self::Mx(_) => RecordKind::Mx,
            Self::Ptr(_) => RecordKind::Ptr,
            Self::Srv(_) => RecordKind::Srv,
            Self::Txt(_) => RecordKind::Txt,
        }
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::A(values) => values.len(),
            Self::Aaaa(values) => values.len(),
            Self::Cname(_) => 1,
            Self::Mx(values) => values.len(),
            Self::Ptr(values) => values.len(),
            Self::Srv(values) => values.len(),
            Self::Txt(values) => values.len(),
        }
    }

    fn read(kind: RecordKind, given: &Value) -> Result<Self, Fault> {
        let bad = || {
            let message = format!("'{}' can't be read: {}.", kind.property(), example(kind));
            Fault::invalid("BadRequest", message).at(kind.property())
        };
        if kind == RecordKind::Cname {
            return Ok(Self::Cname(host(&given["cname"]).ok_or_else(bad)?));
        }
        let values = given.as_array().filter(|values| (1..=MAX_VALUES).contains(&values.len())).ok_or_else(bad)?;
        let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
        let address = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
        let read = match kind {
            RecordKind::A => {
                each(values, |value| address(value, "ipv4Address").and_then(|text| text.parse().ok())).map(Self::A)
            }
            RecordKind::Aaaa => {
                each(values, |value| address(value, "ipv6Address").and_then(|text| text.parse().ok())).map(Self::Aaaa)
            }
            RecordKind::Ptr => each(values, |value| host(&value["ptrdname"])).map(Self::Ptr),
            RecordKind::Txt => each(values, |value| texts(&value["value"])).map(Self::Txt),
            RecordKind::Mx => {
                each(values, |value| Some((number(&value["preference"])?, host(&value["exchange"])?))).map(Self::Mx)
            }
            RecordKind::Srv | RecordKind::Cname => each(values, |value| {
                Some(ServiceRecord {
                    priority: number(&value["priority"])?,
                    weight: number(&value["weight"])?,
                    port: number(&value["port"])?,
                    target: host(&value["target"])?,
                })
            })
            .map(Self::Srv),
        };
        read.ok_or_else(bad)
    }
}

impl RecordKind {
    /// Whether the properties of a record set hold values; one without any is as good as absent.
    #[must_use]
    pub fn has_values(self, properties: &Value) -> bool {
        match &properties[self.property()] {
            Value::Null => false,
            Value::Array(values) => !values.is_empty(),
            _ => true,
        }
    }
}

impl Record {
    /// Reads the properties of a record set.
    ///
    /// # Errors
    /// Naming the property at fault: a name that is none, a time to live over 2147483647 seconds, no values, more than
    /// 20 of them, or one that can't be read.
    pub fn new(kind: RecordKind, name: &str, properties: &Value) -> Result<Self, Fault> {
        let name = name.to_ascii_lowercase();
        check_record_name(&name)?;
        let ttl = match properties.get("ttl").filter(|ttl| !ttl.is_null()) {
            None => USUAL_TTL,
            Some(ttl) => {
                let seconds = ttl.as_u64().filter(|seconds| *seconds <= MAX_TTL).and_then(|s| u32::try_from(s).ok());
                let message = format!("'ttl' is {ttl}; give seconds, at most {MAX_TTL}.");
                seconds.ok_or_else(|| Fault::invalid("BadRequest", message).at("ttl"))?
            }
        };
        let data = RecordData::read(kind, &properties[kind.property()])?;
        if kind == RecordKind::Cname && name == "@" {
            let message = "A zone itself ('@') can't be a CNAME, since it has other records.";
            return Err(Fault::invalid("BadRequest", message).at("name"));
        }
        Ok(Self { name, ttl, data })
    }
}

fn each<T>(values: &[Value], read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(read).collect()
}

fn host(value: &Value) -> Option<String> {
    let name = value.as_str()?.trim_end_matches('.').to_ascii_lowercase();
    check_zone_name(&name).is_ok().then_some(name)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let texts: Vec<String> =
        value.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect::<Option<_>>()?;
    let fits = texts.iter().map(String::len).sum::<usize>() <= MAX_TEXT && texts.iter().all(|text| text.len() <= 255);
    (fits && !texts.is_empty()).then_some(texts)
}

fn example(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::A => "give 1 to 20 of {\"ipv4Address\": \"10.0.0.4\"}",
        RecordKind::Aaaa => "give 1 to 20 of {\"ipv6Address\": \"fd00::4\"}",
        RecordKind::Cname => "give {\"cname\": \"host.example\"}",
        RecordKind::Mx => "give 1 to 20 of {\"preference\": 10, \"exchange\": \"host.example\"}",
        RecordKind::Ptr => "give 1 to 20 of {\"ptrdname\": \"host.example\"}",
        RecordKind::Srv => {
            "give 1 to 20 of {\"priority\": 1, \"weight\": 1, \"port\": 443, \"target\": \"host.example\"}"
        }
        RecordKind::Txt => "give 1 to 20 of {\"value\": [\"text\"]}, 1024 bytes each in texts of at most 255",
    }
}

/// Checks the name of a zone or of a host: lower-case labels of 1 to 63 letters, digits, '-' and '_', at most 253 bytes.
///
/// # Errors
/// Saying what a name looks like.
pub fn check_zone_name(name: &str) -> Result<(), Fault> {
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
    let message = format!(
        "'{shown}' is not a DNS name: it has labels of 1 to 63 letters, digits, '-' and '_' between dots, at most 253 \
         bytes in all."
    );
    Err(Fault::invalid("BadRequest", message).at("name"))
}

/// Checks the lower-case name of a record set in its zone: `@`, or labels of which the first may be `*`.
///
/// # Errors
/// As [`check_zone_name`].
pub fn check_record_name(name: &str) -> Result<(), Fault> {
    match name {
        "@" | "*" => Ok(()),
        _ => check_zone_name(name.strip_prefix("*.").unwrap_or(name)),
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}
