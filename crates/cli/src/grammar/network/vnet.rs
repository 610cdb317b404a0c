//! `network vnet …`.

use clap::{Args, Subcommand};

use super::{Accepted, InGroup, Named, Placed};

/// Virtual networks.
#[derive(Debug, Subcommand)]
pub(crate) enum VnetCommand {
    /// Create a network.
    #[command(after_help = "Examples:
  casemate network vnet create -n my-net --address-prefixes 127.77.0.0/16 --subnet-name default
  casemate network vnet create -n my-net --address-prefixes 10.0.0.0/16 --subnet-name default --subnet-prefixes 10.0.0.0/24
  casemate network vnet create -n my-net --address-prefixes 192.168.7.0/24 --kind interface --interface eth0")]
    Create {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        placed: Placed,
        #[command(flatten)]
        args: VnetArgs,
        /// Name of a first subnet.
        #[arg(long, value_name = "NAME")]
        subnet_name: Option<String>,
        /// Its addresses (default: the first /24 of the network).
        #[arg(long, alias = "subnet-prefix", value_name = "PREFIX", num_args = 1..)]
        subnet_prefixes: Option<Vec<String>>,
        /// How it exists: loopback (the default inside 127.0.0.0/8), interface, or managed (a bridge; the default else).
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// The interface of a network of the kind interface.
        #[arg(long, value_name = "DEVICE")]
        interface: Option<String>,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Change a network.
    #[command(after_help = "Example:\n  casemate network vnet update -n my-net --dns-servers 10.0.0.53")]
    Update {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        placed: Placed,
        #[command(flatten)]
        args: VnetArgs,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Show a network.
    #[command(after_help = "Example:\n  casemate network vnet show -n my-net --query casemate.status")]
    Show(Named),
    /// List networks.
    #[command(after_help = "Example:\n  casemate network vnet list -o table")]
    List(InGroup),
    /// Delete a network that nothing uses.
    #[command(after_help = "Example:\n  casemate network vnet delete -n my-net")]
    Delete {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Subnets.
    #[command(subcommand)]
    Subnet(SubnetCommand),
}

/// What `create` and `update` share.
#[derive(Debug, Args)]
pub(crate) struct VnetArgs {
    /// Its addresses (default: 10.0.0.0/16).
    #[arg(long, alias = "address-prefix", value_name = "PREFIX", num_args = 1..)]
    pub(crate) address_prefixes: Option<Vec<String>>,
    /// Where names go that the platform has no answer for.
    #[arg(long, value_name = "ADDRESS", num_args = 0..)]
    pub(crate) dns_servers: Option<Vec<String>>,
    /// Where the names of one domain go: DOMAIN=ADDRESS[,ADDRESS]
    #[arg(long, value_name = "DOMAIN=ADDRESS", num_args = 0..)]
    pub(crate) forwarders: Option<Vec<String>>,
    /// Where the platform's DNS answers for this network (default: the second address of the first subnet).
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns_address: Option<String>,
}

/// Subnets.
#[derive(Debug, Subcommand)]
pub(crate) enum SubnetCommand {
    /// Create a subnet.
    #[command(
        visible_alias = "update",
        after_help = "Example:\n  casemate network vnet subnet create --vnet-name my-net -n two --address-prefixes 10.0.1.0/24"
    )]
    Create {
        #[command(flatten)]
        name: SubnetName,
        /// Its addresses.
        #[arg(long, alias = "address-prefix", value_name = "PREFIX", num_args = 1..)]
        address_prefixes: Option<Vec<String>>,
        /// Accepted for scripts: private endpoints need no leave of their subnet here.
        #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1)]
        disable_private_endpoint_network_policies: Option<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true, value_name = "STATE")]
        private_endpoint_network_policies: Option<String>,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Show a subnet.
    #[command(
        after_help = "Example:\n  casemate network vnet subnet show --vnet-name my-net -n default --query id -o tsv"
    )]
    Show(SubnetName),
    /// List the subnets of a network.
    #[command(after_help = "Example:\n  casemate network vnet subnet list --vnet-name my-net -o table")]
    List {
        /// Name of the network.
        #[arg(long, value_name = "NAME")]
        vnet_name: String,
        #[command(flatten)]
        group: InGroup,
    },
    /// Delete a subnet that nothing uses.
    #[command(after_help = "Example:\n  casemate network vnet subnet delete --vnet-name my-net -n two")]
    Delete {
        #[command(flatten)]
        name: SubnetName,
        #[command(flatten)]
        accepted: Accepted,
    },
}

/// A subnet of a network.
#[derive(Debug, Clone, Args)]
pub(crate) struct SubnetName {
    /// Name of the network.
    #[arg(long, value_name = "NAME")]
    pub(crate) vnet_name: String,
    #[command(flatten)]
    pub(crate) subnet: Named,
}
