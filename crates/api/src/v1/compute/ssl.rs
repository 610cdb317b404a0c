//! `sslConfiguration`: what a body asks of a compute's TLS, in every form that clients send it.

use casemate_model::{Fault, Secret};
use serde_json::{Map, Value};

use crate::arm::shape;

/// Most bytes of a certificate chain.
const MAX_CHAIN: usize = 256 << 10;
/// Most bytes of a private key.
const MAX_KEY: usize = 64 << 10;
/// The longest name.
const MAX_NAME: usize = 253;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing: all stays as it is.
    Keep,
    /// No TLS.
    Off,
    /// A certificate of the platform.
    Platform {
        /// Under this label; none is the present one.
        label: Option<String>,
        /// Also when the label is another compute's.
        overwrite: bool,
        /// Also when the present certificate is good.
        renew: bool,
    },
    /// This certificate.
    Custom {
        /// The name that clients use.
        cname: String,
        /// The certificate and those above it, PEM.
        chain: String,
        /// Its key, PEM.
        key: Secret,
    },
}

/// What the compute has now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// No TLS.
    #[default]
    Off,
    /// A certificate of the platform.
    Platform {
        /// The label as it was given.
        label: String,
        /// The whole name.
        name: String,
    },
    /// A certificate that was given.
    Custom {
        /// The name that clients use.
        cname: String,
    },
}

/// Reads the configuration.
///
/// # Errors
/// `BadArgument` saying what contradicts what, what is missing, or why there is nothing to renew.
pub(super) fn read(given: Option<&Value>, now: &Standing) -> Result<Asked, Fault> {
    let given = match given {
        None | Some(Value::Null) => return Ok(Asked::Keep),
        Some(Value::Object(given)) => Fields::read(given)?,
        Some(_) => return Err(bad("sslConfiguration is not an object.", "")),
    };
    match given.status(now)? {
        "Disabled" => off(&given),
        "Auto" => platform(given, now),
        _ => custom(given, now),
    }
}

/// The fields as given; empty texts count as absent.
struct Fields {
    status: Option<&'static str>,
    cname: Option<String>,
    chain: Option<String>,
    key: Option<Secret>,
    label: Option<String>,
    overwrite: bool,
    renew: bool,
}

impl Fields {
    fn read(given: &Map<String, Value>) -> Result<Self, Fault> {
        let truth = |field: &str| match given.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => shape::truth(value, field),
        };
        let status = given.get("status").filter(|value| !value.is_null());
        Ok(Self {
            status: status.map(|value| shape::one_of(value, "status", &["Auto", "Enabled", "Disabled"])).transpose()?,
            cname: text(given, "cname", MAX_NAME)?,
            chain: text(given, "cert", MAX_CHAIN)?,
            key: text(given, "key", MAX_KEY)?.map(Secret::from),
            label: text(given, "leafDomainLabel", MAX_NAME)?,
            overwrite: truth("overwriteExistingDomain")?,
            renew: truth("renew")?,
        })
    }

    /// The status given, or the one that the other fields speak of.
    fn status(&self, now: &Standing) -> Result<&'static str, Fault> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        if self.label.is_some() {
            return Ok("Auto");
        }
        if self.cname.is_some() || self.has_certificate() {
            return Ok("Enabled");
        }
        match (self.renew, now) {
            (true, Standing::Platform { .. }) => Ok("Auto"),
            (true, _) => Err(nothing_to_renew(now)),
            _ => Err(bad("sslConfiguration is empty; give status Auto, Enabled or Disabled.", "status")),
        }
    }

    fn has_certificate(&self) -> bool {
        self.chain.is_some() || self.key.is_some()
    }
}

fn off(given: &Fields) -> Result<Asked, Fault> {
    if given.renew {
        return Err(bad("TLS can't be disabled and its certificate renewed at once; leave out one of both.", "renew"));
    }
    if given.has_certificate() {
        let message = "The status is Disabled, but a certificate is given. To serve it set the status to Enabled; to \
                       turn TLS off leave out cert and key.";
        return Err(bad(message, "status"));
    }
    Ok(Asked::Off)
}

