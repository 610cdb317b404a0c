//! Labels: names of the platform's making, `<label><six characters>.<region>.cloudapp.<domain>`.
//!
//! A compute holds a label from its first use until it is deleted, also while its TLS is off or goes by another name, and
//! the six characters with it, so that its name never changes under its clients. The label with its six characters is
//! understood as the label. Another compute gets it only when it says so (`overwriteExistingDomain`), with the right to
//! write both: then the name moves, and the one that lost it says so.

use std::collections::BTreeMap;

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    tls::{TLS_FIELD, TlsMode, TlsWish},
};
use casemate_store::{Condition, Filter, Tx};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{body::COMPUTE_TYPE, tls};
use crate::{context::OpContext, error::ApiError, state::ApiState};

/// Where a compute keeps its labels and their six characters.
const LABELS: &str = "_labels";
/// The longest label: with its six characters it is one label of DNS.
const MAX_LABEL: usize = 57;
/// Most labels that one compute holds.
const MAX_HELD: usize = 16;
/// The characters after a label.
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const TAIL: usize = 6;

/// The labels of a compute: its six characters by label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels(BTreeMap<String, String>);

impl Labels {
    pub(super) fn of(compute: &Resource) -> Self {
        let kept = compute.body.get(LABELS).and_then(Value::as_object).into_iter().flatten();
        Self(kept.filter_map(|(label, tail)| Some((label.clone(), tail.as_str()?.to_owned()))).collect())
    }

    pub(super) fn write_into(&self, body: &mut Value) {
        if self.0.is_empty() {
            if let Some(body) = body.as_object_mut() {
                body.remove(LABELS);
            }
        } else {
            body[LABELS] = json!(self.0);
        }
    }

    /// The held label that is meant: given as it is, or with its six characters.
    pub(super) fn meant(&self, given: &str) -> Option<&str> {
        let whole = |label: &str, tail: &str| given.strip_prefix(label) == Some(tail);
        let found = self.0.iter().find(|(label, tail)| given == *label || whole(label, tail));
        found.map(|(label, _)| label.as_str())
    }

    /// The first part of the name under a held label.
    pub(super) fn first_part(&self, label: &str) -> Option<String> {
        self.0.get(label).map(|tail| format!("{label}{tail}"))
    }
}

/// Checks a label by the rules of DNS; gives it in lower case.
///
/// # Errors
/// `BadArgument` saying what a label may hold.
pub(super) fn check(given: &str) -> Result<String, Fault> {
    let label = given.to_ascii_lowercase();
    let good = (1..=MAX_LABEL + TAIL).contains(&label.len())
        && label.starts_with(|c: char| c.is_ascii_lowercase())
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good { Ok(label) } else { Err(unfit(given)) }
}

/// The fault of a label that DNS can't have.
fn unfit(given: &str) -> Fault {
    let shown: String = given.chars().filter(|c| !c.is_control()).take(80).collect();
    let dots = if given.contains('.') {
        " It is the first part of a name, without dots: the platform adds the rest."
    } else {
        ""
    };
    let message = format!(
        "The leaf domain label '{shown}' can't be part of a DNS name: it may have up to {MAX_LABEL} characters, letters, \
         digits and '-', with a letter first and no '-' at the end.{dots}"
    );
    Fault::invalid("BadArgument", message).at("sslConfiguration.leafDomainLabel")
}

/// Sees that the compute `id` holds the label that is meant by `given` (checked before); gives the label.
///
/// # Errors
/// `LeafDomainLabelInUse` when another compute holds it and `overwrite` is not set; `AuthorizationFailed` when it is set
/// and the caller may not write that compute.
pub(super) async fn claim(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    held: &mut Labels,
    given: &str,
    overwrite: bool,
) -> Result<String, ApiError> {
    if let Some(label) = held.meant(given) {
        return Ok(label.to_owned());
    }
    if held.0.len() >= MAX_HELD {
        let message = format!(
            "The compute holds {MAX_HELD} labels, which is the most: {}. Use one of them.",
            held.0.keys().cloned().collect::<Vec<_>>().join(", ")
        );
        return Err(Fault::new(FaultKind::Quota, "OutOfQuota", message).into());
    }
    let computes = tx.resource_list(&Filter::of_type(COMPUTE_TYPE)).await?;
    let mut taken: Vec<String> = Vec::new();
    for other in computes.iter().filter(|other| other.id != *id && !other.deleting) {
        let theirs = Labels::of(other);
        if let Some(label) = theirs.meant(given).map(str::to_owned) {
            may_take(ctx, other, &label, overwrite)?;
            let tail = give_up(tx, ctx, state, other, theirs, &label, id).await?;
            held.0.insert(label.clone(), tail);
            return Ok(label);
        }
        taken.extend(theirs.0.iter().map(|(label, tail)| format!("{label}{tail}")));
    }
    if given.len() > MAX_LABEL {
        return Err(unfit(given).into());
    }
    // Two labels of which one begins the other could meet by chance.
    let tail = std::iter::repeat_with(random_tail).find(|tail| !taken.contains(&format!("{given}{tail}")));
    held.0.insert(given.to_owned(), tail.unwrap_or_else(random_tail));
    Ok(given.to_owned())
}

