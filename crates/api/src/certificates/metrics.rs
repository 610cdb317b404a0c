//! `GET /metrics`: how certificates stand, in the text form that Prometheus reads.

use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use casemate_model::{Fault, tls::CertificateState};
use http::{HeaderValue, header};

use super::{Known, allow, known};
use crate::{context::OpContext, state::ApiState};

const STATES: [CertificateState; 5] = [
    CertificateState::Ok,
    CertificateState::Renewing,
    CertificateState::Danger,
    CertificateState::Failed,
    CertificateState::Provisional,
];

/// The answer; whoever may read all certificates may read it.
///
/// # Errors
/// `AuthorizationFailed`; when the store can't be read.
pub(crate) async fn answer(ctx: &OpContext, state: &ApiState) -> Result<Response, crate::ApiError> {
    allow(ctx, state, "certificates/read")?;
    let text = text(&known::all(state).await?, state).map_err(|_| Fault::internal("The metrics can't be written."))?;
    let mut response = text.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn text(known: &[Known], state: &ApiState) -> Result<String, std::fmt::Error> {
    let now = state.clock.now();
    let mut text = String::new();
    let out = &mut text;
    head(out, "expiry_seconds", "gauge", "Seconds until the certificate that is served ends.")?;
    for (name, facts) in known.iter().filter_map(|one| Some((label(one), one.record.certificate.as_ref()?))) {
        let left = facts.not_after.duration_since(now).as_secs();
        writeln!(out, "casemate_certificate_expiry_seconds{{name=\"{name}\"}} {left}")?;
    }
    head(out, "renewal_failures_total", "counter", "Attempts to get or to serve a certificate that failed.")?;
    for one in known {
        let failures = one.record.failures;
        writeln!(out, "casemate_certificate_renewal_failures_total{{name=\"{}\"}} {failures}", label(one))?;
    }
    head(out, "issues_total", "counter", "Certificates that were issued.")?;
    for one in known {
        writeln!(out, "casemate_certificate_issues_total{{name=\"{}\"}} {}", label(one), one.record.issued)?;
    }
    head(out, "state", "gauge", "1 for the state that the certificate is in.")?;
    for one in known {
        let is = one.record.state(now, one.is_busy);
        for at in STATES {
            let (name, value) = (label(one), u8::from(at == is));
            writeln!(out, "casemate_certificate_state{{name=\"{name}\",state=\"{at:?}\"}} {value}")?;
        }
    }
    Ok(text)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP casemate_certificate_{name} {help}\n# TYPE casemate_certificate_{name} {kind}")
}

/// The certificate's name; host names hold nothing that a label can't.
fn label(known: &Known) -> String {
    known.name().chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect()
}
