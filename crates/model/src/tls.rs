//! What is wanted of an owner's TLS: the block `_tls` in the body of a compute, a service or an endpoint.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Fault, Resource};

/// Where the block stands in an owner's body. It is never shown.
pub const TLS_FIELD: &str = "_tls";
/// Secret of the owner: the chain given with version N of a custom certificate, PEM, under `tls-custom-chain-N`.
pub const CUSTOM_CHAIN: &str = "tls-custom-chain";
/// Secret of the owner: its key, PEM, under `tls-custom-key-N`.
pub const CUSTOM_KEY: &str = "tls-custom-key";
/// Secret of the owner: the certificates that clients' certificates must come from, PEM.
pub const CLIENT_CA: &str = "tls-client-ca";

/// Secret of the owner: the chain that is served, PEM. It was seen to be served before it was kept.
pub const SERVED_CHAIN: &str = "tls-chain";
/// Secret of the owner: the key of [`SERVED_CHAIN`], PEM.
pub const SERVED_KEY: &str = "tls-key";
/// Secret of the owner: the names that [`SERVED_CHAIN`] is served for, separated by blanks.
pub const SERVED_NAMES: &str = "tls-names";
/// Where a [`CertificateRecord`] stands in what is observed of an owner. It is never shown as it is.
pub const CERTIFICATE_FIELD: &str = "_certificate";
/// The type of a certificate of the platform; its name is one of the host names that it is served for. There are no such
/// rows, only operations: a forced renewal is an action on the certificate.
pub const CERTIFICATE_TYPE: &str = "Casemate.Platform/certificates";
/// The type of the built-in certificate authority's two parts, `intermediate` and `root`, which operations renew.
pub const AUTHORITY_TYPE: &str = "Casemate.Platform/authority";
/// The owner of the platform's own certificate and of the built-in certificate authority.
pub const PLATFORM_OWNER: &str = "/providers/Casemate.Platform/settings/platform";

/// Whose certificate is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// None: the owner is served on the plain port only.
    Off,
    /// One that the platform gets from its issuer and renews.
    Platform,
    /// One that the owner gave.
    Custom,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MinimumTls {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsWish {
    /// Whose certificate.
    pub mode: TlsMode,
    /// The host names to serve, lower-case; never empty unless `mode` is `Off`.
    #[serde(default)]
    pub names: Vec<String>,
    /// Grows with each forced renewal of a platform certificate.
    #[serde(default)]
    pub renewal: u64,
    /// Which of the owner's stored custom certificates; grows with each one given.
    #[serde(default)]
    pub version: u64,
    /// The oldest version of TLS.
    #[serde(default)]
    pub minimum: MinimumTls,
    /// Whether clients must show a certificate that comes from the owner's [`CLIENT_CA`].
    #[serde(default)]
    pub client_certificates: bool,
}

impl TlsWish {
    /// No TLS.
    #[must_use]
    pub fn off() -> Self {
        Self {
            mode: TlsMode::Off,
            names: Vec::new(),
            renewal: 0,
            version: 0,
            minimum: MinimumTls::default(),
            client_certificates: false,
        }
    }

    /// A certificate of the platform's issuer for these names.
    #[must_use]
    pub fn platform(names: Vec<String>) -> Self {
        Self { mode: TlsMode::Platform, names, ..Self::off() }
    }

    /// The wish in an owner's body; none when it has none.
    ///
    /// # Errors
    /// When the stored block can't be read.
    pub fn of(owner: &Resource) -> Result<Option<Self>, Fault> {
        let Some(block) = owner.body.get(TLS_FIELD).filter(|block| !block.is_null()) else { return Ok(None) };
        Self::deserialize(block).map(Some).map_err(|error| {
            Fault::internal(format!("The TLS settings stored for {} can't be read: {error}.", owner.id))
        })
    }

    /// The block to be stored under [`TLS_FIELD`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// What a certificate was got for: the part of a wish that only another certificate can fulfil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAsk {
    /// Whose certificate.
    pub mode: TlsMode,
    /// For which names.
    pub names: Vec<String>,
    /// After how many forced renewals.
    #[serde(default)]
    pub renewal: u64,
    /// Which custom certificate.
    #[serde(default)]
    pub version: u64,
}

/// The facts of a certificate that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// Who made it: `built-in`, `acme` and the host of the directory, or `custom`.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER in lower-case hexadecimal.
    pub sha256: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// When it will be renewed; none for a custom one, which only its owner can renew.
    #[serde(default)]
    pub next_renewal: Option<Timestamp>,
    /// Whether it stands in for one that the issuer of the name has not given yet.
    #[serde(default)]
    pub provisional: bool,
    /// What it was got for.
    #[serde(flatten)]
    pub ask: CertificateAsk,
}

