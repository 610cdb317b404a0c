//! `network private-endpoint …`, the connections at their targets, and `acr …`.

use clap::{Args, Subcommand};

use super::{Accepted, InGroup, Named, Placed};

/// Private endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum PrivateEndpointCommand {
    /// Create a private endpoint; of one that is there, mend what is missing.
    #[command(after_help = "Example:
  casemate network private-endpoint create -n my-pe --vnet-name my-net --subnet default --connection-name c \\
    --private-connection-resource-id \"$(casemate ml workspace show -n my-workspace --query id -o tsv)\" --group-id amlworkspace")]
    Create(Box<EndpointArgs>),
    /// Show a private endpoint.
    #[command(after_help = "Example:\n  casemate network private-endpoint show -n my-pe --query customDnsConfigs")]
    Show(Named),
    /// List private endpoints.
    #[command(after_help = "Example:\n  casemate network private-endpoint list -o table")]
    List(InGroup),
    /// Delete a private endpoint, with its names.
    #[command(after_help = "Example:\n  casemate network private-endpoint delete -n my-pe")]
    Delete {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// The DNS zones that its names are written to.
    #[command(subcommand)]
    DnsZoneGroup(ZoneGroupCommand),
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    #[command(flatten)]
    pub(crate) name: Named,
    #[command(flatten)]
    pub(crate) placed: Placed,
    /// Name of the network.
    #[arg(long, value_name = "NAME")]
    pub(crate) vnet_name: Option<String>,
    /// Name or id of the subnet.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) subnet: String,
    /// Id of what it leads to.
    #[arg(long, value_name = "ID")]
    pub(crate) private_connection_resource_id: String,
    /// The part of it: amlworkspace, blob, file, vault or registry.
    #[arg(long, alias = "group-ids", value_name = "NAME")]
    pub(crate) group_id: String,
    /// Name of the connection.
    #[arg(long, value_name = "NAME")]
    pub(crate) connection_name: String,
    /// Leave the decision to the target's owner, whatever one may do oneself.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) manual_request: Option<String>,
    /// A message to the owner.
    #[arg(long, value_name = "TEXT")]
    pub(crate) request_message: Option<String>,
    /// A fixed address: private-ip-address=ADDRESS (also name=, group-id=, member-name=)
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) ip_config: Option<Vec<String>>,
    /// Name of its network interface.
    #[arg(long, value_name = "NAME")]
    pub(crate) nic_name: Option<String>,
    #[command(flatten)]
    pub(crate) accepted: Accepted,
}

/// Groups of DNS zones.
#[derive(Debug, Subcommand)]
pub(crate) enum ZoneGroupCommand {
    /// Write the names into a zone.
    #[command(
        visible_alias = "add",
        after_help = "Example:\n  casemate network private-endpoint dns-zone-group create --endpoint-name my-pe -n default --private-dns-zone privatelink.api.azureml.ms --zone-name ml"
    )]
    Create {
        #[command(flatten)]
        name: ZoneGroupName,
        /// Name or id of the zone.
        #[arg(long, value_name = "NAME_OR_ID")]
        private_dns_zone: String,
        /// A name for the zone in the group.
        #[arg(long, value_name = "NAME")]
        zone_name: String,
        #[command(flatten)]
        accepted: Accepted,
    },
    /// Show a group of zones.
    #[command(
        after_help = "Example:\n  casemate network private-endpoint dns-zone-group show --endpoint-name my-pe -n default"
    )]
    Show(ZoneGroupName),
    /// List the groups of zones.
    #[command(after_help = "Example:\n  casemate network private-endpoint dns-zone-group list --endpoint-name my-pe")]
    List {
        /// Name of the private endpoint.
        #[arg(long, value_name = "NAME")]
        endpoint_name: String,
        #[command(flatten)]
        group: InGroup,
    },
    /// Take the names out of the zones.
    #[command(
        after_help = "Example:\n  casemate network private-endpoint dns-zone-group delete --endpoint-name my-pe -n default"
    )]
    Delete {
        #[command(flatten)]
        name: ZoneGroupName,
        #[command(flatten)]
        accepted: Accepted,
    },
}

/// A group of zones.
#[derive(Debug, Args)]
pub(crate) struct ZoneGroupName {
    /// Name of the private endpoint.
    #[arg(long, value_name = "NAME")]
    pub(crate) endpoint_name: String,
    #[command(flatten)]
    pub(crate) group: Named,
}

/// Connections at targets.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// List the connections of a resource.
    #[command(after_help = "Example:
  casemate network private-endpoint-connection list -g my-group --type Microsoft.MachineLearningServices/workspaces -n my-workspace")]
    List(TargetName),
    /// Show a connection.
    #[command(after_help = "Example:\n  casemate network private-endpoint-connection show --id ID")]
    Show(ConnectionName),
    /// Approve a connection.
    #[command(after_help = "Example:\n  casemate network private-endpoint-connection approve --id ID --description ok")]
    Approve {
        #[command(flatten)]
        name: ConnectionName,
        /// Why.
        #[arg(long, alias = "approval-description", value_name = "TEXT")]
        description: Option<String>,
    },
    /// Reject a connection.
    #[command(after_help = "Example:\n  casemate network private-endpoint-connection reject --id ID --description no")]
    Reject {
        #[command(flatten)]
        name: ConnectionName,
        /// Why.
        #[arg(long, alias = "rejection-description", value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove a connection.
    #[command(after_help = "Example:\n  casemate network private-endpoint-connection delete --id ID --yes")]
    Delete {
        #[command(flatten)]
        name: ConnectionName,
        #[command(flatten)]
        yes: crate::grammar::Yes,
    },
}

