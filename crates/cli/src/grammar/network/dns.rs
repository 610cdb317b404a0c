//! `network private-dns …`.

use clap::{Args, Subcommand};

use super::{Accepted, InGroup, Named};
use crate::grammar::Yes;

/// Private DNS.
#[derive(Debug, Subcommand)]
pub(crate) enum PrivateDns {
    /// Zones.
    #[command(subcommand)]
    Zone(ZoneCommand),
    /// Links: which networks see a zone.
    #[command(subcommand)]
    Link(LinkKind),
    /// Record sets.
    #[command(subcommand)]
    RecordSet(RecordSet),
}

/// Zones.
#[derive(Debug, Subcommand)]
pub(crate) enum ZoneCommand {
    /// Create a zone.
    #[command(after_help = "Example:\n  casemate network private-dns zone create -n corp.example")]
    Create {
        #[command(flatten)]
        name: Named,
        /// Labels: KEY=VALUE …
        #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
        tags: Option<Vec<String>>,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Show a zone.
    #[command(after_help = "Example:\n  casemate network private-dns zone show -n corp.example")]
    Show(Named),
    /// List zones.
    #[command(after_help = "Example:\n  casemate network private-dns zone list -o table")]
    List(InGroup),
    /// Delete a zone without links, with its records.
    #[command(after_help = "Example:\n  casemate network private-dns zone delete -n corp.example --yes")]
    Delete {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        yes: Yes,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        no_wait: bool,
    },
}

/// Links.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkKind {
    /// Links to virtual networks.
    #[command(subcommand)]
    Vnet(LinkCommand),
}

/// Links to virtual networks.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Let a network see the zone.
    #[command(
        after_help = "Example:\n  casemate network private-dns link vnet create -z corp.example -n my-net -v my-net -e false"
    )]
    Create {
        #[command(flatten)]
        name: ZoneLink,
        /// Name or id of the network.
        #[arg(short = 'v', long, value_name = "NAME_OR_ID")]
        virtual_network: String,
        /// Whether machines of the network register themselves: false.
        #[arg(short = 'e', long, value_name = "BOOL")]
        registration_enabled: Option<String>,
        /// Labels: KEY=VALUE …
        #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
        tags: Option<Vec<String>>,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Show a link.
    #[command(after_help = "Example:\n  casemate network private-dns link vnet show -z corp.example -n my-net")]
    Show(ZoneLink),
    /// List the links of a zone.
    #[command(after_help = "Example:\n  casemate network private-dns link vnet list -z corp.example -o table")]
    List(InZone),
    /// Delete a link.
    #[command(after_help = "Example:\n  casemate network private-dns link vnet delete -z corp.example -n my-net --yes")]
    Delete {
        #[command(flatten)]
        name: ZoneLink,
        #[command(flatten)]
        yes: Yes,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        no_wait: bool,
    },
}

/// In which zone.
#[derive(Debug, Clone, Args)]
pub(crate) struct InZone {
    /// Name of the zone.
    #[arg(short = 'z', long, value_name = "NAME")]
    pub(crate) zone_name: String,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// A link of a zone.
#[derive(Debug, Clone, Args)]
pub(crate) struct ZoneLink {
    /// Name of the link.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) zone: InZone,
}

/// Record sets by type.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordSet {
    /// List all record sets of a zone.
    #[command(
        after_help = "Example:\n  casemate network private-dns record-set list -z privatelink.api.azureml.ms -o tsv --query [].name"
    )]
    List(InZone),
    /// IPv4 addresses.
    #[command(subcommand)]
    A(RecordCommand<AddressValue>),
    /// IPv6 addresses.
    #[command(subcommand)]
    Aaaa(RecordCommand<AaaaValue>),
    /// Another name for a host.
    #[command(subcommand)]
    Cname(RecordCommand<CnameValue>),
    /// Texts.
    #[command(subcommand)]
    Txt(RecordCommand<TxtValue>),
}

/// What can be done with the record sets of one type.
#[derive(Debug, Subcommand)]
pub(crate) enum RecordCommand<V: Args> {
    /// Create an empty record set.
    #[command(
        after_help = "Example:\n  casemate network private-dns record-set a create -z corp.example -n www --ttl 60"
    )]
    Create {
        /// Name relative to the zone; @ is the zone itself.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        zone: InZone,
        /// Seconds that an answer may be kept.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        ttl: u32,
    },
    /// Add a value, making the record set if need be.
    #[command(
        alias = "set-record",
        after_help = "Example:\n  casemate network private-dns record-set a add-record -z corp.example -n www -a 10.0.0.4"
    )]
    AddRecord {
        #[command(flatten)]
        set: RecordSetName,
        #[command(flatten)]
        value: V,
        /// Seconds that an answer may be kept, for a new record set.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        ttl: u32,
    },
    /// Remove a value.
    #[command(
        after_help = "Example:\n  casemate network private-dns record-set a remove-record -z corp.example -n www -a 10.0.0.4"
    )]
    RemoveRecord {
        #[command(flatten)]
        set: RecordSetName,
        #[command(flatten)]
        value: V,
        /// Keep a record set that has become empty.
        #[arg(long)]
        keep_empty_record_set: bool,
    },
    /// Show a record set.
    #[command(after_help = "Example:\n  casemate network private-dns record-set a show -z corp.example -n www")]
    Show {
        /// Name relative to the zone; @ is the zone itself.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        zone: InZone,
    },
    /// List the record sets of this type.
    #[command(after_help = "Example:\n  casemate network private-dns record-set a list -z corp.example -o table")]
    List(InZone),
    /// Delete a record set.
    #[command(after_help = "Example:\n  casemate network private-dns record-set a delete -z corp.example -n www --yes")]
    Delete {
        /// Name relative to the zone; @ is the zone itself.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: String,
        #[command(flatten)]
        zone: InZone,
        #[command(flatten)]
        yes: Yes,
    },
}

/// A record set of a zone.
#[derive(Debug, Clone, Args)]
pub(crate) struct RecordSetName {
    /// Name relative to the zone; @ is the zone itself.
    #[arg(short = 'n', long = "record-set-name", alias = "name", value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) zone: InZone,
}

/// A value of an A record.
#[derive(Debug, Clone, Args)]
pub(crate) struct AddressValue {
    /// The address.
    #[arg(short = 'a', long, value_name = "ADDRESS")]
    pub(crate) ipv4_address: String,
}

/// A value of an AAAA record.
#[derive(Debug, Clone, Args)]
pub(crate) struct AaaaValue {
    /// The address.
    #[arg(short = 'a', long, value_name = "ADDRESS")]
    pub(crate) ipv6_address: String,
}

/// The value of a CNAME record.
#[derive(Debug, Clone, Args)]
pub(crate) struct CnameValue {
    /// The host.
    #[arg(short = 'c', long, value_name = "HOST")]
    pub(crate) cname: String,
}

/// A value of a TXT record.
#[derive(Debug, Clone, Args)]
pub(crate) struct TxtValue {
    /// The texts.
    #[arg(short = 'v', long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) value: Vec<String>,
}
