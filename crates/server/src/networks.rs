//! Networks: what makes them real, what they are told, and who answers for their names.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use casemate_cli::UpArgs;
use casemate_control::Networks as Reconciler;
use casemate_dns::{DnsConfig, Server};
use casemate_model::challenge::ChallengeBoard;
use casemate_proxy::PrivateListeners;
use casemate_store::Store;
use casemate_vnet::{Config, Published, VirtualNetworks};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks of all networks of a platform.
pub struct Networks {
    tasks: JoinSet<&'static str>,
    published: Published,
    /// Where the DNS server listens for everybody.
    pub dns: Vec<SocketAddr>,
    stop: CancellationToken,
}

impl Networks {
    /// Starts them for a front door that listens at `front_door`; certificate authorities find their answers on
    /// `challenges`.
    ///
    /// # Errors
    /// When the store can't be read, or an address of `--dns` can't be bound.
    pub async fn start(
        args: &UpArgs,
        state: &Path,
        store: Store,
        front_door: SocketAddr,
        challenges: ChallengeBoard,
    ) -> Result<Self> {
        let mut reconciler = Reconciler::new(store);
        reconciler.prepare().await?;
        let (snapshots, published, stop) = (reconciler.snapshots(), Published::new(), CancellationToken::new());
        let dns = DnsConfig {
            listen: args.dns.clone(),
            network_port: args.dns_port,
            upstream: args.upstream_dns,
            challenges,
            ..DnsConfig::new(args.domain.clone(), args.region.clone(), front_door.ip())
        };
        let dns = Server::new(dns, snapshots.clone()).await?;
        let addresses = dns.addresses();
        let networks = VirtualNetworks::new(Config {
            state_dir: state.to_owned(),
            front_door,
            dns_port: args.dns_port.unwrap_or(53),
        });

        let mut tasks = JoinSet::new();
        let made = networks.run(snapshots, published.clone(), stop.clone());
        tasks.spawn(async move {
            made.await;
            "the virtual networks"
        });
        let told = reconciler.run(published.status.subscribe(), stop.clone());
        tasks.spawn(async move {
            told.await;
            "the reconciler of networks"
        });
        let answered = dns.serve(stop.clone());
        tasks.spawn(async move {
            answered.await;
            "the DNS server"
        });
        Ok(Self { tasks, published, dns: addresses, stop })
    }

    /// The private listeners, as they come and go.
    pub fn listeners(&self) -> PrivateListeners {
        self.published.listeners.subscribe()
    }

    /// Waits until a part ends by itself; says which.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("{name} ended"),
            Some(Err(error)) => format!("a task of the networks ended: {error}"),
            None => std::future::pending().await,
        }
    }

    /// Closes private listeners and takes away what nobody is attached to.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the networks ended with an error");
            }
        }
    }
}
