//! Record sets of private zones.

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{OWNERS, Record, RecordKind, ZONE_TYPE, check_record_name},
};
use casemate_store::{Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    shape::{self, Asked, bad},
    zones,
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Answers calls about record sets of a kind such as `aaaa`, of all kinds, and about the record of authority.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call, kind: &str) -> Option<Outcome> {
    let kind = match kind {
        "all" | "soa" => None,
        kind => Some(RecordKind::parse(kind)?),
    };
    Some(match (&call.target, &call.method) {
        (Target::Collection { parent: Some(zone), .. }, &Method::GET) => list(ctx, state, call, zone, kind).await,
        (Target::Resource(id), &Method::GET) => one(ctx, state, call, id, kind).await,
        (Target::Resource(id), &Method::PUT | &Method::PATCH) if let Some(kind) = kind => {
            put(ctx, state, call, id, kind).await
        }
        (Target::Resource(id), &Method::DELETE) if kind.is_some() => shape::delete(ctx, state, call, id).await,
        _ => call.method_not_allowed(),
    })
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, zone: &ResourceId, kind: Option<RecordKind>) -> Outcome {
    ctx.authorize_call(call)?;
    let zone = shape::read(state, zone).await?;
    let mut shown = Vec::new();
    let only_authority = call.target.kind().ends_with("/soa");
    for each in RecordKind::ALL.into_iter().filter(|each| kind.is_none_or(|kind| kind == *each) && !only_authority) {
        let filter = Filter::of_type(format!("{ZONE_TYPE}/{}", each.as_str())).child_of(&zone.id);
        shown.extend(state.store.resource_list(&filter).await?.iter().map(show));
    }
    if kind.is_none() {
        shown.push(authority(state, &zone));
    }
    if let Some(suffix) = call.query.get("$recordsetnamesuffix") {
        let suffix = suffix.to_lowercase();
        shown.retain(|set| set["name"].as_str().is_some_and(|name| name.to_lowercase().ends_with(&suffix)));
    }
    shown.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    respond::list(ctx, call, &call.path(), shown)
}

async fn one(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId, kind: Option<RecordKind>) -> Outcome {
    ctx.authorize_call(call)?;
    if kind.is_none() {
        let zone = id.parent().filter(|_| id.name() == "@" && id.resource_type().ends_with("/SOA"));
        let zone = zone.ok_or_else(|| common::not_found(id))?;
        return Ok(respond::ok(&authority(state, &shape::read(state, &zone).await?)));
    }
    let row = shape::read(state, id).await?;
    Ok(respond::shown(call, &row, &show(&row)))
}

async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId, kind: RecordKind) -> Outcome {
    ctx.authorize_call(call)?;
    let mut asked = Asked::read(call)?;
    let mut tx = state.store.begin().await?;
    if call.method == Method::PATCH {
        let existing = tx.resource_get(id).await?.ok_or_else(|| common::not_found(id))?;
        let mut merged = existing.properties().as_object().cloned().unwrap_or_default();
        merged.extend(shape::properties(&asked.given)?);
        asked.given.insert("properties".to_owned(), merged.into());
    }
    let put = write(&mut tx, ctx, id, kind, &asked).await?;
    tx.commit().await?;
    Ok(respond::written_as(&put, &show(&put.resource)))
}

pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    id: &ResourceId,
    kind: RecordKind,
    asked: &Asked,
) -> Result<Put, ApiError> {
    shape::check_place(id, ZONE_TYPE)?;
    common::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    check_zone(tx, id, kind, existing.is_none()).await?;
    let body = normalized(id, kind, &shape::properties(&asked.given)?, existing.as_ref())?;
    Ok(tx.resource_put(id, body, &asked.condition, &ctx.author()).await?)
}