/// How the last attempt to get or to serve a certificate ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastResult {
    /// When.
    pub time: Timestamp,
    /// `Succeeded` or `Failed`.
    pub outcome: String,
    /// What happened, for people.
    pub message: String,
}

/// A wish that could not be fulfilled, while what was served before goes on being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was asked for.
    pub ask: CertificateAsk,
    /// Why there is none.
    pub fault: Fault,
}

/// What the platform knows of an owner's certificate: the block [`CERTIFICATE_FIELD`], written by the reconciler only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    /// The certificate that was last seen to be served.
    #[serde(flatten)]
    pub certificate: Option<CertificateFacts>,
    /// Whether it is being served: false while TLS is off.
    #[serde(default)]
    pub served: bool,
    /// How the last attempt ended.
    #[serde(default)]
    pub last_result: Option<LastResult>,
    /// Certificates that were got for this owner, ever.
    #[serde(default)]
    pub issued: u64,
    /// Attempts that failed, ever.
    #[serde(default)]
    pub failures: u64,
    /// Attempts that failed since the last that did not.
    #[serde(default)]
    pub failed_in_row: u32,
    /// Not to be tried before.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// The wish that could not be fulfilled.
    #[serde(default)]
    pub refused: Option<Refusal>,
}

/// Whether a wish has come true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsOutcome {
    /// Not yet.
    Pending,
    /// It has: the certificate was seen to be served (or, without TLS, is not served any more).
    Settled,
    /// It can't; what was served before goes on being served.
    Refused(Fault),
}

/// How a certificate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CertificateState {
    /// Served, and not due.
    Ok,
    /// The first one is being got, or a newer one.
    Renewing,
    /// So close to its end that somebody should look.
    Danger,
    /// The last attempt failed; what is served is good for a while.
    Failed,
    /// One of the built-in authority stands in for that of the issuer.
    Provisional,
}

impl CertificateFacts {
    /// From when on the certificate is close to its end: the last third of the last third of its life, ten days of ninety
    /// and sixteen hours of six days.
    #[must_use]
    pub fn danger_from(&self) -> Timestamp {
        danger_from(self.not_before, self.not_after)
    }
}

/// As [`CertificateFacts::danger_from`], for a certificate with these dates.
#[must_use]
pub fn danger_from(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_after.duration_since(not_before).max(SignedDuration::ZERO);
    not_after.checked_sub(life / 9).unwrap_or(not_after)
}

impl CertificateRecord {
    /// The record of an owner; an empty one when nothing was written yet or what was written can't be read.
    #[must_use]
    pub fn of(owner: &Resource) -> Self {
        let block = owner.observed.get(CERTIFICATE_FIELD);
        block.and_then(|block| Self::deserialize(block).ok()).unwrap_or_default()
    }

    /// The block to be stored under [`CERTIFICATE_FIELD`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// How the certificate stands at `now`; `busy` when a renewal was asked for and is not over.
    #[must_use]
    pub fn state(&self, now: Timestamp, busy: bool) -> CertificateState {
        let failed = self.last_result.as_ref().is_some_and(|last| last.outcome == FAILED);
        match &self.certificate {
            Some(facts) if now >= facts.danger_from() => CertificateState::Danger,
            _ if busy => CertificateState::Renewing,
            Some(facts) if facts.provisional => CertificateState::Provisional,
            _ if failed => CertificateState::Failed,
            Some(facts) if facts.next_renewal.is_none_or(|at| now < at) => CertificateState::Ok,
            _ => CertificateState::Renewing,
        }
    }
}

/// The outcome of an attempt that ended well.
pub const SUCCEEDED: &str = "Succeeded";
/// The outcome of an attempt that did not.
pub const FAILED: &str = "Failed";

impl TlsWish {
    /// What a certificate must be got for.
    #[must_use]
    pub fn ask(&self) -> CertificateAsk {
        CertificateAsk { mode: self.mode, names: self.names.clone(), renewal: self.renewal, version: self.version }
    }

    /// Whether a certificate that was got for `ask` is what is wished for.
    #[must_use]
    pub fn is_met_by(&self, ask: &CertificateAsk) -> bool {
        let same = self.mode == ask.mode && self.names == ask.names;
        same && match self.mode {
            TlsMode::Off => true,
            TlsMode::Platform => self.renewal <= ask.renewal,
            TlsMode::Custom => self.version == ask.version,
        }
    }