/// Insists that a label may move from its holder.
fn may_take(ctx: &OpContext, holder: &Resource, label: &str, overwrite: bool) -> Result<(), Fault> {
    let at = |fault: Fault| fault.at("sslConfiguration.leafDomainLabel");
    let whose = if ctx.can(&format!("{COMPUTE_TYPE}/read"), &holder.id) {
        format!("the compute '{}'", holder.id)
    } else {
        "another compute".to_owned()
    };
    if !overwrite {
        let message = format!(
            "The leaf domain label '{label}' is in use by {whose}. Give another label, or set overwriteExistingDomain to \
             true to take it over: its name then leads to this compute, and the other one has no TLS any more."
        );
        return Err(at(Fault::conflict("LeafDomainLabelInUse", message)));
    }
    if ctx.can(&format!("{COMPUTE_TYPE}/write"), &holder.id) {
        return Ok(());
    }
    let message = format!(
        "The leaf domain label '{label}' is in use by {whose}, which you may not change, so it can't be taken over. \
         Give another label, or ask for the right {COMPUTE_TYPE}/write there."
    );
    Err(at(Fault::new(FaultKind::Forbidden, "AuthorizationFailed", message)))
}

/// Takes a label from its holder, whose TLS is off when it went by that label; gives the six characters.
async fn give_up(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    holder: &Resource,
    mut theirs: Labels,
    label: &str,
    taker: &ResourceId,
) -> Result<String, ApiError> {
    let name = theirs.first_part(label).map(|first| tls::platform_name(state, &first)).unwrap_or_default();
    let tail = theirs.0.remove(label).unwrap_or_else(random_tail);
    let mut body = holder.body.clone();
    theirs.write_into(&mut body);
    let wish = TlsWish::of(holder)?.filter(|wish| wish.mode == TlsMode::Platform && wish.names.contains(&name));
    if let Some(wish) = wish {
        let off = TlsWish { mode: TlsMode::Off, names: Vec::new(), ..wish };
        body[TLS_FIELD] = off.to_value();
        tls::write_off(&mut body);
        let message = format!(
            "The name {name} was taken over by the compute '{taker}' on {}; TLS is off here. Turn it on again with another \
             label.",
            state.clock.now().strftime("%Y-%m-%d")
        );
        tls::write_warnings(&mut body, &[message]);
    }
    tls::drop_name(&mut body, &name);
    tx.resource_put(&holder.id, body, &Condition::None, &ctx.author()).await?;
    Ok(tail)
}

/// Six random characters of [`ALPHABET`].
fn random_tail() -> String {
    let random = Uuid::new_v4();
    random.as_bytes()[..TAIL].iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_by_the_rules_of_dns() {
        for (given, label) in [("contoso", "contoso"), ("MyAKS", "myaks"), ("a", "a"), ("a-1", "a-1")] {
            assert_eq!(check(given).unwrap(), label);
        }
        for bad in ["", "1a", "-a", "a-", "a.b", "a_b", "ä", "a b", "a\n", &"a".repeat(64)] {
            let fault = check(bad).unwrap_err();
            assert!(fault.message.contains("can't be part of a DNS name"), "{bad}: {}", fault.message);
        }
    }

    #[test]
    fn the_six_characters_are_understood() {
        let labels = Labels(BTreeMap::from([("myaks".to_owned(), "a1b2c3".to_owned())]));
        assert_eq!(labels.meant("myaks"), Some("myaks"));
        assert_eq!(labels.meant("myaksa1b2c3"), Some("myaks"));
        for other in ["myak", "myaksa1b2c4", "a1b2c3", "myaksa1b2c3x"] {
            assert_eq!(labels.meant(other), None, "{other}");
        }
        assert_eq!(labels.first_part("myaks").unwrap(), "myaksa1b2c3");
        let tail = random_tail();
        assert!(tail.len() == TAIL && tail.bytes().all(|byte| ALPHABET.contains(&byte)), "{tail}");
    }
}
