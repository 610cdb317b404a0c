//! Networks that clients stand in: virtual networks, private endpoints and private DNS zones.
//!
//! The management API stores them as resources; here they become typed views, once, and one immutable
//! [`NetworkSnapshot`] of all of them that the DNS server and the private listeners work from. What can't be read is
//! named and left out, and in doubt closes rather than opens: an approval that can't be read is none. Nothing here
//! touches an interface, a socket or the store.

mod connection;
mod endpoint;
mod registration;
mod snapshot;
#[cfg(test)]
mod tests;
mod vnet;
mod zone;

pub use connection::{CONNECTION_TARGETS, ConnectionStatus, connection_type};
pub use endpoint::PrivateEndpoint;
pub use registration::{
    AUTOMATIC, Change, OWNERS, Registration, ZoneNames, has_consequences, register, registration_types, release,
};
pub use snapshot::{NetworkSnapshot, SNAPSHOT_TYPES, WorkspaceView, ZoneView};
pub use vnet::{Forwarder, NetworkKind, Subnet, VirtualNetwork, overlap, parse_prefix};
pub use zone::{Record, RecordData, RecordKind, ServiceRecord, Zone, check_record_name, check_zone_name};

/// The type of a virtual network.
pub const NETWORK_TYPE: &str = "Microsoft.Network/virtualNetworks";
/// The type of a subnet.
pub const SUBNET_TYPE: &str = "Microsoft.Network/virtualNetworks/subnets";
/// The type of a private endpoint.
pub const PRIVATE_ENDPOINT_TYPE: &str = "Microsoft.Network/privateEndpoints";
/// The type of a private endpoint's group of DNS zones.
pub const ZONE_GROUP_TYPE: &str = "Microsoft.Network/privateEndpoints/privateDnsZoneGroups";
/// The type of a private DNS zone; its record sets are `privateDnsZones/A` and so on.
pub const ZONE_TYPE: &str = "Microsoft.Network/privateDnsZones";
/// The type of the link that makes a zone visible in a network.
pub const ZONE_LINK_TYPE: &str = "Microsoft.Network/privateDnsZones/virtualNetworkLinks";
/// The type of a destination outside the platform that was registered as a resource.
pub const PRIVATE_LINK_SERVICE_TYPE: &str = "Microsoft.Network/privateLinkServices";
/// The zone in which a workspace's private endpoint has its names.
pub const WORKSPACE_ZONE: &str = "privatelink.api.azureml.ms";

/// A service of the platform whose accounts have host names of their own, `<account>.<host>.<domain>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountService {
    /// The part of its accounts that private endpoints lead to (`groupIds`).
    pub group: &'static str,
    /// What stands between an account's name and the platform's domain.
    pub host: &'static str,
    /// The private zone of its names in the original, which scripts name.
    pub documented_zone: &'static str,
}

/// All of them.
pub const ACCOUNT_SERVICES: [AccountService; 3] = [
    AccountService { group: "blob", host: "blob.core", documented_zone: "privatelink.blob.core.windows.net" },
    AccountService { group: "vault", host: "vault", documented_zone: "privatelink.vaultcore.azure.net" },
    AccountService { group: "registry", host: "registry", documented_zone: "privatelink.azurecr.io" },
];

impl AccountService {
    /// The private zones that hold names of its accounts: by the platform's own domain, and as documented.
    #[must_use]
    pub fn zones(&self, domain: &str) -> [String; 2] {
        [format!("privatelink.{}.{}", self.host, domain.to_ascii_lowercase()), self.documented_zone.to_owned()]
    }
}

/// The names, relative to [`WORKSPACE_ZONE`], that a workspace's private endpoint has: for all its endpoints, and for
/// itself.
#[must_use]
pub fn workspace_record_names(guid: &str, region: &str) -> [String; 2] {
    let (guid, region) = (guid.to_ascii_lowercase(), region.to_ascii_lowercase());
    [format!("*.{guid}.inference.{region}"), format!("{guid}.workspace.{region}")]
}