/// Most record sets; and a CNAME has its name for itself.
async fn check_zone(tx: &mut Tx, id: &ResourceId, kind: RecordKind, is_new: bool) -> Result<(), ApiError> {
    let zone = id.parent().ok_or_else(|| common::not_found(id))?;
    if !is_new {
        return Ok(());
    }
    let mut count = 0;
    for other in RecordKind::ALL {
        let filter = Filter::of_type(format!("{ZONE_TYPE}/{}", other.as_str())).child_of(&zone);
        let rows = tx.resource_list(&filter).await?;
        count += rows.len();
        let alone = kind == RecordKind::Cname || other == RecordKind::Cname;
        if alone && other != kind && rows.iter().any(|row| row.name().eq_ignore_ascii_case(id.name())) {
            let message = format!(
                "The name '{}' has {} records already; a CNAME can't stand beside others.",
                id.name(),
                other.as_str()
            );
            return Err(Fault::conflict("Conflict", message).at("name").into());
        }
    }
    if count >= zones::MAX_RECORD_SETS {
        return Err(shape::quota(format!("The zone has {} record sets already.", zones::MAX_RECORD_SETS)).into());
    }
    Ok(())
}

/// What is kept of a record set.
fn normalized(
    id: &ResourceId,
    kind: RecordKind,
    given: &Map<String, Value>,
    existing: Option<&Resource>,
) -> Result<Value, Fault> {
    check_record_name(&id.name().to_ascii_lowercase())?;
    let metadata = match given.get("metadata") {
        None | Some(Value::Null) => json!({}),
        metadata => common::tags(metadata).map_err(|fault| bad("metadata", fault.message))?,
    };
    let ttl = given.get("ttl").filter(|ttl| !ttl.is_null()).cloned().unwrap_or_else(|| 3600.into());
    let mut kept = json!({"ttl": ttl, "metadata": metadata});
    // A set without values can be made first and filled later.
    let empty = if kind == RecordKind::Cname { Value::Null } else { json!([]) };
    kept[kind.property()] = given.get(kind.property()).filter(|values| !values.is_null()).cloned().unwrap_or(empty);
    if kind.has_values(&kept) {
        Record::new(kind, id.name(), &kept)?;
    } else {
        let stand_in = json!({"ttl": kept["ttl"], "aRecords": [{"ipv4Address": "127.0.0.1"}]});
        Record::new(RecordKind::A, id.name(), &stand_in)?;
    }
    let mut body = json!({ "properties": kept });
    if let Some(owners) = existing.and_then(|row| row.body.get(OWNERS)) {
        body[OWNERS] = owners.clone();
    }
    Ok(body)
}

fn fqdn(zone: &str, name: &str) -> String {
    if name == "@" { format!("{zone}.") } else { format!("{name}.{zone}.") }
}

fn show(row: &Resource) -> Value {
    let mut shown = shape::public(row);
    let zone = row.id.parent().map(|zone| zone.name().to_owned()).unwrap_or_default();
    if let Some(properties) = shown["properties"].as_object_mut() {
        properties.remove("provisioningState");
        properties.retain(|_, value| !value.is_null());
        properties.insert("fqdn".to_owned(), fqdn(&zone, row.name()).into());
        properties.insert("isAutoRegistered".to_owned(), false.into());
    }
    shown
}

/// The record of authority that each zone has.
fn authority(state: &ApiState, zone: &Resource) -> Value {
    json!({
        "id": format!("{}/SOA/@", zone.id),
        "name": "@",
        "type": format!("{ZONE_TYPE}/SOA"),
        "etag": zone.etag,
        "properties": {
            "ttl": 3600,
            "fqdn": fqdn(zone.name(), "@"),
            "isAutoRegistered": false,
            "soaRecord": {
                "host": format!("ns.{}", state.config.domain),
                "email": format!("hostmaster.{}", state.config.domain),
                "serialNumber": 1,
                "refreshTime": 3600,
                "retryTime": 300,
                "expireTime": 2_419_200,
                "minimumTtl": 10,
            },
        },
    })
}
