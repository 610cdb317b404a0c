//! `network private-dns …`.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Found, delete, flat, id, list, list_in, name_or_id, named, put, show, tags, truth};
use crate::{
    commands::confirmed,
    failure::Failure,
    grammar::{
        AaaaValue, AddressValue, CnameValue, InZone, LinkCommand, LinkKind, PrivateDns, RecordCommand, RecordSet,
        TxtValue, ZoneCommand, ZoneLink,
    },
    output::Output,
    session::{Session, segment},
};

const ZONES: &str = "privateDnsZones";
const RECORD_COLUMNS: &str = "[].{Name:name, Type:type, TTL:ttl, Metadata:metadata, Fqdn:fqdn}";

pub(super) async fn run(command: PrivateDns, session: &Session) -> Found {
    match command {
        PrivateDns::Zone(command) => zone(command, session).await,
        PrivateDns::Link(LinkKind::Vnet(command)) => link(command, session).await,
        PrivateDns::RecordSet(RecordSet::List(zone)) => {
            list(session, &format!("{}/ALL", zone_id(session, &zone).await?), RECORD_COLUMNS).await
        }
        PrivateDns::RecordSet(RecordSet::A(command)) => records(command, session).await,
        PrivateDns::RecordSet(RecordSet::Aaaa(command)) => records(command, session).await,
        PrivateDns::RecordSet(RecordSet::Cname(command)) => records(command, session).await,
        PrivateDns::RecordSet(RecordSet::Txt(command)) => records(command, session).await,
    }
}

async fn zone_id(session: &Session, zone: &InZone) -> Result<String, Failure> {
    id(session, &zone.group, ZONES, &zone.zone_name).await
}

async fn zone(command: ZoneCommand, session: &Session) -> Found {
    match command {
        ZoneCommand::Create { name, tags: labels, .. } => {
            let body = json!({"location": "global", "tags": tags(labels.as_ref())?, "properties": {}});
            Ok(flat(&put(session, &named(session, &name, ZONES).await?, &body).await?).into())
        }
        ZoneCommand::Show(name) => show(session, &named(session, &name, ZONES).await?).await,
        ZoneCommand::List(group) => {
            const COLUMNS: &str = "[].{Name:name, ResourceGroup:resourceGroup, RecordSets:numberOfRecordSets, Links:numberOfVirtualNetworkLinks}";
            match list_in(session, &group, ZONES).await? {
                Output::Value(value, _) => Ok(Output::Value(value, Some(COLUMNS))),
                other => Ok(other),
            }
        }
        ZoneCommand::Delete { name, yes, .. } => {
            confirmed(yes)?;
            delete(session, &named(session, &name, ZONES).await?).await
        }
    }
}

async fn link(command: LinkCommand, session: &Session) -> Found {
    let link_id = async |link: &ZoneLink| {
        let zone = zone_id(session, &link.zone).await?;
        Ok::<String, Failure>(format!("{zone}/virtualNetworkLinks/{}", segment(&link.name)))
    };
    match command {
        LinkCommand::Create { name, virtual_network, registration_enabled, tags: labels, .. } => {
            let network = name_or_id(session, &name.zone.group, "virtualNetworks", &virtual_network).await?;
            let registers = registration_enabled.map(|given| truth("--registration-enabled", &given)).transpose()?;
            let body = json!({
                "location": "global",
                "tags": tags(labels.as_ref())?,
                "properties": {
                    "virtualNetwork": {"id": network},
                    "registrationEnabled": registers.unwrap_or_default(),
                },
            });
            Ok(flat(&put(session, &link_id(&name).await?, &body).await?).into())
        }
        LinkCommand::Show(name) => show(session, &link_id(&name).await?).await,
        LinkCommand::List(zone) => {
            const COLUMNS: &str = "[].{Name:name, VirtualNetwork:virtualNetwork.id, LinkStatus:virtualNetworkLinkState, ResourceGroup:resourceGroup}";
            list(session, &format!("{}/virtualNetworkLinks", zone_id(session, &zone).await?), COLUMNS).await
        }
        LinkCommand::Delete { name, yes, .. } => {
            confirmed(yes)?;
            delete(session, &link_id(&name).await?).await
        }
    }
}

/// A value of a record set of one type.
trait RecordValue: Args {
    /// The type, as it stands in ids.
    const KIND: &'static str;
    /// The property that holds the values.
    const PROPERTY: &'static str;

