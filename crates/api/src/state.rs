//! What every handler can reach.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use casemate_blob::BlobStore;
use casemate_identity::TokenAuthority;
use casemate_model::{
    Clock, ResourceId,
    egress::{LogEntry, ServiceTags},
};
use casemate_store::Store;
use uuid::Uuid;

/// The stored logs of deployments, written by the runtime.
pub trait DeploymentLogs: Send + Sync {
    /// The last `tail` lines of one container of a deployment; empty when there are none yet.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn read(&self, deployment: &ResourceId, container: &str, tail: usize) -> io::Result<String>;
}

/// The decisions of the egress gateway, written by the runtime.
pub trait OutboundLog: Send + Sync {
    /// Decisions about the deployments of a workspace, oldest first, at most `limit`; only what was refused (or would be,
    /// in learn mode) when `denied`. Without `after` these are the newest ones; with it, those that came after. The number
    /// given back is the `after` of the next call.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn read(
        &self,
        workspace: &ResourceId,
        denied: bool,
        after: Option<u64>,
        limit: usize,
    ) -> io::Result<(Vec<LogEntry>, u64)>;
}

/// The platform's own facts.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where the platform is reached, without a trailing slash: `https://127.0.0.1:8443`. It is the audience of
    /// management tokens and the base of links when a request names no host.
    pub url: String,
    /// Where the plain port is, if there is one: services without TLS are called there.
    pub http_listen: Option<SocketAddr>,
    /// The one region, such as `local`.
    pub region: String,
    /// The DNS domain under which names are made, such as `casemate.internal`.
    pub domain: String,
    /// The one tenant.
    pub tenant: Uuid,
    /// The one subscription.
    pub subscription: Uuid,
    /// The name of this cloud for clients.
    pub cloud_name: String,
}

impl ApiConfig {
    /// The id of the one subscription.
    #[must_use]
    pub fn subscription_id(&self) -> ResourceId {
        ResourceId::parse(&format!("/subscriptions/{}", self.subscription)).expect("a GUID makes a valid id")
    }

    /// What follows `ACCOUNT.blob.` in a blob host's name.
    #[must_use]
    pub fn storage_suffix(&self) -> String {
        format!("core.{}", self.domain)
    }
}

/// What every handler can reach; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Desired and observed state.
    pub store: Store,
    /// Issues and checks tokens.
    pub tokens: Arc<TokenAuthority>,
    /// Artifacts.
    pub blob: Arc<BlobStore>,
    /// Logs of deployments.
    pub logs: Arc<dyn DeploymentLogs>,
    /// What deployments reached or tried to reach.
    pub outbound: Arc<dyn OutboundLog>,
    /// The service tags that outbound rules may name.
    pub tags: Arc<ServiceTags>,
    /// Asks for the host's own addresses, which no rule but a private endpoint opens. They come and go, with private
    /// endpoints for one.
    pub own_addresses: Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    /// The platform's own facts.
    pub config: ApiConfig,
    /// The time.
    pub clock: Clock,
}
