//! The certificate of a service that runs alone: checked before it is accepted, kept as a secret, never shown.

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId, Secret,
    service::{NAMES_FIELD, SERVICE_TYPE, ServiceKind},
    tls::{CUSTOM_CHAIN, CUSTOM_KEY, TLS_FIELD, TlsMode, TlsWish},
};
use casemate_store::{Filter, Tx};
use serde_json::Value;

use super::{addresses::public_host, wish};
use crate::{ApiError, ApiState, OpContext, v1::compute};

/// What a request asks of the certificate.
pub(super) struct Ask {
    kind: ServiceKind,
    enabled: Option<bool>,
    cname: Option<String>,
    chain: Option<String>,
    key: Option<Secret>,
}

impl Ask {
    /// Reads it.
    ///
    /// # Errors
    /// `BadArgument` for a certificate of a service on a compute, whose certificate is the compute's; `NotImplemented`
    /// for fields that are not available.
    pub(super) fn read(kind: ServiceKind, given: &Value) -> Result<Self, Fault> {
        let text = |field: &str| given[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let enabled = match given.get("sslEnabled") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(enabled)) => Some(*enabled),
            Some(_) => {
                return Err(Fault::invalid("BadArgument", "'sslEnabled' is neither true nor false.").at("sslEnabled"));
            }
        };
        let ask = Self {
            kind,
            enabled,
            cname: text("cname"),
            chain: text("sslCertificate"),
            key: text("sslKey").map(Secret::from),
        };
        if kind == ServiceKind::Aci {
            wish::check_aci(given)?;
        } else if ask.chain.is_some() || ask.key.is_some() || ask.cname.is_some() {
            let message = "A service on a compute has the compute's certificate. Configure TLS on the compute, or leave out \
                           the certificate.";
            return Err(Fault::invalid("BadArgument", message).at("sslCertificate"));
        }
        Ok(ask)
    }

    /// Decides the wish, keeps a certificate that was given, and puts the wish into the body. `before` is the row so far.
    ///
    /// # Errors
    /// `BadArgument` for parts without the others, faults of the certificate's check, `CnameInUse`.
    pub(super) async fn settle(
        self,
        tx: &mut Tx,
        ctx: &OpContext,
        state: &ApiState,
        id: &ResourceId,
        before: Option<&Resource>,
        body: &mut Value,
    ) -> Result<(), ApiError> {
        let present = before.map(TlsWish::of).transpose()?.flatten();
        if self.kind != ServiceKind::Aci {
            return Ok(());
        }
        let is_on = present.as_ref().is_some_and(|wish| wish.mode != TlsMode::Off);
        let (chain, key) = match (self.chain, self.key) {
            (Some(chain), Some(key)) => (Some(chain), Some(key)),
            (None, None) => (None, None),
            _ => {
                let message =
                    "A certificate and its key belong together; give both (ssl_cert_pem_file, ssl_key_pem_file).";
                return Err(Fault::invalid("BadArgument", message).at("sslCertificate").into());
            }
        };
        if !self.enabled.unwrap_or(is_on) {
            if chain.is_some() {
                let message = "A certificate is given, but TLS is not enabled. Set ssl_enabled to True.";
                return Err(Fault::invalid("BadArgument", message).at("sslEnabled").into());
            }
            if let Some(wish) = present {
                body[TLS_FIELD] = TlsWish { mode: TlsMode::Off, names: Vec::new(), ..wish }.to_value();
            }
            return Ok(());
        }
        let base = present.unwrap_or_else(TlsWish::off);
        let cname = self.cname.ok_or_else(|| {
            Fault::invalid("BadArgument", "TLS is enabled, but there is no name to serve. Give ssl_cname.").at("cname")
        })?;
        let cname = compute::check_cname(state, &cname).map_err(|fault| fault.at("cname"))?;
        compute::check_free(tx, ctx, id, &cname).await?;
        let version = if chain.is_some() { base.version + 1 } else { base.version };
        let (chain, key, is_new) = match (chain, key) {
            (Some(chain), Some(key)) => (Secret::from(chain), key, true),
            _ => {
                let (chain, key) = kept(tx, id, version).await?;
                (chain, key, false)
            }
        };
        let text =
            chain.expose_str().map_err(|_| Fault::invalid("InvalidCertificate", "The certificate is no text."))?;
        let checked = casemate_pki::custom::check(text, &key, &cname, state.clock.now())
            .map_err(|fault| fault.at("sslCertificate"))?;
        for warning in &checked.warnings {
            tracing::warn!(service = %id, %warning, "a certificate was accepted");
        }
        if is_new {
            tx.secret_put(id, &format!("{CUSTOM_CHAIN}-{version}"), &chain).await?;
            tx.secret_put(id, &format!("{CUSTOM_KEY}-{version}"), &key).await?;
            if let Some(old) = version.checked_sub(2) {
                tx.secret_remove(id, &format!("{CUSTOM_CHAIN}-{old}")).await?;
                tx.secret_remove(id, &format!("{CUSTOM_KEY}-{old}")).await?;
            }
        }
        body[TLS_FIELD] = TlsWish { mode: TlsMode::Custom, names: vec![cname], version, ..base }.to_value();
        Ok(())
    }
}