    /// The value on the wire.
    fn on_wire(&self) -> Value;
}

impl RecordValue for AddressValue {
    const KIND: &'static str = "A";
    const PROPERTY: &'static str = "aRecords";

    fn on_wire(&self) -> Value {
        json!({"ipv4Address": self.ipv4_address})
    }
}

impl RecordValue for AaaaValue {
    const KIND: &'static str = "AAAA";
    const PROPERTY: &'static str = "aaaaRecords";

    fn on_wire(&self) -> Value {
        json!({"ipv6Address": self.ipv6_address})
    }
}

impl RecordValue for CnameValue {
    const KIND: &'static str = "CNAME";
    const PROPERTY: &'static str = "cnameRecord";

    fn on_wire(&self) -> Value {
        json!({"cname": self.cname})
    }
}

impl RecordValue for TxtValue {
    const KIND: &'static str = "TXT";
    const PROPERTY: &'static str = "txtRecords";

    fn on_wire(&self) -> Value {
        json!({"value": self.value})
    }
}

async fn records<V: RecordValue>(command: RecordCommand<V>, session: &Session) -> Found {
    let set_id = async |zone: &InZone, name: &str| {
        Ok::<String, Failure>(format!("{}/{}/{}", zone_id(session, zone).await?, V::KIND, segment(name)))
    };
    match command {
        RecordCommand::Create { name, zone, ttl } => {
            let body = json!({"properties": {"ttl": ttl}});
            Ok(flat(&put(session, &set_id(&zone, &name).await?, &body).await?).into())
        }
        RecordCommand::AddRecord { set, value, ttl } => {
            add::<V>(session, &set_id(&set.zone, &set.name).await?, &value, ttl).await
        }
        RecordCommand::RemoveRecord { set, value, keep_empty_record_set } => {
            remove::<V>(session, &set_id(&set.zone, &set.name).await?, &value, keep_empty_record_set).await
        }
        RecordCommand::Show { name, zone } => show(session, &set_id(&zone, &name).await?).await,
        RecordCommand::List(zone) => {
            list(session, &format!("{}/{}", zone_id(session, &zone).await?, V::KIND), RECORD_COLUMNS).await
        }
        RecordCommand::Delete { name, zone, yes } => {
            confirmed(yes)?;
            delete(session, &set_id(&zone, &name).await?).await
        }
    }
}

/// Adds a value; a CNAME has one, which is replaced. A record set that another changed in between is not overwritten.
async fn add<V: RecordValue>(session: &Session, id: &str, value: &V, ttl: u32) -> Found {
    let existing = session.client().get_optional(&format!("{id}?{}", super::NET_API)).await?;
    let mut set = existing.unwrap_or_else(|| json!({"properties": {"ttl": ttl}}));
    let values = &mut set["properties"][V::PROPERTY];
    match values.as_array_mut() {
        _ if V::KIND == "CNAME" => *values = value.on_wire(),
        Some(values) if values.contains(&value.on_wire()) => {}
        Some(values) => values.push(value.on_wire()),
        None => *values = json!([value.on_wire()]),
    }
    Ok(flat(&write(session, id, &set).await?).into())
}

async fn remove<V: RecordValue>(session: &Session, id: &str, value: &V, keep_empty: bool) -> Found {
    let mut set = super::get(session, id).await?;
    let values = &mut set["properties"][V::PROPERTY];
    let not_there = || Failure::not_found("The record set has no such value.");
    let left = if let Some(values) = values.as_array_mut() {
        let before = values.len();
        values.retain(|known| *known != value.on_wire());
        if values.len() == before {
            return Err(not_there());
        }
        values.len()
    } else if *values == value.on_wire() {
        *values = Value::Null;
        0
    } else {
        return Err(not_there());
    };
    if left == 0 && !keep_empty {
        return delete(session, id).await;
    }
    Ok(flat(&write(session, id, &set).await?).into())
}

async fn write(session: &Session, id: &str, set: &Value) -> Result<Value, Failure> {
    let path = format!("{id}?{}", super::NET_API);
    let etag = set.get("etag").and_then(Value::as_str);
    Ok(session.client().write_and_wait(Method::PUT, &path, Some(set), etag, &mut |_| {}).await?)
}
