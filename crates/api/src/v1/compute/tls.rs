//! From what a body asks to the TLS wish that is stored with a compute.

use casemate_model::{
    Fault, Resource, ResourceId,
    endpoint::ENDPOINT_TYPE,
    service::{NAMES_FIELD, SERVICE_TYPE},
    tls::{TLS_FIELD, TlsMode, TlsWish},
};
use casemate_pki::custom;
use casemate_store::{Filter, Tx};
use serde_json::{Value, json};

use super::{
    Custom,
    body::COMPUTE_TYPE,
    labels::{self, Labels},
    ssl::{Asked, Standing},
};
use crate::{context::OpContext, error::ApiError, state::ApiState};

/// What the owner should know.
pub(super) const WARNINGS: &str = "_warnings";

/// What the compute has by its stored configuration.
pub(super) fn standing(before: Option<&Resource>) -> Standing {
    let Some(ssl) = before.map(|before| &before.properties()["properties"]["sslConfiguration"]) else {
        return Standing::Off;
    };
    let text = |key: &str| ssl[key].as_str().unwrap_or_default().to_owned();
    match ssl["status"].as_str() {
        Some("Auto") => Standing::Platform { label: text("leafDomainLabel"), name: text("cname") },
        Some("Enabled") => Standing::Custom { cname: text("cname") },
        _ => Standing::Off,
    }
}

/// What is to be stored of a compute's TLS.
pub(super) struct Settled {
    ssl: Value,
    wish: Option<TlsWish>,
    labels: Labels,
    names: Value,
    warnings: Vec<String>,
    custom: Option<Custom>,
}

impl Settled {
    /// What a compute has, or what a new one starts with.
    fn of(before: Option<&Resource>) -> Result<Self, Fault> {
        let kept = |key: &str| before.and_then(|before| before.body.get(key)).cloned();
        let warnings = kept(WARNINGS).and_then(|kept| serde_json::from_value(kept).ok()).unwrap_or_default();
        Ok(Self {
            ssl: before.map_or_else(disabled, |before| before.properties()["properties"]["sslConfiguration"].clone()),
            wish: before.map(TlsWish::of).transpose()?.flatten(),
            labels: before.map(Labels::of).unwrap_or_default(),
            names: kept(NAMES_FIELD).unwrap_or_else(|| json!([])),
            warnings,
            custom: None,
        })
    }

    /// The wish so far; of none, one that counts from zero.
    fn base(&self) -> TlsWish {
        self.wish.clone().unwrap_or_else(TlsWish::off)
    }

    /// Lays it into the body; gives the certificate that is to be kept as a secret.
    pub(super) fn write_into(self, body: &mut Value) -> Option<Custom> {
        body["properties"]["properties"]["sslConfiguration"] = self.ssl;
        if let Some(wish) = &self.wish {
            body[TLS_FIELD] = wish.to_value();
        }
        self.labels.write_into(body);
        body[NAMES_FIELD] = self.names;
        write_warnings(body, &self.warnings);
        self.custom
    }
}

/// Decides what to store, taking a label from another compute where that is asked for.
///
/// # Errors
/// `BadArgument` for a label or a certificate that can't be used; conflicts for a name that is another's.
pub(super) async fn settle(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    before: Option<&Resource>,
    asked: Asked,
) -> Result<Settled, ApiError> {
    let mut settled = Settled::of(before)?;
    let base = settled.base();
    match asked {
        Asked::Keep => {}
        Asked::Off => {
            settled.ssl = disabled();
            settled.warnings.clear();
            settled.wish = settled.wish.map(|wish| TlsWish { mode: TlsMode::Off, names: Vec::new(), ..wish });
        }
        Asked::Platform { label, overwrite, renew } => {
            let present = match standing(before) {
                Standing::Platform { label, .. } => Some(label),
                _ => None,
            };
            let given = label.or_else(|| present.clone()).ok_or_else(internal)?;
            let given = labels::check(&given)?;
            let label = labels::claim(tx, ctx, state, id, &mut settled.labels, &given, overwrite).await?;
            if let Some(present) = present.filter(|present| renew && *present != label) {
                let message = format!(
                    "The certificate to be renewed is that of the label '{present}', but the label '{label}' is given. \
                     Give '{present}'; or, to go by another label, leave out renew."
                );
                return Err(Fault::invalid("BadArgument", message).at("sslConfiguration.leafDomainLabel").into());
            }
            let first = settled.labels.first_part(&label).ok_or_else(internal)?;
            let name = platform_name(state, &first);
            settled.ssl = json!({
                "status": "Auto",
                "cname": name,
                "leafDomainLabel": label,
                "overwriteExistingDomain": overwrite,
            });
            settled.names = json!([name]);
            settled.warnings.clear();
            let renewal = base.renewal + u64::from(renew);
            settled.wish = Some(TlsWish { mode: TlsMode::Platform, names: vec![name], renewal, ..base });
        }
        Asked::Custom { cname, chain, key } => {
            let cname = check_cname(state, &cname)?;
            check_free(tx, ctx, id, &cname).await?;
            settled.warnings = custom::check(&chain, &key, &cname, state.clock.now())?.warnings;
            settled.ssl = json!({
                "status": "Enabled",
                "cname": cname,
                "leafDomainLabel": null,
                "overwriteExistingDomain": false,
            });
            let version = base.version + 1;
            // Kept as given: it is judged again when it is to be served, which may be much later.
            settled.custom = Some(Custom { version, chain, key });
            settled.wish = Some(TlsWish { mode: TlsMode::Custom, names: vec![cname], version, ..base });
        }
    }
    Ok(settled)
}

