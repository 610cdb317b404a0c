//! One running platform: opens the store, wires the rooms together and owns their tasks.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use casemate_api::{ApiConfig, ApiState, DeploymentLogs, OutboundLog};
use casemate_blob::BlobStore;
use casemate_cli::{EnvironmentPython, UpArgs};
use casemate_control::{Control, ControlConfig, FrontDoor};
use casemate_egress::{EgressConfig, EgressLimits, Gateway as EgressGateway, LogQuery};
use casemate_identity::TokenAuthority;
use casemate_model::{
    Clock, ResourceId, Secret,
    challenge::ChallengeBoard,
    egress::LogEntry,
    inbound::{AllowList, DeploymentCallers},
    vault,
};
use casemate_pki::CertificateResolver;
use casemate_proxy::{Gateway, GatewayConfig, Listeners};
use casemate_runtime::{Backend, LocalBackend, LogStore, PythonPolicy};
use casemate_sandbox::{Launcher, LauncherConfig};
use casemate_store::Store;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{acme, certificates, networks::Networks, service_tags, state::StateDir};

/// The owner of the platform's own secrets.
const SETTINGS: &str = "/providers/Casemate.Platform/settings/platform";
/// A platform that serves.
pub struct Platform {
    /// `https://host:port` of the front door.
    pub url: String,
    /// Runs instances and builds environments; the demo trains with it.
    pub backend: LocalBackend,
    /// Starts sandboxes; the demo trains in one.
    pub launcher: Arc<Launcher>,
    gateway: JoinHandle<std::io::Result<()>>,
    control: JoinHandle<()>,
    networks: Networks,
    stop_gateway: CancellationToken,
    stop_control: CancellationToken,
    _state: StateDir,
}

