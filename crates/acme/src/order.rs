//! One order from beginning to end: names, proofs, request, certificate (RFC 8555, section 7.4).

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use casemate_model::{
    Fault,
    challenge::{ChallengeBoard, Posted},
};
use casemate_pki::{IssueError, Leaf};
use instant_acme::{
    Account, AuthorizationStatus, Error, Identifier, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use jiff::Timestamp;

use crate::{
    AcmeConfig,
    certificate::Request,
    challenge::{is_token, post, type_name},
    failure::Explain,
    http::plain,
};

/// How often a step is taken again when the authority did not like its nonce; the library tries three times each.
pub(crate) const NONCE_RETRIES: u32 = 8;

/// Awaits a step, and takes it again when its nonce was refused: the authority did nothing then.
macro_rules! persist {
    ($step:expr) => {{
        let mut left = $crate::order::NONCE_RETRIES;
        loop {
            match $step.await {
                Err(error) if left > 0 && $crate::failure::kind_of(&error) == Some("badNonce") => left -= 1,
                done => break done,
            }
        }
    }};
}
pub(crate) use persist;

/// What an order needs.
pub(crate) struct Ordering<'a> {
    /// The authority.
    pub config: &'a AcmeConfig,
    /// Where answers are shown.
    pub board: &'a ChallengeBoard,
    /// Explains failures.
    pub explain: &'a Explain<'a>,
    /// The names.
    pub names: &'a [String],
    /// When the certificate was asked for.
    pub asked: (Timestamp, Instant),
}

