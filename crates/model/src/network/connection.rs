//! A target's side of a private endpoint: the connection that its owner approves or rejects.

use crate::workspace::WORKSPACE_TYPE;

/// The resource types that private endpoints can lead to.
pub const CONNECTION_TARGETS: [&str; 4] = [
    WORKSPACE_TYPE,
    "Microsoft.Storage/storageAccounts",
    "Microsoft.KeyVault/vaults",
    "Microsoft.ContainerRegistry/registries",
];

/// The types of their connections, in the same order.
pub(super) const CONNECTION_TYPES: [&str; 4] = [
    "Microsoft.MachineLearningServices/workspaces/privateEndpointConnections",
    "Microsoft.Storage/storageAccounts/privateEndpointConnections",
    "Microsoft.KeyVault/vaults/privateEndpointConnections",
    "Microsoft.ContainerRegistry/registries/privateEndpointConnections",
];

/// The type of the connections of a target type (in any case); none for what private endpoints can't lead to.
#[must_use]
pub fn connection_type(target: &str) -> Option<&'static str> {
    let at = CONNECTION_TARGETS.iter().position(|known| known.eq_ignore_ascii_case(target))?;
    CONNECTION_TYPES.get(at).copied()
}

/// What the target's owner said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// Nothing yet.
    Pending,
    /// Traffic may flow.
    Approved,
    /// Traffic may not flow.
    Rejected,
    /// There is no such connection any more: it was removed, or its target was.
    Disconnected,
}

impl ConnectionStatus {
    /// Reads the word in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Rejected, Self::Disconnected]
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
            Self::Disconnected => "Disconnected",
        }
    }
}
