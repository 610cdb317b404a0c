//! `network …`: virtual networks, private endpoints, private DNS, and what they lead to.

mod dns;
mod endpoint;
mod vnet;

use clap::{Args, Subcommand};

pub(crate) use self::{
    dns::{
        AaaaValue, AddressValue, CnameValue, InZone, LinkCommand, LinkKind, PrivateDns, RecordCommand, RecordSet,
        TxtValue, ZoneCommand, ZoneLink,
    },
    endpoint::{
        Acr, AcrConnection, AcrConnectionName, ConnectionCommand, ConnectionName, EndpointArgs, LinkResource,
        PrivateEndpointCommand, ServiceCommand, TargetName, ZoneGroupCommand, ZoneGroupName,
    },
    vnet::{SubnetCommand, SubnetName, VnetArgs, VnetCommand},
};

/// `network …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Virtual networks and their subnets.
    #[command(subcommand)]
    Vnet(Box<VnetCommand>),
    /// Private endpoints: addresses in a network that lead to a workspace, storage account, vault or registry.
    #[command(subcommand)]
    PrivateEndpoint(Box<PrivateEndpointCommand>),
    /// The target's side of private endpoints: approve, reject, remove.
    #[command(subcommand)]
    PrivateEndpointConnection(ConnectionCommand),
    /// What private endpoints can lead to.
    #[command(subcommand)]
    PrivateLinkResource(LinkResource),
    /// Destinations outside the platform, registered for outbound rules.
    #[command(subcommand)]
    PrivateLinkService(ServiceCommand),
    /// Private DNS zones, their links and records.
    #[command(subcommand)]
    PrivateDns(Box<PrivateDns>),
}

/// In which group.
#[derive(Debug, Clone, Args)]
pub(crate) struct InGroup {
    /// Resource group (default: `casemate configure --defaults group=NAME`).
    #[arg(short = 'g', long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
}

/// A resource in a group.
#[derive(Debug, Clone, Args)]
pub(crate) struct Named {
    /// Its name.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// Options that change nothing here.
#[derive(Debug, Clone, Args)]
pub(crate) struct Accepted {
    /// Accepted for scripts: nothing takes long.
    #[arg(long, hide = true)]
    pub(crate) no_wait: bool,
    /// Accepted for scripts.
    #[arg(short = 'y', long, hide = true)]
    pub(crate) yes: bool,
}

/// Where it is, and its labels.
#[derive(Debug, Clone, Args)]
pub(crate) struct Placed {
    /// Region (default: the configured one, else the group's).
    #[arg(short = 'l', long, value_name = "REGION")]
    pub(crate) location: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
}
