//! What a certificate authority sees of a platform: its names, its plain port and its TLS port, each on loopback.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use casemate_model::challenge::ChallengeBoard;
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, TXT},
    },
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// The site of one board; its tasks end with it.
pub(super) struct Site {
    pub(super) board: ChallengeBoard,
    pub(super) dns: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) alpn: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Site {
    pub(super) async fn start() -> Self {
        let board = ChallengeBoard::default();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let dns = UdpSocket::bind(local).await.unwrap();
        let http = TcpListener::bind(local).await.unwrap();
        let alpn = TcpListener::bind(local).await.unwrap();
        let addresses = [dns.local_addr(), http.local_addr(), alpn.local_addr()].map(Result::unwrap);
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_names(dns, board.clone()));
        tasks.spawn(answer_files(http, board.clone()));
        tasks.spawn(answer_handshakes(alpn, board.clone()));
        let [dns, http, alpn] = addresses;
        Self { board, dns, http, alpn, _tasks: tasks }
    }

    /// A site that shows what is on another board than the one that the issuer posts on: nothing, or what is wrong.
    pub(super) async fn wrong() -> Self {
        let mut site = Self::start().await;
        site.board = ChallengeBoard::default();
        site
    }
}

/// Every name is here; TXT is what the board has.
async fn answer_names(socket: UdpSocket, board: ChallengeBoard) {
    let mut packet = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let Ok(asked) = Message::from_vec(&packet[..length]) else { continue };
        let Some(query) = asked.queries.first().cloned() else { continue };
        let mut answer = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
        answer.metadata.response_code = ResponseCode::NoError;
        answer.metadata.authoritative = true;
        let name = query.name().clone();
        let data: Vec<RData> = match query.query_type() {
            RecordType::A => vec![RData::A(A(Ipv4Addr::LOCALHOST))],
            RecordType::TXT => {
                board.txt(&name.to_ascii()).into_iter().map(|text| RData::TXT(TXT::new(vec![text]))).collect()
            }
            _ => Vec::new(),
        };
        answer.add_query(query);
        answer.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), 0, data)));
        let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
    }
}

async fn answer_files(listener: TcpListener, board: ChallengeBoard) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < 8192 {
            if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&head);
        let token = text.split(' ').nth(1).and_then(|path| path.strip_prefix("/.well-known/acme-challenge/"));
        let body = token.and_then(|token| board.http(token));
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[derive(Debug)]
struct Proofs(ChallengeBoard);

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let proof = self.0.alpn(hello.server_name()?)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(proof.key.expose().to_vec()));
        let chain = vec![CertificateDer::from(proof.certificate)];
        // Not `from_der`, which refuses the critical extension that the proof is in.
        let key = default_provider().key_provider.load_private_key(key).ok()?;
        Some(Arc::new(CertifiedKey::new(chain, key)))
    }
}

async fn answer_handshakes(listener: TcpListener, board: ChallengeBoard) {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Proofs(board)));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        if let Ok(mut tls) = acceptor.accept(stream).await {
            let _ = tls.shutdown().await;
        }
    }
}

/// A TLS server whose answer to every connection is up to the test.
pub(super) async fn tls_server<F>(
    chain_pem: &str,
    key_pem: &[u8],
    answer: impl Fn(tokio_rustls::server::TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    use rustls_pki_types::pem::PemObject;

    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key_pem).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(tls) = acceptor.accept(stream).await {
                connections.spawn(answer(tls));
            }
        }
    });
    (address, tasks)
}