fn platform(given: Fields, now: &Standing) -> Result<Asked, Fault> {
    // A client that writes back what it has read sends the name of the label, too.
    let own = matches!(now, Standing::Platform { name, .. } if given.cname.as_deref() == Some(name));
    if given.has_certificate() || (given.cname.is_some() && !own) {
        return Err(both());
    }
    if given.renew && !matches!(now, Standing::Platform { .. }) {
        return Err(nothing_to_renew(now));
    }
    if given.label.is_none() && !given.renew {
        let message = "The status is Auto, but leafDomainLabel is missing; give the label that the platform's name for \
                       the compute begins with.";
        return Err(bad(message, "leafDomainLabel"));
    }
    Ok(Asked::Platform { label: given.label, overwrite: given.overwrite, renew: given.renew })
}

fn custom(given: Fields, now: &Standing) -> Result<Asked, Fault> {
    if given.label.is_some() {
        return Err(both());
    }
    if given.overwrite {
        let message = "overwriteExistingDomain goes with a leaf domain label only; leave it out when you give a \
                       certificate of your own.";
        return Err(bad(message, "overwriteExistingDomain"));
    }
    if given.renew {
        let message = "renew is for certificates of the platform. To renew a certificate of your own give the new one: \
                       cname, cert and key (casemate ml computetarget update aks --ssl-cname --ssl-cert-file \
                       --ssl-key-file).";
        return Err(bad(message, "renew"));
    }
    match (given.cname, given.chain, given.key) {
        (Some(cname), Some(chain), Some(key)) => Ok(Asked::Custom { cname, chain, key }),
        // What a client has read, written back.
        (Some(cname), None, None) if *now == (Standing::Custom { cname: cname.to_ascii_lowercase() }) => {
            Ok(Asked::Keep)
        }
        (cname, chain, key) => {
            let missing: Vec<&str> = [("cname", cname.is_none()), ("cert", chain.is_none()), ("key", key.is_none())]
                .into_iter()
                .filter_map(|(name, is_missing)| is_missing.then_some(name))
                .collect();
            let message = format!(
                "A certificate of your own needs cname, cert and key together; missing: {}. What was served is served \
                 on.",
                missing.join(", ")
            );
            Err(bad(&message, missing.first().copied().unwrap_or_default()))
        }
    }
}

fn both() -> Fault {
    let message = "A leaf domain label (a certificate of the platform) and a certificate of your own are both given; \
                   give either leafDomainLabel, or cname, cert and key.";
    bad(message, "leafDomainLabel")
}

fn nothing_to_renew(now: &Standing) -> Fault {
    let message = match now {
        Standing::Custom { cname } => format!(
            "The certificate of '{cname}' is one that you gave, which the platform can't renew. Give the new one with \
             cname, cert and key."
        ),
        _ => "TLS is off, so there is nothing to renew. Turn it on with a leaf domain label first, without renew."
            .to_owned(),
    };
    bad(&message, "renew")
}

fn text(map: &Map<String, Value>, key: &str, longest: usize) -> Result<Option<String>, Fault> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= longest => Ok(Some(text.clone())),
        Some(Value::String(text)) => Err(bad(&format!("{key} has {} bytes; it may have {longest}.", text.len()), key)),
        Some(_) => Err(bad(&format!("{key} is not a text."), key)),
    }
}