    /// What has become of this wish, by what was last written of the owner's certificate.
    #[must_use]
    pub fn outcome(&self, record: &CertificateRecord) -> TlsOutcome {
        if self.mode == TlsMode::Off {
            return if record.served { TlsOutcome::Pending } else { TlsOutcome::Settled };
        }
        if record.served && record.certificate.as_ref().is_some_and(|facts| self.is_met_by(&facts.ask)) {
            return TlsOutcome::Settled;
        }
        match &record.refused {
            Some(refusal) if refusal.ask == self.ask() => TlsOutcome::Refused(refusal.fault.clone()),
            _ => TlsOutcome::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_it_writes_and_what_an_earlier_version_wrote() {
        let wish = TlsWish { renewal: 2, minimum: MinimumTls::V1_3, ..TlsWish::platform(vec!["a.b".to_owned()]) };
        assert_eq!(serde_json::from_value::<TlsWish>(wish.to_value()).unwrap(), wish);
        let early: TlsWish = serde_json::from_value(json!({"mode": "custom", "names": ["a.b"], "version": 3})).unwrap();
        assert_eq!((early.mode, early.version, early.minimum), (TlsMode::Custom, 3, MinimumTls::V1_2));
    }

    fn facts(ask: CertificateAsk) -> CertificateFacts {
        CertificateFacts {
            issuer: "built-in".to_owned(),
            serial: "01".to_owned(),
            sha256: "ab".to_owned(),
            not_before: Timestamp::from_second(0).unwrap(),
            not_after: Timestamp::from_second(90 * 86_400).unwrap(),
            next_renewal: Timestamp::from_second(60 * 86_400).ok(),
            provisional: false,
            ask,
        }
    }

    #[test]
    fn a_wish_is_settled_by_what_was_served_and_refused_by_its_own_fault_only() {
        let wish = TlsWish::platform(vec!["a.b".to_owned()]);
        let mut record = CertificateRecord::default();
        assert_eq!(wish.outcome(&record), TlsOutcome::Pending);
        assert_eq!(TlsWish::off().outcome(&record), TlsOutcome::Settled);
        record.certificate = Some(facts(wish.ask()));
        record.served = true;
        assert_eq!(wish.outcome(&record), TlsOutcome::Settled);
        assert_eq!(TlsWish::off().outcome(&record), TlsOutcome::Pending);
        let again = TlsWish { renewal: 1, ..wish.clone() };
        assert_eq!(again.outcome(&record), TlsOutcome::Pending);
        let fault = Fault::internal("why");
        record.refused = Some(Refusal { ask: again.ask(), fault: fault.clone() });
        assert_eq!(again.outcome(&record), TlsOutcome::Refused(fault));
        assert_eq!(wish.outcome(&record), TlsOutcome::Settled, "the earlier wish still holds");
        let custom = TlsWish { mode: TlsMode::Custom, version: 1, ..wish.clone() };
        assert_eq!(custom.outcome(&record), TlsOutcome::Pending);
        // What is stored is read again.
        assert_eq!(serde_json::from_value::<CertificateRecord>(record.to_value()).unwrap(), record);
        let empty = CertificateRecord::default();
        assert_eq!(serde_json::from_value::<CertificateRecord>(empty.to_value()).unwrap(), empty);
    }

    #[test]
    fn states_by_time_and_by_what_happened_last() {
        let day = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        let good = CertificateRecord {
            certificate: Some(facts(TlsWish::platform(vec!["a.b".to_owned()]).ask())),
            served: true,
            ..CertificateRecord::default()
        };
        let last = LastResult { time: day(1), outcome: FAILED.to_owned(), message: "down".to_owned() };
        let failed = CertificateRecord { last_result: Some(last.clone()), ..good.clone() };
        let none = CertificateRecord { last_result: Some(last), ..CertificateRecord::default() };
        for (record, at, busy, expected) in [
            (&good, 1, false, CertificateState::Ok),
            (&good, 1, true, CertificateState::Renewing),
            (&good, 61, false, CertificateState::Renewing),
            (&good, 81, false, CertificateState::Danger),
            (&failed, 61, false, CertificateState::Failed),
            (&failed, 80, true, CertificateState::Danger),
            (&none, 1, false, CertificateState::Failed),
            (&CertificateRecord::default(), 1, false, CertificateState::Renewing),
        ] {
            assert_eq!(record.state(day(at), busy), expected, "day {at}");
        }
    }
}
