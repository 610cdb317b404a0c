//! From what went wrong to what a person is told: the cause, the authority's own words as evidence, and the fix.

use std::time::Instant;

use casemate_model::{Fault, FaultKind};
use casemate_pki::IssueError;
use instant_acme::{Error, Problem};

use crate::{
    ChallengeKind,
    http::{LONGEST_REST, Log, Seen, Unanswered, plain},
};

/// What all of ACME's problem types begin with.
const ACME_ERROR: &str = "urn:ietf:params:acme:error:";

/// Explains failures of one order.
#[derive(Debug)]
pub(crate) struct Explain<'a> {
    /// The authority's host.
    pub host: &'a str,
    /// How names are proven.
    pub challenge: ChallengeKind,
    /// The note of the last answer.
    pub log: Log,
}

/// ACME's name of a problem, without what all have in common.
pub(crate) fn kind_of(error: &Error) -> Option<&str> {
    match error {
        Error::Api(problem) => problem.r#type.as_deref().map(|kind| kind.strip_prefix(ACME_ERROR).unwrap_or(kind)),
        _ => None,
    }
}

impl Explain<'_> {
    /// What `error` means, that came when asking for `doing`.
    pub(crate) fn error(&self, error: Error, doing: &str) -> IssueError {
        let seen = self.log.last();
        let rest = seen.as_ref().and_then(|seen| seen.retry_after).map(|rest| rest.min(LONGEST_REST));
        let fault = match error {
            Error::Api(problem) => {
                let status = problem.status.or(seen.as_ref().map(|seen| seen.status)).unwrap_or_default();
                let fault = self.refusal(&problem, status, doing);
                let asked = matches!(fault.kind, FaultKind::Quota | FaultKind::Unavailable);
                return IssueError { fault, retry_after: rest.filter(|_| asked) };
            }
            Error::Timeout(next) => {
                let after = next.map(|next| next.saturating_duration_since(Instant::now()).min(LONGEST_REST));
                return IssueError { fault: self.slow(doing), retry_after: after };
            }
            Error::Crypto | Error::KeyRejected => Fault::internal(format!(
                "ACME: the stored key of the account at {} can't be used for {doing}. Restore the state directory from a backup.",
                self.host
            )),
            Error::Unsupported(what) => Fault::new(
                FaultKind::NotImplemented,
                "AcmeUnsupported",
                format!("ACME: {} does not offer what is needed for {doing}: {what}.", self.host),
            ),
            Error::Other(other) => match other.downcast_ref::<Unanswered>() {
                Some(unanswered) => self.unanswered(unanswered, doing),
                None => return self.nonsense(&other.to_string(), seen.as_ref(), doing),
            },
            other => return self.nonsense(&other.to_string(), seen.as_ref(), doing),
        };
        fault.into()
    }

    /// The authority's own time for this is over.
    pub(crate) fn slow(&self, doing: &str) -> Fault {
        let message = format!(
            "ACME: {} did not finish {doing} in time. It is tried again; if that goes on, look at the authority's status page.",
            self.host
        );
        Fault::new(FaultKind::Unavailable, "AcmeTimeout", message)
    }

    /// An answer that is well-formed and makes no sense.
    pub(crate) fn contradiction(&self, what: &str, doing: &str) -> Fault {
        let message = format!(
            "ACME: the answer of {} can't be right: {what} (asked for {doing}). Check that --acme-directory is the address that the authority documents.",
            self.host
        );
        Fault::new(FaultKind::Unavailable, "AcmeUnexpectedAnswer", message)
    }

    /// What a problem document means.
    fn refusal(&self, problem: &Problem, status: u16, doing: &str) -> Fault {
        let kind = problem.r#type.as_deref().unwrap_or("about:blank");
        let short = kind.strip_prefix(ACME_ERROR).unwrap_or(kind);
        let (sort, code, fix) = match short {
            "rateLimited" => (FaultKind::Quota, "AcmeRateLimited", "It is asked again when the limit allows it."),
            _ if status == 429 => (FaultKind::Quota, "AcmeRateLimited", "It is asked again when the limit allows it."),
            "badNonce" | "serverInternal" => (FaultKind::Unavailable, "AcmeUnavailable", "It is tried again."),
            _ if status >= 500 => (FaultKind::Unavailable, "AcmeUnavailable", "It is tried again."),
            "externalAccountRequired" => (
                FaultKind::Invalid,
                "AcmeExternalAccountRequired",
                "Get a key from the authority and give it with --acme-eab-kid and --acme-eab-key-file.",
            ),
            "rejectedIdentifier" | "unsupportedIdentifier" => (
                FaultKind::Invalid,
                "AcmeNameRefused",
                "The authority gives no certificate for such a name: use a public domain of yours with --domain, or another authority.",
            ),
            "caa" => (
                FaultKind::Invalid,
                "AcmeNameRefused",
                "A CAA record in DNS forbids this authority: add one that allows it, or take the record away.",
            ),
            "invalidProfile" => (
                FaultKind::Invalid,
                "AcmeProfileUnknown",
                "Give a profile that the authority offers with --acme-profile.",
            ),
            "invalidContact" | "unsupportedContact" => (
                FaultKind::Invalid,
                "AcmeContactRefused",
                "Give a mail address that can be written to with --acme-contact.",
            ),
            "userActionRequired" => (
                FaultKind::Invalid,
                "AcmeActionRequired",
                "Do what the authority asks for, then renew the certificate.",
            ),
            "unauthorized" | "accountDoesNotExist" => (
                FaultKind::Invalid,
                "AcmeUnauthorized",
                "Check at the authority that the account was not closed, and that the key of the external account is still valid.",
            ),
            _ => (
                FaultKind::Invalid,
                "AcmeRefused",
                "Do what the authority's words ask for, then renew the certificate.",
            ),
        };
        let message = format!("ACME: {} refused {doing}: {}. {fix}", self.host, words(problem, short));
        let mut fault = Fault::new(sort, code, message);
        fault.details.extend(problem.subproblems.iter().take(100).map(|inner| {
            let name = inner.identifier.as_ref().map(|name| name.authorized(false).to_string()).unwrap_or_default();
            let kind = inner.r#type.as_deref().unwrap_or("about:blank");
            let words = inner.detail.as_deref().map(plain).unwrap_or_default();
            let kind = plain(kind.strip_prefix(ACME_ERROR).unwrap_or(kind));
            Fault::new(sort, code, format!("{kind}: {words}")).at(plain(&name))
        }));
        fault
    }

    /// What a failed challenge means, for each name; none when there is no name.
    pub(crate) fn failed_challenges(&self, failures: Vec<(String, Option<Problem>)>) -> Option<Fault> {
        let mut faults = failures.into_iter().map(|(name, problem)| {
            let said = problem.map_or_else(
                || "it gave no reason".to_owned(),
                |problem| {
                    let kind = problem.r#type.as_deref().unwrap_or("about:blank");
                    words(&problem, kind.strip_prefix(ACME_ERROR).unwrap_or(kind))
                },
            );
            let message = format!(
                "ACME: {} could not see by {} that {name} is served here: {said}. {}",
                self.host,
                self.challenge.as_str(),
                self.way_in(&name)
            );
            Fault::invalid("AcmeChallengeFailed", message).at(name)
        });
        let mut first = faults.next()?;
        first.details = faults.take(100).collect();
        Some(first)
    }

    /// What has to be there for a challenge to succeed.
    fn way_in(&self, name: &str) -> String {
        let name = name.trim_start_matches("*.");
        match self.challenge {
            ChallengeKind::Http01 => format!(
                "http://{name}/ at port 80, as the authority reaches it, must lead to the platform's --http-listen; or choose another --acme-challenge."
            ),
            ChallengeKind::TlsAlpn01 => format!(
                "{name} at port 443, as the authority reaches it, must lead to the platform's --listen with nothing in between that ends TLS; or choose another --acme-challenge."
            ),
            ChallengeKind::Dns01 => format!(
                "The authority must be led to the platform's DNS server (--dns) for _acme-challenge.{name}: delegate the platform's domain to it by NS records, or give that name a CNAME record to itself below the platform's domain."
            ),
        }
    }

    fn unanswered(&self, why: &Unanswered, doing: &str) -> Fault {
        let (code, fix) = match why {
            Unanswered::Trust(_) => (
                "AcmeNotTrusted",
                "Give the root that the authority's server comes from with --acme-root; if there is none, somebody is in between.",
            ),
            Unanswered::Connect(_) => {
                ("AcmeUnavailable", "Check --acme-directory, and that this machine may reach it. It is tried again.")
            }
            Unanswered::Slow(_) => {
                ("AcmeTimeout", "It is tried again; if that goes on, look at the authority's status page.")
            }
            Unanswered::TooLong | Unanswered::Plain(_) => {
                ("AcmeUnexpectedAnswer", "Check that --acme-directory is the address that the authority documents.")
            }
            Unanswered::Broken(_) => ("AcmeUnavailable", "It is tried again."),
        };
        let message = format!("ACME: {} could not be asked for {doing}: {why}. {fix}", self.host);
        Fault::new(FaultKind::Unavailable, code, message)
    }

    /// An answer that is not ACME.
    fn nonsense(&self, why: &str, seen: Option<&Seen>, doing: &str) -> IssueError {
        let evidence = seen.map_or_else(
            || "no answer".to_owned(),
            |seen| match (seen.media_type.as_str(), seen.excerpt.as_str()) {
                (_, "") => format!("HTTP {} without a body", seen.status),
                ("", text) => format!("HTTP {}, '{text}'", seen.status),
                (media_type, text) => format!("HTTP {} with {media_type}, '{text}'", seen.status),
            },
        );
        let retry_after = seen.and_then(|seen| seen.retry_after);
        let status = seen.map(|seen| seen.status).unwrap_or_default();
        let host = self.host;
        if status == 429 {
            let message = format!(
                "ACME: {host} limits how often it is asked for {doing}: {evidence}. It is asked again when the limit allows it."
            );
            return IssueError { fault: Fault::new(FaultKind::Quota, "AcmeRateLimited", message), retry_after };
        }
        if status >= 500 {
            let message = format!("ACME: {host} failed when asked for {doing}: {evidence}. It is tried again.");
            return IssueError { fault: Fault::new(FaultKind::Unavailable, "AcmeUnavailable", message), retry_after };
        }
        let message = format!(
            "ACME: {host} answered with something that is not ACME when asked for {doing}: {evidence} ({}). Check that --acme-directory is the address that the authority documents.",
            plain(why)
        );
        IssueError { fault: Fault::new(FaultKind::Unavailable, "AcmeUnexpectedAnswer", message), retry_after: None }
    }
}

/// The authority's words: its name of the problem, and what it says about it.
fn words(problem: &Problem, short: &str) -> String {
    let detail = problem.detail.as_deref().map(plain).unwrap_or_default();
    let detail = detail.trim_end_matches('.');
    if detail.is_empty() { plain(short) } else { format!("{}: {detail}", plain(short)) }
}