fn bad(message: &str, field: &str) -> Fault {
    let at = if field.is_empty() { "sslConfiguration".to_owned() } else { format!("sslConfiguration.{field}") };
    Fault::invalid("BadArgument", message).at(at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn platform_now() -> Standing {
        Standing::Platform { label: "myaks".to_owned(), name: "myaksa1b2c3.local.cloudapp.x".to_owned() }
    }

    fn custom_now() -> Standing {
        Standing::Custom { cname: "www.contoso.com".to_owned() }
    }

    #[test]
    fn what_clients_send() {
        let platform = |label: Option<&str>, overwrite, renew| Asked::Platform {
            label: label.map(str::to_owned),
            overwrite,
            renew,
        };
        for (now, given, asked) in [
            (Standing::Off, json!(null), Asked::Keep),
            (platform_now(), json!({"status": "Disabled"}), Asked::Off),
            (Standing::Off, json!({"status": "Disabled", "cname": "", "cert": "", "key": ""}), Asked::Off),
            (
                Standing::Off,
                json!({"status": "Auto", "leafDomainLabel": "a", "overwriteExistingDomain": false}),
                platform(Some("a"), false, false),
            ),
            (
                platform_now(),
                json!({"status": "Auto", "leafDomainLabel": "myaks", "cname": "myaksa1b2c3.local.cloudapp.x", "overwriteExistingDomain": true, "renew": true}),
                platform(Some("myaks"), true, true),
            ),
            (platform_now(), json!({"renew": true}), platform(None, false, true)),
            (
                platform_now(),
                json!({"status": "Enabled", "cname": "c.d", "cert": "C", "key": "K"}),
                Asked::Custom { cname: "c.d".to_owned(), chain: "C".to_owned(), key: Secret::from("K") },
            ),
            (
                custom_now(),
                json!({"status": "Enabled", "cname": "www.contoso.com", "leafDomainLabel": null}),
                Asked::Keep,
            ),
        ] {
            assert_eq!(read(Some(&given), &now).unwrap(), asked, "{given}");
        }
        assert_eq!(read(None, &custom_now()).unwrap(), Asked::Keep);
    }

    #[test]
    fn contradictions_are_named() {
        for (now, given, said) in [
            (Standing::Off, json!("Auto"), "not an object"),
            (Standing::Off, json!({}), "is empty"),
            (Standing::Off, json!({"status": "On"}), "Auto, Enabled, Disabled"),
            (Standing::Off, json!({"status": "Auto"}), "leafDomainLabel is missing"),
            (Standing::Off, json!({"status": "Enabled", "cname": "a.b"}), "missing: cert, key"),
            (Standing::Off, json!({"cert": "C", "key": "K"}), "missing: cname"),
            (custom_now(), json!({"status": "Enabled", "cname": "www.contoso.com", "cert": "C"}), "missing: key"),
            (custom_now(), json!({"status": "Enabled", "cname": "other.com"}), "missing: cert, key"),
            (Standing::Off, json!({"leafDomainLabel": "a", "cname": "b.c", "cert": "C", "key": "K"}), "both given"),
            (Standing::Off, json!({"status": "Enabled", "leafDomainLabel": "a", "cname": "b.c"}), "both given"),
            (platform_now(), json!({"status": "Auto", "leafDomainLabel": "myaks", "cname": "b.c"}), "both given"),
            (custom_now(), json!({"status": "Enabled", "cname": "www.contoso.com", "renew": true}), "give the new one"),
            (
                custom_now(),
                json!({"status": "Auto", "leafDomainLabel": "a", "renew": true}),
                "'www.contoso.com' is one that you gave",
            ),
            (Standing::Off, json!({"renew": true}), "TLS is off"),
            (Standing::Off, json!({"status": "Auto", "leafDomainLabel": "a", "renew": true}), "TLS is off"),
            (platform_now(), json!({"status": "Disabled", "renew": true}), "at once"),
            (platform_now(), json!({"status": "Disabled", "cert": "C"}), "status is Disabled"),
            (
                Standing::Off,
                json!({"status": "Enabled", "cname": "a.b", "cert": "C", "key": "K", "overwriteExistingDomain": true}),
                "label only",
            ),
            (Standing::Off, json!({"status": "Auto", "leafDomainLabel": 7}), "not a text"),
            (
                Standing::Off,
                json!({"status": "Enabled", "cname": "a.b", "key": "k".repeat(MAX_KEY + 1)}),
                "may have 65536",
            ),
        ] {
            let fault = read(Some(&given), &now).unwrap_err();
            assert!(fault.message.contains(said), "{given}: {}", fault.message);
            assert!(!fault.message.contains("kkkk"), "a key must not be repeated");
        }
    }
}