impl Platform {
    /// Starts a platform; it serves when this returns.
    ///
    /// # Errors
    /// Everything that keeps it from serving, each with its cause and fix: the state directory is held by another
    /// platform, the port is taken, the kernel lacks what a sandbox needs, the store can't be opened.
    pub async fn start(args: &UpArgs, state: StateDir) -> Result<Self> {
        let authority = acme::config(&args.acme)?;
        let clock = Clock::system();
        let tags = Arc::new(service_tags::read(state.path())?);
        let launcher = Arc::new(launcher(state.path())?);
        let listener = listen(args.listen, "--listen").await?;
        let address = listener.local_addr()?;
        let plain = plain_listener(args.http_listen).await?;
        let url = format!("https://{}", reachable(address));

        let store = Store::open(state.path(), clock.clone()).await?;
        let bootstrap = casemate_api::bootstrap(&store).await?;
        let settings = ResourceId::parse(SETTINGS)?;
        let signing_key = platform_secret(&store, &settings, "token-signing-key").await?;
        let sas_key = platform_secret(&store, &settings, "sas-key").await?;
        let tokens = Arc::new(TokenAuthority::new(&signing_key, bootstrap.tenant, url.clone(), clock.clone())?);
        let blob = Arc::new(BlobStore::open(&state.path().join("blobs"), sas_key, clock.clone())?);
        let deployments = DeploymentCallers::default();
        let egress = EgressGateway::new(EgressConfig {
            upstream_dns: args.upstream_dns,
            log_dir: state.path().join("outbound"),
            limits: EgressLimits::default(),
            front_door: reachable(address),
            callers: deployments.clone(),
        })?;
        let policy = python_policy(args.environment_python);
        let backend = LocalBackend::new(state.path(), Arc::clone(&launcher), egress.clone(), policy)?;

        write_credentials(&state, &url, &args.domain, &bootstrap)?;

        let challenges = ChallengeBoard::default();
        let resolver = Arc::new(CertificateResolver::with_challenges(challenges.clone()));
        let front_door = FrontDoor { address: reachable(address), callers: deployments.clone() };
        let names = authority.map(|authority| acme::issuer(authority, &challenges, &store, &settings)).transpose()?;
        let certificates = certificates::manager(&store, state.path(), &resolver, front_door, names).await?;
        let config = ControlConfig {
            state_dir: state.path().to_owned(),
            region: args.region.clone(),
            domain: args.domain.clone(),
            url: url.clone(),
            has_plain_port: plain.is_some(),
            endpoint_names_resolve: endpoint_names_resolve(args, address).await,
            platform_names: platform_names(address, &args.domain),
            tags: Arc::clone(&tags),
        };
        let (mut control, routes) =
            Control::new(store.clone(), Arc::clone(&blob), backend.clone(), certificates, Arc::clone(&tokens), config);
        control.prepare().await?;

        let networks = Networks::start(args, state.path(), store.clone(), address, challenges).await?;

        let api = casemate_api::router(ApiState {
            store,
            tokens: Arc::clone(&tokens),
            blob,
            logs: Arc::new(Logs(backend.logs().clone())),
            outbound: Arc::new(Decisions(egress)),
            tags,
            own_addresses: Arc::new(casemate_control::own_addresses),
            config: ApiConfig {
                url: url.clone(),
                http_listen: plain.as_ref().and_then(|plain| plain.local_addr().ok()),
                region: args.region.clone(),
                domain: args.domain.clone(),
                tenant: bootstrap.tenant,
                subscription: bootstrap.subscription,
                cloud_name: "Casemate".to_owned(),
            },
            clock,
        });
        let mut gateway_config = GatewayConfig::new(args.region.clone(), args.domain.clone());
        gateway_config.allow_from = AllowList::parse(args.allow_from.iter().map(String::as_str))?;
        gateway_config.deployments = deployments;
        let gateway = Gateway::new(gateway_config, routes, tokens, api);
        let (stop_gateway, stop_control) = (CancellationToken::new(), CancellationToken::new());
        let serving = stop_gateway.clone();
        let tasks = TaskTracker::new();
        let listeners = Listeners { public: listener, plain, private: networks.listeners() };
        let gateway = tasks.spawn(async move { gateway.serve(listeners, resolver, serving).await });
        let control = tasks.spawn(control.run(stop_control.clone()));
        let run = json!({"pid": std::process::id(), "url": url, "dns": networks.dns});
        state.write_private("run.json", run.to_string().as_bytes())?;
        Ok(Self { url, backend, launcher, gateway, control, networks, stop_gateway, stop_control, _state: state })
    }

    /// Waits for an end that nobody asked for: a part of the platform failed.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            ended = &mut self.gateway => anyhow::anyhow!("the front door ended by itself: {ended:?}"),
            ended = self.networks.failed() => anyhow::anyhow!("{ended} by itself"),
            ended = &mut self.control => anyhow::anyhow!("the reconcilers ended by themselves: {ended:?}"),
        }
    }

    /// Drains: requests in flight finish (bounded), then the instances stop.
    pub async fn stop(self) {
        self.stop_gateway.cancel();
        if let Ok(Err(error)) = self.gateway.await {
            tracing::warn!(%error, "the front door ended with an error");
        }
        self.networks.stop().await;
        self.stop_control.cancel();
        if let Err(error) = self.control.await {
            tracing::error!(%error, "the reconcilers ended with an error");
        }
        self.backend.ended().await;
    }
}

/// Lets the management API read the runtime's logs without knowing the runtime.
struct Logs(LogStore);

impl DeploymentLogs for Logs {
    fn read(&self, deployment: &ResourceId, container: &str, tail: usize) -> std::io::Result<String> {
        self.0.read(deployment, container.parse().unwrap_or_default(), tail)
    }
}

/// Lets the management API read the egress gateway's decisions without knowing the gateway.
struct Decisions(EgressGateway);

impl OutboundLog for Decisions {
    fn read(
        &self,
        workspace: &ResourceId,
        denied_only: bool,
        after: Option<u64>,
        limit: usize,
    ) -> std::io::Result<(Vec<LogEntry>, u64)> {
        self.0.log().read(workspace.as_str(), &LogQuery { denied_only, after, limit })
    }
}

