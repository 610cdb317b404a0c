//! Who makes certificates: the seam behind which the built-in authority and others stand.

use std::{pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use casemate_model::Fault;
use jiff::Timestamp;

use crate::{CertificateAuthority, Leaf, PkiError};

/// How long a certificate of the built-in authority is valid unless it is told otherwise.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes certificates. Implementations bound their time, their retries and how much they do at once, so a caller may
/// simply wait for the end.
pub trait Issuer: Send + Sync {
    /// What people know it by: `built-in`, or `acme` and the host of the directory.
    fn name(&self) -> &str;

    /// A certificate with a fresh key for exactly these DNS names (and for the built-in authority also IP literals).
    fn issue<'a>(&'a self, names: &'a [String], now: Timestamp) -> BoxFuture<'a, Result<Leaf, IssueError>>;

    /// When the issuer wants this certificate renewed (RFC 9773); `None` when it does not say.
    fn renewal<'a>(&'a self, leaf: &'a Leaf) -> BoxFuture<'a, Option<RenewalWindow>>;
}

/// When a certificate should be renewed: at a random moment between the two, or at once when `end` is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalWindow {
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
}

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{fault}")]
pub struct IssueError {
    /// Cause, evidence and fix.
    pub fault: Fault,
    /// How long the issuer wants not to be asked again.
    pub retry_after: Option<Duration>,
}

impl From<Fault> for IssueError {
    fn from(fault: Fault) -> Self {
        Self { fault, retry_after: None }
    }
}

impl From<PkiError> for IssueError {
    fn from(error: PkiError) -> Self {
        Fault::from(error).into()
    }
}

/// The built-in authority as an issuer.
#[derive(Debug)]
pub struct BuiltIn {
    authority: ArcSwap<CertificateAuthority>,
    validity: Duration,
}

impl BuiltIn {
    /// Issues from `authority`, each certificate valid for `validity` (see [`DEFAULT_VALIDITY`]).
    #[must_use]
    pub fn new(authority: Arc<CertificateAuthority>, validity: Duration) -> Self {
        Self { authority: ArcSwap::new(authority), validity }
    }

    /// The authority that issues now.
    #[must_use]
    pub fn authority(&self) -> Arc<CertificateAuthority> {
        self.authority.load_full()
    }

    /// Lets another authority issue from now on.
    pub fn replace(&self, authority: Arc<CertificateAuthority>) {
        self.authority.store(authority);
    }
}

impl Issuer for BuiltIn {
    fn name(&self) -> &str {
        "built-in"
    }

    fn issue<'a>(&'a self, names: &'a [String], now: Timestamp) -> BoxFuture<'a, Result<Leaf, IssueError>> {
        Box::pin(async move { Ok(self.authority().issue(names, now, self.validity)?) })
    }

    fn renewal<'a>(&'a self, _leaf: &'a Leaf) -> BoxFuture<'a, Option<RenewalWindow>> {
        Box::pin(async { None })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use jiff::SignedDuration;

    use super::*;

    /// The end of a future that waits for nothing.
    fn ready<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn the_built_in_authority_issues_and_can_be_replaced() {
        let now = Timestamp::now();
        let authority = || Arc::new(CertificateAuthority::create(now).unwrap().0);
        let built_in = BuiltIn::new(authority(), DEFAULT_VALIDITY);
        let issuer: &dyn Issuer = &built_in;
        let names = ["a.example".to_owned(), "127.0.0.1".to_owned()];
        let leaf = ready(issuer.issue(&names, now)).unwrap();
        assert_eq!((issuer.name(), leaf.names.as_slice()), ("built-in", names.as_slice()));
        assert_eq!(leaf.not_after.duration_since(now).as_hours(), 90 * 24 - i64::from(now.subsec_nanosecond() > 0));
        assert_eq!(ready(issuer.renewal(&leaf)), None);
        let refused = ready(issuer.issue(&["a b".to_owned()], now)).unwrap_err();
        assert_eq!((refused.fault.code.as_str(), refused.retry_after), ("InvalidCertificate", None));

        let later = now + SignedDuration::from_hours(6 * 365 * 24);
        assert_eq!(ready(issuer.issue(&names, later)).unwrap_err().fault.code, "CertificateAuthorityExpired");
        let (next, material) = CertificateAuthority::create(later).unwrap();
        built_in.replace(Arc::new(next));
        assert_eq!(built_in.authority().root_pem(), material.root_cert_pem);
        assert!(ready(issuer.issue(&names, later)).is_ok());
    }
}