/// The certificate that was given last.
async fn kept(tx: &mut Tx, id: &ResourceId, version: u64) -> Result<(Secret, Secret), ApiError> {
    let chain = tx.secret_get(id, &format!("{CUSTOM_CHAIN}-{version}")).await?;
    let key = tx.secret_get(id, &format!("{CUSTOM_KEY}-{version}")).await?;
    Ok(chain.zip(key).ok_or_else(|| {
        let message = "TLS is enabled, but there is no certificate. Give ssl_cert_pem_file and ssl_key_pem_file.";
        Fault::invalid("BadArgument", message).at("sslCertificate")
    })?)
}

/// The name that a DNS label gives a service.
///
/// # Errors
/// `BadArgument` for a label that is none.
pub(super) fn label_name(state: &ApiState, kind: ServiceKind, given: &Value) -> Result<Option<String>, Fault> {
    let Some(label) = given["dnsNameLabel"].as_str().filter(|label| !label.is_empty() && kind == ServiceKind::Aci)
    else {
        return Ok(None);
    };
    let good = (5..=63).contains(&label.len())
        && label.starts_with(|c: char| c.is_ascii_alphabetic())
        && label.ends_with(|c: char| c.is_ascii_alphanumeric())
        && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !good {
        let shown: String = label.chars().filter(|c| !c.is_control()).take(64).collect();
        let message = format!(
            "The dns_name_label '{shown}' must have 5 to 63 letters, digits and '-', start with a letter and not end with '-'."
        );
        return Err(Fault::invalid("BadArgument", message).at("dnsNameLabel"));
    }
    Ok(Some(format!("{label}.{}.azurecontainer.{}", state.config.region, state.config.domain).to_ascii_lowercase()))
}

/// Insists that no other service has the name of this body's label.
///
/// # Errors
/// `DnsNameLabelInUse`.
pub(super) async fn check_label(tx: &mut Tx, id: &ResourceId, body: &Value) -> Result<(), ApiError> {
    let Some(name) = body[NAMES_FIELD].get(0).cloned() else { return Ok(()) };
    let others = tx.resource_list(&Filter::of_type(SERVICE_TYPE)).await?;
    if others.iter().any(|other| other.id != *id && other.body[NAMES_FIELD].get(0) == Some(&name)) {
        let message = format!("The name {name} is another service's already. Choose another dns_name_label.");
        return Err(Fault::new(FaultKind::Conflict, "DnsNameLabelInUse", message).at("dnsNameLabel").into());
    }
    Ok(())
}

/// The address that clients without a name use.
pub(super) fn public_ip(state: &ApiState) -> &str {
    public_host(&state.config.url)
}