impl Ordering<'_> {
    /// The order as the authority has taken it.
    pub(crate) async fn place(&self, account: &Account) -> Result<Order, Error> {
        let identifiers: Vec<Identifier> = self.names.iter().cloned().map(Identifier::Dns).collect();
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &self.config.profile {
            new = new.profile(profile);
        }
        persist!(account.new_order(&new))
    }

    /// Proves the names, and gets the certificate.
    pub(crate) async fn complete(&self, mut order: Order) -> Result<Leaf, IssueError> {
        if order.state().status == OrderStatus::Pending {
            // The answers are shown until the authority has looked.
            let _posted = self.prove(&mut order).await?;
            self.await_proof(&mut order).await?;
        }
        let what = format!("the certificate of {}", self.said());
        if order.state().status != OrderStatus::Ready {
            let status = order.state().status;
            return Err(self.explain.contradiction(&format!("the order is {status:?}"), &what).into());
        }
        let request = Request::new(self.names).map_err(|error| {
            Fault::internal(format!("ACME: the request for {} can't be made: {error}.", self.said()))
        })?;
        persist!(order.finalize_csr(&request.der)).map_err(|error| self.explain.error(error, &what))?;
        let policy = self.policy();
        let chain = persist!(order.poll_certificate(&policy)).map_err(|error| self.explain.error(error, &what))?;
        let (asked, since) = self.asked;
        let now = asked.checked_add(since.elapsed()).unwrap_or(asked);
        request.accept(chain, self.names, now).map_err(|why| self.explain.contradiction(&why, &what).into())
    }

    /// Shows the answers and tells the authority to look at them.
    async fn prove(&self, order: &mut Order) -> Result<Vec<Posted>, IssueError> {
        let what = format!("the challenges of {}", self.said());
        if order.state().authorizations.len() > self.names.len() {
            return Err(self.explain.contradiction("it wants more proofs than there are names", &what).into());
        }
        let (mut posted, mut told) = (Vec::new(), HashSet::new());
        persist!(self.answer(order, &mut posted, &mut told)).map_err(|error| self.explain.error(error, &what))??;
        Ok(posted)
    }

    /// Answers the challenges that are not in `told` yet.
    async fn answer(
        &self,
        order: &mut Order,
        posted: &mut Vec<Posted>,
        told: &mut HashSet<String>,
    ) -> Result<Result<(), IssueError>, Error> {
        let what = format!("the challenges of {}", self.said());
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            if authorization.status == AuthorizationStatus::Valid || told.contains(&name) {
                continue;
            }
            if !self.names.contains(&name) {
                return Ok(Err(self.explain.contradiction("it wants a proof of another name", &what).into()));
            }
            let offered: Vec<&str> =
                authorization.challenges.iter().map(|challenge| type_name(&challenge.r#type)).take(8).collect();
            let offered = plain(&offered.join(", "));
            let Some(mut challenge) = authorization.challenge(self.config.challenge.into()) else {
                return Ok(Err(self.not_offered(&name, &offered).into()));
            };
            if !is_token(&challenge.token) {
                return Ok(Err(self.explain.contradiction("the token of its challenge is none", &what).into()));
            }
            let bare = name.strip_prefix("*.").unwrap_or(&name);
            let answer = challenge.key_authorization();
            match post(self.board, self.config.challenge, bare, &challenge.token, &answer) {
                Ok(shown) => posted.push(shown),
                Err(fault) => return Ok(Err(fault.into())),
            }
            match challenge.set_ready().await {
                Ok(()) => told.insert(name),
                // The authority looked at once, and the order says later what it saw.
                Err(Error::Api(problem)) if is_verdict(&problem) => told.insert(name),
                Err(error) => return Err(error),
            };
        }
        Ok(Ok(()))
    }

    /// Waits until the authority has looked at all answers.
    async fn await_proof(&self, order: &mut Order) -> Result<(), IssueError> {
        let what = format!("the challenges of {}", self.said());
        let policy = self.policy();
        match persist!(order.poll_ready(&policy)) {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) | Err(Error::Api(_)) if order.state().status == OrderStatus::Invalid => {
                let error = order.state().error.clone();
                let failures = self.failures(order).await.map_err(|error| self.explain.error(error, &what))?;
                Err(match (self.explain.failed_challenges(failures), error) {
                    (Some(fault), _) => fault.into(),
                    (None, Some(problem)) => self.explain.error(Error::Api(problem), &what),
                    (None, None) => self.explain.contradiction("the order is invalid without a reason", &what).into(),
                })
            }
            Ok(status) => Err(self.explain.contradiction(&format!("the order is {status:?}"), &what).into()),
            Err(error) => Err(self.explain.error(error, &what)),
        }
    }

    /// The names that could not be proven, and why.
    async fn failures(&self, order: &mut Order) -> Result<Vec<(String, Option<Problem>)>, Error> {
        persist!(async {
            let mut failures = Vec::new();
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let authorization = authorization?;
                if !matches!(authorization.status, AuthorizationStatus::Valid | AuthorizationStatus::Pending) {
                    let name = authorization.identifier().to_string();
                    let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
                    failures.push((name, problem));
                }
            }
            Ok::<_, Error>(failures)
        })
    }

    fn not_offered(&self, name: &str, offered: &str) -> Fault {
        let message = format!(
            "ACME: {} does not take {} as a proof of {name}, but {offered}. Give one of those with --acme-challenge.",
            self.explain.host,
            self.config.challenge.as_str()
        );
        Fault::invalid("AcmeChallengeNotOffered", message).at(name)
    }

    fn policy(&self) -> RetryPolicy {
        let delay = Duration::from_millis(250);
        RetryPolicy::new().initial_delay(delay).backoff(1.5).timeout(self.config.limits.processing)
    }

    /// The names as people are told them.
    fn said(&self) -> String {
        said(self.names)
    }
}

/// The names as people are told them.
pub(crate) fn said(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        [name] => name.clone(),
        [name, others @ ..] => format!("{name} and {} more", others.len()),
    }
}

/// Whether a problem is what the authority saw, and not what it thinks of the request.
fn is_verdict(problem: &Problem) -> bool {
    let kind = problem.r#type.as_deref().unwrap_or_default().rsplit(':').next().unwrap_or_default();
    matches!(kind, "connection" | "dns" | "incorrectResponse" | "tls" | "caa" | "unauthorized")
}