fn launcher(state_dir: &Path) -> Result<Launcher> {
    let group = casemate_model::route::key_digest(state_dir.as_os_str().as_encoded_bytes());
    let group: String = group.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let launcher = Launcher::new(LauncherConfig {
        helper: "/proc/self/exe".into(),
        helper_args: vec![casemate_sandbox::HELPER_ARG.to_owned()],
        cgroup_group: group,
        scratch: state_dir.join("instances"),
    })?;
    launcher.sweep()?;
    Ok(launcher)
}

async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("the address {address} can't be listened on; if another program has the port, choose another with {option} ADDRESS:PORT")
    })
}

async fn plain_listener(address: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = listen(address, "--http-listen").await?;
    tracing::info!(
        url = format!("http://{}", reachable(listener.local_addr()?)),
        "web services without TLS are served"
    );
    Ok(Some(listener))
}

fn python_policy(choice: EnvironmentPython) -> PythonPolicy {
    match choice {
        EnvironmentPython::Exact => PythonPolicy::Exact,
        EnvironmentPython::Nearest => PythonPolicy::Nearest,
    }
}

/// The address that a client on this machine can call.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

fn platform_names(address: SocketAddr, domain: &str) -> Vec<String> {
    let mut names = vec![
        reachable(address).ip().to_string(),
        "localhost".to_owned(),
        domain.to_owned(),
        format!("management.{domain}"),
        format!("*.blob.core.{domain}"),
        format!("*.vault.{domain}"),
        format!("*.{}", vault::PUBLIC_SUFFIX),
        format!("*.blob.{}", vault::PUBLIC_STORAGE_SUFFIX),
    ];
    names.dedup();
    names
}

/// Whether a made-up endpoint's DNS name leads to the front door on this machine.
///
/// The question is what a client on this machine would find, so it goes where that client's would go: to the host's own
/// resolver, once at each start, whatever `--upstream-dns` says, which is where sandboxes' names are looked up. It tells
/// that resolver the region and the domain, and nothing else.
async fn endpoint_names_resolve(args: &UpArgs, address: SocketAddr) -> bool {
    let name = format!("casemate-probe.{}.inference.{}:{}", args.region, args.domain, address.port());
    let lookup = tokio::time::timeout(std::time::Duration::from_secs(2), tokio::net::lookup_host(name));
    match lookup.await {
        Ok(Ok(mut found)) => found.any(|found| found == reachable(address)),
        _ => false,
    }
}

async fn platform_secret(store: &Store, settings: &ResourceId, name: &str) -> Result<Secret> {
    store
        .secret_get(settings, name)
        .await?
        .with_context(|| format!("the store holds no '{name}'; the state directory is incomplete"))
}

/// Writes the owner's credentials; a later start keeps the secret of the first and renews the rest.
fn write_credentials(state: &StateDir, url: &str, domain: &str, bootstrap: &casemate_api::Bootstrap) -> Result<()> {
    let earlier = state.read_json("credentials.json");
    let secret = match &bootstrap.client_secret {
        Some(secret) => secret.expose_str()?.to_owned(),
        None => earlier
            .as_ref()
            .and_then(|earlier| earlier["clientSecret"].as_str())
            .context(
                "credentials.json is missing or unreadable, and its secret is kept nowhere else; restore the file",
            )?
            .to_owned(),
    };
    let credentials = json!({
        "url": url,
        "domain": domain,
        "tenantId": bootstrap.tenant,
        "subscriptionId": bootstrap.subscription,
        "clientId": bootstrap.client_id,
        "clientSecret": secret,
        "caFile": state.path().join("ca-bundle.pem"),
    });
    state.write_private("credentials.json", format!("{credentials:#}\n").as_bytes())?;
    Ok(())
}
