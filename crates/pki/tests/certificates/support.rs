//! Clients and servers that do handshakes.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use casemate_pki::{CaMaterial, CertificateAuthority, CertificateResolver, Leaf, Selection, fatal_alert};
use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    server::Acceptor,
};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn authority() -> (CertificateAuthority, CaMaterial) {
    CertificateAuthority::create(Timestamp::now()).unwrap()
}

pub fn issue(authority: &CertificateAuthority, names: &[&str]) -> Leaf {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    authority.issue(&names, Timestamp::now(), 90 * DAY).unwrap()
}

pub fn roots(root_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
    roots
}

pub fn client_config(root_pem: &str) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(root_pem))
        .with_no_client_auth()
}

/// What a client saw.
#[derive(Debug)]
pub struct Visit {
    pub certificate: CertificateDer<'static>,
    pub kind: HandshakeKind,
    pub alpn: Option<Vec<u8>>,
}

/// Does a handshake in memory; gives what the client saw, or the client's error.
pub fn visit(client: &Arc<ClientConfig>, resolver: &CertificateResolver, name: &str) -> Result<Visit, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut hello.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap_or_else(|(error, _)| panic!("{error}")).expect("a whole hello");
    let mut answer = Vec::new();
    let mut server = match resolver.select(&accepted.client_hello()) {
        Selection::Serve { config, .. } | Selection::Challenge(config) => match accepted.into_connection(config) {
            Ok(server) => Some(server),
            Err((_, mut alert)) => {
                alert.write(&mut answer).unwrap();
                None
            }
        },
        Selection::Refuse(alert) => {
            answer.extend(fatal_alert(alert));
            None
        }
    };
    loop {
        // The server's own error reaches the client as an alert.
        while let Some(server) = server.as_mut().filter(|server| server.wants_write()) {
            server.write_tls(&mut answer).unwrap();
        }
        if !answer.is_empty() {
            let mut left = answer.as_slice();
            while !left.is_empty() {
                client.read_tls(&mut left).unwrap();
                client.process_new_packets()?;
            }
            answer.clear();
        } else if !client.wants_write() {
            let certificate = client.peer_certificates().expect("an end of the handshake")[0].clone().into_owned();
            let alpn = client.alpn_protocol().map(<[u8]>::to_vec);
            return Ok(Visit { certificate, kind: client.handshake_kind().unwrap(), alpn });
        }
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        if let Some(server) = &mut server {
            let mut left = wire.as_slice();
            while !left.is_empty() {
                server.read_tls(&mut left).unwrap();
                let _ = server.process_new_packets();
            }
        }
    }
}

/// The certificate that a client accepted, or its error.
pub fn handshake(
    client: &Arc<ClientConfig>,
    resolver: &CertificateResolver,
    name: &str,
) -> Result<CertificateDer<'static>, rustls::Error> {
    visit(client, resolver, name).map(|visit| visit.certificate)
}

/// Accepts connections until the process ends; each gets one line back.
pub fn serve(resolver: Arc<CertificateResolver>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let resolver = Arc::clone(&resolver);
            thread::spawn(move || greet(stream?, &resolver));
        }
    });
    port
}

fn greet(mut stream: TcpStream, resolver: &CertificateResolver) -> io::Result<()> {
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut stream)?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, _)) => return Err(io::Error::other(error)),
        }
    };
    let mut server: ServerConnection = match resolver.select(&accepted.client_hello()) {
        Selection::Serve { config, .. } | Selection::Challenge(config) => {
            accepted.into_connection(config).map_err(|(error, _)| io::Error::other(error))?
        }
        Selection::Refuse(alert) => return stream.write_all(&fatal_alert(alert)),
    };
    server.complete_io(&mut stream)?;
    server.writer().write_all(b"hello\n")?;
    server.send_close_notify();
    server.complete_io(&mut stream)?;
    let _ = stream.read(&mut [0_u8; 1]);
    Ok(())
}
