//! The proof that a certificate is served: a real handshake with the front door, for one server name after another.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use casemate_model::{
    ResourceId,
    inbound::{DeploymentCaller, DeploymentCallers},
    tls::PLATFORM_OWNER,
};
use casemate_pki::{BoxFuture, fingerprint, probe_config};
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long a handshake may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at what callers are shown.
pub trait Probe: Send + Sync {
    /// The SHA-256 fingerprint (lower-case hexadecimal) of the certificate that is shown for a name; or what was seen
    /// instead, for people.
    fn seen<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>>;
}

/// Shakes hands with the front door.
#[derive(Debug, Clone)]
pub struct FrontDoor {
    /// Where it is reached from this machine.
    pub address: SocketAddr,
    /// Where the front door looks up connections of the platform's own, which it takes wherever callers must come from.
    pub callers: DeploymentCallers,
}

impl Probe for FrontDoor {
    fn seen<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            match timeout(PATIENCE, self.handshake(name)).await {
                Ok(Ok(seen)) => Ok(seen),
                Ok(Err(error)) => Err(format!("the handshake failed: {error}")),
                Err(_) => Err(format!("there was no handshake within {} seconds", PATIENCE.as_secs())),
            }
        })
    }
}

impl FrontDoor {
    async fn handshake(&self, name: &str) -> std::io::Result<String> {
        // One of the names that a wildcard stands for.
        let name = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |rest| format!("casemate-probe.{rest}"));
        let server_name = match name.parse::<IpAddr>() {
            Ok(address) => ServerName::IpAddress(address.into()),
            Err(_) => ServerName::try_from(name).map_err(std::io::Error::other)?,
        };
        // Until the handshake is over the connection is known as one of the platform's own.
        let (_known, stream) = self.connect().await?;
        let stream = TlsConnector::from(probe_config()).connect(server_name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        shown.map(fingerprint).ok_or_else(|| std::io::Error::other("no certificate was shown"))
    }

    async fn connect(&self) -> std::io::Result<(DeploymentCaller, TcpStream)> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(self.address.ip(), 0))?;
        let platform = ResourceId::parse(PLATFORM_OWNER).map_err(std::io::Error::other)?;
        let known = self.callers.register(socket.local_addr()?, platform);
        Ok((known, socket.connect(self.address).await?))
    }
}
