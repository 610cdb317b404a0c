//! The hosts of the internet in these tests.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A host that notes who connects and keeps what it is sent; gone with this.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    callers: Arc<Mutex<Vec<SocketAddr>>>,
    pub(super) heard: Arc<Mutex<Vec<u8>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves each connection by `each`.
    pub(super) async fn each<F: Future<Output = ()> + Send + 'static>(
        each: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (callers, heard) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (noted, kept) = (Arc::clone(&callers), Arc::clone(&heard));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, caller)) = listener.accept().await {
                noted.lock().unwrap().push(caller);
                streams.spawn(each(stream, Arc::clone(&kept)));
            }
        });
        Self { address, callers, heard, _tasks: tasks }
    }

    /// Sends back what it gets, until the client ends.
    pub(super) async fn echo() -> Self {
        Self::each(|mut stream, heard| async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                heard.lock().unwrap().extend_from_slice(&bytes[..count]);
                if stream.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    /// Answers by a fixed text as soon as something has come, and keeps what comes.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::each(move |mut stream, heard| async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                heard.lock().unwrap().extend_from_slice(&bytes[..count]);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    pub(super) fn connections(&self) -> usize {
        self.callers.lock().unwrap().len()
    }

    /// The address that the latest connection came from.
    pub(super) fn last_caller(&self) -> SocketAddr {
        *self.callers.lock().unwrap().last().unwrap()
    }

    pub(super) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

/// A certificate for `name`, and what trusts it.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(super) fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der() }
    }

    /// A TLS server that says which server name it was called by, and then sends back what it gets.
    pub(super) async fn serve(&self) -> Server {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::each(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
                let mut bytes = vec![0; 16 << 10];
                let _ = stream.write_all(format!("{name}\n").as_bytes()).await;
                while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..count]).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    pub(super) fn client(&self, alpn: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    pub(super) fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        TlsConnector::from(Arc::new(self.client(alpn)))
    }
}

/// With the post-quantum key exchange, whose hellos are large.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768, rustls::crypto::aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}