/// What connections lead to.
#[derive(Debug, Args)]
pub(crate) struct TargetName {
    /// Id of the resource.
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "kind"])]
    pub(crate) id: Option<String>,
    /// Name of the resource.
    #[arg(short = 'n', long, alias = "resource-name", value_name = "NAME", requires = "kind")]
    pub(crate) name: Option<String>,
    /// Type of the resource, such as Microsoft.MachineLearningServices/workspaces.
    #[arg(long = "type", id = "kind", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// A connection: by its id, by resource and name, or by its name alone when only one in the group has it.
#[derive(Debug, Args)]
pub(crate) struct ConnectionName {
    /// Id of the connection.
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "kind", "resource_name"])]
    pub(crate) id: Option<String>,
    /// Name of the connection.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Name of the resource.
    #[arg(long, value_name = "NAME", requires = "kind")]
    pub(crate) resource_name: Option<String>,
    /// Type of the resource.
    #[arg(long = "type", id = "kind", value_name = "TYPE", requires = "resource_name")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// What private endpoints can lead to.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkResource {
    /// List the parts of a resource that private endpoints can lead to.
    #[command(after_help = "Example:
  casemate network private-link-resource list -g my-group --type Microsoft.MachineLearningServices/workspaces -n my-workspace")]
    List(TargetName),
}

/// Destinations outside the platform.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Register an address or a host.
    #[command(after_help = "Examples:
  casemate network private-link-service create -n db --address 10.9.0.5 --ports 5432
  casemate network private-link-service create -n db --fqdn db.corp.example --ports 5432,8000-8010")]
    Create {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        placed: Placed,
        /// Its address.
        #[arg(long, value_name = "ADDRESS", required_unless_present = "fqdn", conflicts_with = "fqdn")]
        address: Option<String>,
        /// Its host name, whose addresses may be private.
        #[arg(long, value_name = "HOST")]
        fqdn: Option<String>,
        /// Its ports (default: 80,443).
        #[arg(long, value_name = "PORTS")]
        ports: Option<String>,
    },
    /// Show a destination.
    #[command(after_help = "Example:\n  casemate network private-link-service show -n db")]
    Show(Named),
    /// List destinations.
    #[command(after_help = "Example:\n  casemate network private-link-service list -o table")]
    List(InGroup),
    /// Remove a destination.
    #[command(after_help = "Example:\n  casemate network private-link-service delete -n db")]
    Delete {
        #[command(flatten)]
        name: Named,
        #[command(flatten)]
        accepted: Accepted,
    },
}

/// `acr …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Acr {
    /// Connections of private endpoints to a registry.
    #[command(subcommand)]
    PrivateEndpointConnection(AcrConnection),
    /// Show a registry.
    #[command(after_help = "Example:\n  casemate acr show -n my-registry --query id -o tsv")]
    Show(RegistryName),
    /// List registries.
    #[command(after_help = "Example:\n  casemate acr list -o table")]
    List(InGroup),
}

/// A registry.
#[derive(Debug, Args)]
pub(crate) struct RegistryName {
    /// Name of the registry.
    #[arg(short = 'n', short_alias = 'r', long = "name", aliases = ["registry-name", "registry"], value_name = "NAME")]
    pub(crate) registry: String,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// A connection of a registry.
#[derive(Debug, Args)]
pub(crate) struct AcrConnectionName {
    /// Name of the registry.
    #[arg(short = 'r', long, alias = "registry", value_name = "NAME")]
    pub(crate) registry_name: String,
    /// Name of the connection.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// Connections of a registry.
#[derive(Debug, Subcommand)]
pub(crate) enum AcrConnection {
    /// List the connections.
    #[command(after_help = "Example:\n  casemate acr private-endpoint-connection list -r my-registry -o table")]
    List {
        /// Name of the registry.
        #[arg(short = 'r', long, alias = "registry", value_name = "NAME")]
        registry_name: String,
        #[command(flatten)]
        group: InGroup,
    },
    /// Show a connection.
    #[command(after_help = "Example:\n  casemate acr private-endpoint-connection show -r my-registry -n NAME")]
    Show(AcrConnectionName),
    /// Approve a connection.
    #[command(after_help = "Example:\n  casemate acr private-endpoint-connection approve -r my-registry -n NAME")]
    Approve {
        #[command(flatten)]
        name: AcrConnectionName,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Reject a connection.
    #[command(after_help = "Example:\n  casemate acr private-endpoint-connection reject -r my-registry -n NAME")]
    Reject {
        #[command(flatten)]
        name: AcrConnectionName,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Remove a connection.
    #[command(after_help = "Example:\n  casemate acr private-endpoint-connection delete -r my-registry -n NAME")]
    Delete {
        #[command(flatten)]
        name: AcrConnectionName,
        #[command(flatten)]
        accepted: Accepted,
    },
}
