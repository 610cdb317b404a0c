//! Filters and order of lists of assets.

use std::cmp::Reverse;

use casemate_model::{Fault, Resource};
use serde_json::Value;

use crate::Call;

/// A version's number, if it is one.
pub(super) fn number(version: &Resource) -> Option<u64> {
    version.name().parse().ok()
}

/// Newest last: by time of creation, and by number among those of one moment.
pub(super) fn by_creation(version: &Resource) -> impl Ord + use<> {
    (version.system.created_at, number(version))
}

/// What a list shows.
pub(super) struct Wanted<'a> {
    call: &'a Call,
    archived: Option<bool>,
    tags: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Wanted<'a> {
    /// Reads the query.
    ///
    /// # Errors
    /// `BadArgument` for an unknown `listViewType`.
    pub(super) fn read(call: &'a Call) -> Result<Self, Fault> {
        let view = call.query.get("listViewType").unwrap_or("ActiveOnly");
        let archived = match view.to_ascii_lowercase().as_str() {
            "activeonly" | "" => Some(false),
            "archivedonly" => Some(true),
            "all" => None,
            _ => {
                let message = format!("listViewType is '{view}'; give ActiveOnly, ArchivedOnly or All.");
                return Err(Fault::invalid("BadArgument", message).at("listViewType"));
            }
        };
        let tags = call.query.get("tags").unwrap_or_default().split(',').filter(|tag| !tag.is_empty());
        let pair = |tag: &'a str| match tag.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (tag, None),
        };
        Ok(Self { call, archived, tags: tags.map(pair).collect() })
    }

    /// Whether a row is asked for.
    pub(super) fn takes(&self, row: &Resource) -> bool {
        let properties = row.properties();
        let archived = properties.get("isArchived").and_then(Value::as_bool).unwrap_or(false);
        let inner = |key: &str| properties.get("properties").and_then(|inner| inner.get(key));
        let same = |value: Option<&Value>, wanted: Option<&str>| {
            wanted.is_none_or(|wanted| value.is_some_and(|value| value.as_str() == Some(wanted)))
        };
        let tagged = |(key, value): &(&str, Option<&str>)| {
            let found = properties.get("tags").and_then(|tags| tags.get(*key)).and_then(Value::as_str);
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        };
        let query = |key: &str| self.call.query.get(key).filter(|value| !value.is_empty());
        self.archived.is_none_or(|wanted| wanted == archived)
            && self.tags.iter().all(tagged)
            && same(inner("hash_sha256"), query("hash"))
            && same(inner("hash_version"), query("hashVersion"))
            && same(properties.get("stage"), query("stage"))
            && query("version").is_none_or(|version| version.eq_ignore_ascii_case(row.name()))
    }

    /// Puts versions in the order asked for; newest first when none is.
    ///
    /// # Errors
    /// `BadArgument` for an order that is not known.
    pub(super) fn sort(&self, rows: &mut [Resource]) -> Result<(), Fault> {
        let order = self.call.query.get("$orderBy").or_else(|| self.call.query.get("orderBy")).unwrap_or_default();
        let order = order.trim().to_ascii_lowercase();
        let (field, direction) = order.split_once(' ').unwrap_or((&order, "asc"));
        let descending = match direction.trim() {
            "asc" => false,
            "desc" => true,
            _ => return Err(unknown_order(&order)),
        };
        match field {
            "" => rows.sort_by_key(|row| Reverse(by_creation(row))),
            "createdtime" | "createdat" | "createdtimeutc" => rows.sort_by_key(by_creation),
            "modifiedtime" | "updatetime" | "updatedat" | "lastmodifiedat" => {
                rows.sort_by_key(|row| row.system.last_modified_at);
            }
            "version" | "name" => rows.sort_by_key(|row| (number(row), row.name().to_lowercase())),
            _ => return Err(unknown_order(&order)),
        }
        if descending {
            rows.reverse();
        }
        Ok(())
    }
}

fn unknown_order(order: &str) -> Fault {
    let message = format!("$orderBy is '{order}'; give createdtime, modifiedtime or version, and asc or desc.");
    Fault::invalid("BadArgument", message).at("$orderBy")
}
