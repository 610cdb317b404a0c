//! The issuer: a few orders at a time, each bounded, and rest for an authority that asks for it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use casemate_model::{Fault, FaultKind, challenge::ChallengeBoard};
use casemate_pki::{BoxFuture, IssueError, Issuer, Leaf, RenewalWindow};
use instant_acme::{Account, CertificateIdentifier, Error};
use jiff::Timestamp;
use reqwest::Client;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    AcmeConfig, ChallengeKind,
    account::{AccountStore, Accounts},
    failure::{Explain, kind_of},
    http::{Http, Log, client, plain},
    order::{Ordering, said},
};

/// Most names in one order.
const MAX_NAMES: usize = 100;
/// How long an authority that does not say when to renew is not asked again.
const SILENCE: Duration = Duration::from_secs(3600);

/// An ACME authority as an issuer.
pub struct AcmeIssuer {
    config: AcmeConfig,
    name: String,
    client: Client,
    board: ChallengeBoard,
    accounts: Accounts,
    places: Semaphore,
    /// Until when the authority wants rest from everybody.
    rest: Mutex<Option<Instant>>,
    /// Until when it is not asked about renewals, since it does not say.
    silent: Mutex<Option<Instant>>,
}

impl AcmeIssuer {
    /// An issuer that shows its answers on `board` and keeps its account in `accounts`. Nothing is asked of the
    /// authority before the first certificate is.
    ///
    /// # Errors
    /// When the root certificates can't be read.
    pub fn new(config: AcmeConfig, board: ChallengeBoard, accounts: Arc<dyn AccountStore>) -> Result<Self, Fault> {
        Ok(Self {
            name: format!("acme {}", config.host()),
            client: client(&config)?,
            board,
            accounts: Accounts::new(accounts),
            places: Semaphore::new(config.limits.orders.clamp(1, 64)),
            rest: Mutex::new(None),
            silent: Mutex::new(None),
            config,
        })
    }

    async fn ordered(&self, names: &[String], now: Timestamp) -> Result<Leaf, IssueError> {
        let asked = (now, Instant::now());
        let names = self.accepted(names)?;
        self.rested()?;
        let Ok(place) = timeout(self.config.limits.queue, self.places.acquire()).await else {
            let message = format!("ACME: {} waited too long behind other orders. It is tried again.", said(&names));
            return Err(Fault::new(FaultKind::Unavailable, "AcmeBusy", message).into());
        };
        // Others may have been told to rest while this one waited.
        self.rested()?;
        let log = Log::default();
        let explain = self.explain(&log);
        let bounded = timeout(self.config.limits.order, self.order(&names, asked, &explain)).await;
        drop(place);
        let done = bounded.unwrap_or_else(|_| Err(explain.slow(&format!("the order of {}", said(&names))).into()));
        if let Err(error) = &done {
            self.note(error, &log);
        }
        done
    }

    async fn order(
        &self,
        names: &[String],
        asked: (Timestamp, Instant),
        explain: &Explain<'_>,
    ) -> Result<Leaf, IssueError> {
        let http = Http::new(&self.client, &self.config.limits, &explain.log);
        let ordering = Ordering { config: &self.config, board: &self.board, explain, names, asked };
        let mut account = self.accounts.account(&self.config, &http, explain).await?;
        self.check_profile(&account)?;
        let mut placed = ordering.place(&account).await;
        if placed.as_ref().is_err_and(|error| kind_of(error) == Some("accountDoesNotExist")) {
            tracing::warn!(authority = self.config.host(), "the authority has forgotten the account: it is made again");
            self.accounts.forget(account.id()).await;
            account = self.accounts.account(&self.config, &http, explain).await?;
            placed = ordering.place(&account).await;
        }
        let order = placed.map_err(|error| explain.error(error, &format!("the order of {}", said(names))))?;
        ordering.complete(order).await
    }