/// Checks the name that clients use; gives it in lower case, without the root's dot.
pub(crate) fn check_cname(state: &ApiState, given: &str) -> Result<String, Fault> {
    let cname = given.trim().trim_end_matches('.').to_ascii_lowercase();
    let shown: String = cname.chars().filter(|c| !c.is_control()).take(100).collect();
    let bad = |message: String| Err(Fault::invalid("BadArgument", message).at("sslConfiguration.cname"));
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
    };
    if cname.starts_with("*.") {
        return bad(format!(
            "The cname '{shown}' is a wildcard. Give the one name that clients use, such as 'www{}'; the certificate may \
             be for the wildcard.",
            &shown[1..]
        ));
    }
    if cname.parse::<std::net::IpAddr>().is_ok() || !cname.split('.').all(part) || cname.len() > 253 {
        return bad(format!(
            "The cname '{shown}' is not a DNS name; give the name that clients use, such as www.contoso.com."
        ));
    }
    let domain = state.config.domain.to_ascii_lowercase();
    let host = state.config.url.trim_start_matches("https://").split([':', '/']).next().unwrap_or_default().to_owned();
    let below = cname.strip_suffix(&domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    if below || cname == "localhost" || cname == host {
        return bad(format!(
            "The cname '{shown}' is a name of the platform, which has certificates for those itself. Give a name of your \
             own; or, for a name below {domain}, a leaf domain label instead of a certificate."
        ));
    }
    Ok(cname)
}

/// Insists that no other owner is served under a name.
pub(crate) async fn check_free(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, cname: &str) -> Result<(), ApiError> {
    for kind in [COMPUTE_TYPE, SERVICE_TYPE, ENDPOINT_TYPE] {
        for other in tx.resource_list(&Filter::of_type(kind)).await? {
            let wish = TlsWish::of(&other)?;
            if other.id == *id || !wish.is_some_and(|wish| wish.names.iter().any(|name| name == cname)) {
                continue;
            }
            let whose = if ctx.can(&format!("{kind}/read"), &other.id) {
                format!("by '{}'", other.id)
            } else {
                "by another owner".to_owned()
            };
            let message = format!(
                "The cname '{cname}' is in use {whose}. A name leads to one place: disable TLS there first, or give \
                 another name."
            );
            return Err(Fault::conflict("CnameInUse", message).at("sslConfiguration.cname").into());
        }
    }
    Ok(())
}

/// The whole name under the platform's domain.
pub(super) fn platform_name(state: &ApiState, first: &str) -> String {
    format!("{first}.{}.cloudapp.{}", state.config.region, state.config.domain).to_ascii_lowercase()
}

/// Shows TLS as off in a stored body.
pub(super) fn write_off(body: &mut Value) {
    body["properties"]["properties"]["sslConfiguration"] = disabled();
}

/// Lets a name of a stored body not resolve any more.
pub(super) fn drop_name(body: &mut Value, name: &str) {
    if let Some(names) = body.get_mut(NAMES_FIELD).and_then(Value::as_array_mut) {
        names.retain(|kept| kept != name);
    }
}

/// Writes what the owner should know into a body.
pub(super) fn write_warnings(body: &mut Value, warnings: &[String]) {
    body[WARNINGS] = json!(warnings);
}

fn disabled() -> Value {
    json!({"status": "Disabled", "cname": null, "leafDomainLabel": null, "overwriteExistingDomain": false})
}

/// What a stored compute can't lack.
fn internal() -> Fault {
    Fault::internal("The labels stored for the compute can't be read.")
}
