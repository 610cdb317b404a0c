//! One owner of a certificate, and how far it is.

use casemate_model::{
    Fault, Resource, ResourceId,
    tls::{CertificateAsk, CertificateRecord, TlsMode, TlsWish},
};
use casemate_pki::{IssueError, Leaf, RenewalWindow, TlsSettings};
use jiff::Timestamp;
use uuid::Uuid;

/// An owner as this round found it.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Who.
    pub owner: &'a ResourceId,
    /// What it wishes.
    pub wish: TlsWish,
    /// Changes with everything that may concern its TLS.
    pub generation: i64,
    /// Its row, with what was last seen of it.
    pub row: Option<&'a Resource>,
}

/// What the manager knows of an owner.
pub(super) struct Owner {
    pub(super) wish: TlsWish,
    pub(super) generation: i64,
    /// How it is served; none before that could be read, and then it is not served.
    pub(super) settings: Option<TlsSettings>,
    pub(super) record: CertificateRecord,
    /// What was last seen to be served: the certificate of the record.
    pub(super) leaf: Option<Leaf>,
    pub(super) step: Step,
    /// The names it has claimed or tried to.
    pub(super) held: Vec<String>,
    /// When the issuer was last asked when it wants the certificate renewed.
    pub(super) window_asked: Option<Timestamp>,
    /// Whether one of the built-in authority was tried since the certificate ended.
    pub(super) stood_in: bool,
    /// Whether the certificate's near end was told.
    pub(super) warned: bool,
}

/// How far an attempt is.
pub(super) enum Step {
    /// There is none.
    Rest,
    /// A task waits for the issuer.
    Issuing(Attempt),
    /// The certificate is there, and published at the end of the round.
    Issued(Attempt, Leaf),
    /// A task looks at what the front door shows.
    Proving(Attempt, Leaf),
}

/// An attempt to get and serve a certificate.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) ask: CertificateAsk,
    pub(super) issuer: String,
    /// Whether it stands in for a certificate of another issuer.
    pub(super) provisional: bool,
    /// Whether the issuer made a certificate for it, rather than that an earlier one is served again.
    pub(super) is_new: bool,
    /// Operations that wait for it.
    pub(super) operations: Vec<Uuid>,
}

/// The end of a task.
pub(super) enum Done {
    /// An issuer gave a certificate or said why not.
    Issued { owner: ResourceId, number: u64, result: Result<Leaf, IssueError> },
    /// The front door was looked at; what it shows instead, for people.
    Proved { owner: ResourceId, number: u64, result: Result<(), String> },
    /// An issuer was asked when it wants the certificate with this fingerprint renewed.
    Window { owner: ResourceId, sha256: String, window: Option<RenewalWindow> },
}

impl Done {
    /// A task broke off.
    pub(super) fn lost(owner: ResourceId, number: u64) -> Self {
        let fault = Fault::internal("The attempt to get a certificate broke off; the platform's log says where.");
        Self::Issued { owner, number, result: Err(fault.into()) }
    }
}

impl Owner {
    /// The names and the certificate that are to be served at `now`. A certificate of the platform is not served after its
    /// end; one of the owner's own is, since only so do callers learn why they can't call.
    pub(super) fn shown(&self, now: Timestamp) -> Option<(&[String], &Leaf)> {
        if self.wish.mode == TlsMode::Off {
            return None;
        }
        if let Step::Issued(attempt, leaf) | Step::Proving(attempt, leaf) = &self.step {
            return Some((&attempt.ask.names, leaf));
        }
        let (facts, leaf) = (self.record.certificate.as_ref()?, self.leaf.as_ref()?);
        let is_over = now >= leaf.not_after && facts.ask.mode == TlsMode::Platform;
        (self.record.served && !is_over).then_some((&facts.ask.names, leaf))
    }

    /// Whether what was last seen to be served is what is wished for.
    pub(super) fn is_met(&self) -> bool {
        let facts = self.record.certificate.as_ref();
        self.leaf.is_some() && facts.is_some_and(|facts| self.wish.is_met_by(&facts.ask))
    }

    /// The attempt under way with this number.
    pub(super) fn attempt(&self, number: u64) -> Option<&Attempt> {
        match &self.step {
            Step::Issuing(attempt) | Step::Issued(attempt, _) | Step::Proving(attempt, _) => {
                Some(attempt).filter(|attempt| attempt.number == number)
            }
            Step::Rest => None,
        }
    }
}