    /// The names in the form that certificates have them.
    fn accepted(&self, names: &[String]) -> Result<Vec<String>, Fault> {
        let bad = |name: &str, why: &str| {
            let message = format!("ACME: there can't be a certificate for '{}': {why}.", plain(name));
            Err(Fault::invalid("InvalidCertificate", message).at(name))
        };
        if names.is_empty() || names.len() > MAX_NAMES {
            return bad(names.first().map_or("", String::as_str), "an order has 1 to 100 names");
        }
        let mut accepted = Vec::with_capacity(names.len());
        for name in names {
            let lower = name.trim_end_matches('.').to_ascii_lowercase();
            let bare = lower.strip_prefix("*.").unwrap_or(&lower);
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if bare.parse::<std::net::IpAddr>().is_ok() {
                return bad(name, "it is an IP address, and the authority is asked for DNS names only");
            }
            if bare.is_empty() || lower.len() > 253 || !bare.bytes().all(allowed) {
                return bad(name, "it is no DNS name");
            }
            if bare.len() < lower.len() && self.config.challenge != ChallengeKind::Dns01 {
                return bad(
                    name,
                    "a wildcard can be proven by dns-01 only; start the platform with --acme-challenge dns-01",
                );
            }
            if !accepted.contains(&lower) {
                accepted.push(lower);
            }
        }
        Ok(accepted)
    }

    fn check_profile(&self, account: &Account) -> Result<(), Fault> {
        let Some(wanted) = &self.config.profile else { return Ok(()) };
        let mut offered: Vec<&str> = account.profiles().map(|profile| profile.name).collect();
        if offered.contains(&wanted.as_str()) {
            return Ok(());
        }
        offered.sort_unstable();
        let host = self.config.host();
        let message = if offered.is_empty() {
            format!("ACME: {host} has no profiles, so not '{wanted}' either. Leave --acme-profile out.")
        } else {
            let offered = plain(&offered.join(", "));
            format!("ACME: {host} has no profile '{wanted}', but {offered}. Give one of those with --acme-profile.")
        };
        Err(Fault::invalid("AcmeProfileUnknown", message).at("--acme-profile"))
    }

    /// Refuses while the authority wants rest.
    fn rested(&self) -> Result<(), IssueError> {
        let until = *self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = until.and_then(|until| until.checked_duration_since(Instant::now())) else { return Ok(()) };
        let message = format!(
            "ACME: {} asked for rest; it is asked again in {} s.",
            self.config.host(),
            left.as_secs().saturating_add(1)
        );
        let fault = Fault::new(FaultKind::Unavailable, "AcmeUnavailable", message);
        Err(IssueError { fault, retry_after: Some(left) })
    }

    /// Notes when an authority that is down or overloaded wants to be asked again, by anybody. A limit (429) may be
    /// about one name only: that one waits, and no other.
    fn note(&self, error: &IssueError, log: &Log) {
        let overloaded = log.last().is_some_and(|seen| seen.status >= 500);
        if let (true, Some(rest)) = (overloaded, error.retry_after) {
            let until = Instant::now() + rest;
            let mut held = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
            *held = Some(held.map_or(until, |held| held.max(until)));
        }
    }

    fn explain(&self, log: &Log) -> Explain<'_> {
        Explain { host: self.config.host(), challenge: self.config.challenge, log: log.clone() }
    }

    async fn suggested(&self, leaf: &Leaf) -> Option<RenewalWindow> {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.is_some_and(|until| until > Instant::now()) || self.rested().is_err() {
            return None;
        }
        let log = Log::default();
        let explain = self.explain(&log);
        let http = Http::new(&self.client, &self.config.limits, &log);
        let der = CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).ok()?;
        let identifier = CertificateIdentifier::try_from(&der).ok()?;
        let _place = timeout(self.config.limits.queue, self.places.acquire()).await.ok()?;
        let account = self.accounts.existing(&self.config, &http, &explain).await.ok()??;
        match account.renewal_info(&identifier).await {
            Ok((info, _)) => {
                let window = info.suggested_window;
                let start = Timestamp::from_second(window.start.unix_timestamp()).ok()?;
                let end = Timestamp::from_second(window.end.unix_timestamp()).ok()?;
                (start < end).then_some(RenewalWindow { start, end })
            }
            Err(Error::Unsupported(_)) => {
                *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SILENCE);
                None
            }
            Err(error) => {
                tracing::debug!(authority = self.config.host(), %error, "it does not say when to renew");
                None
            }
        }
    }
}

impl Issuer for AcmeIssuer {
    fn name(&self) -> &str {
        &self.name
    }

    fn issue<'a>(&'a self, names: &'a [String], now: Timestamp) -> BoxFuture<'a, Result<Leaf, IssueError>> {
        Box::pin(self.ordered(names, now))
    }

    fn renewal<'a>(&'a self, leaf: &'a Leaf) -> BoxFuture<'a, Option<RenewalWindow>> {
        Box::pin(self.suggested(leaf))
    }
}

impl std::fmt::Debug for AcmeIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcmeIssuer").field("name", &self.name).finish_non_exhaustive()
    }
}
