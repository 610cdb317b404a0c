//! TLS settings of a name hold however a request says whom it calls.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use casemate_model::{route::RouteTable, tls::MinimumTls};
use casemate_pki::{CertificateMap, Served, TlsSettings};
use http::{Request, StatusCode};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    services::{POOL, echo, post, services},
    support::*,
};

/// Settings that ask for a client certificate, and a client that has one.
fn client_certificates(stage: &Stage) -> (TlsSettings, Arc<ClientConfig>) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let settings = TlsSettings::new(MinimumTls::V1_2, Some(&params.self_signed(&key).unwrap().pem())).unwrap();
    let issuer = Issuer::new(params, key);
    let client_key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&client_key, &issuer).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(Arc::clone(&stage.roots))
        .with_client_auth_cert(vec![client.der().clone()], PrivateKeyDer::Pkcs8(client_key.serialize_der().into()))
        .unwrap();
    (settings, Arc::new(config))
}

async fn connect(stage: &Stage, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, TcpStream::connect(stage.address).await?).await
}

/// Publishes certificates by which `guarded` are served with `settings` and the platform's own names without.
fn publish(stage: &Stage, guarded: &[String], settings: &TlsSettings) {
    let issue = |names: &[String]| stage.authority.issue(names, Timestamp::now(), Duration::from_secs(3600)).unwrap();
    let own = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let (leaf, platform) = (issue(guarded), issue(&own));
    let served = [
        Served { names: guarded.to_vec(), leaf: &leaf, settings: settings.clone() },
        Served { names: vec![own[0].clone()], leaf: &platform, settings: TlsSettings::default() },
    ];
    stage.certificates.publish(CertificateMap::new(served, Some(&platform)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_can_not_be_gone_round() {
    let model = echo().await;
    let stage = Stage::start(services(&model)).await;
    let (settings, holder) = client_certificates(&stage);
    let guarded = [host("e"), POOL.to_owned()];
    publish(&stage, &guarded, &TlsSettings::default());
    let mut early = stage.h1(&host("e")).await;
    assert_eq!(early.call(score("e", "x")).await.status, StatusCode::OK);
    publish(&stage, &guarded, &settings);

    let calls: [(&str, Request<Body>); 5] = [
        ("127.0.0.1", score("e", "x")),
        ("127.0.0.1", post("127.0.0.1", "/api/v1/endpoint/e/score")),
        ("localhost", post("localhost", "/api/v1/endpoint/e/score")),
        ("localhost", post("localhost", "/api/v1/service/both/score")),
        ("127.0.0.1", post(POOL, "/api/v1/service/both/score")),
    ];
    for (name, request) in calls {
        let uri = request.uri().clone();
        let answer = stage.h1(name).await.call(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::MISDIRECTED_REQUEST, "MisdirectedRequest"));
        assert!(answer.text().contains("client certificates"), "{name} {uri}: {answer:?}");
    }
    // A connection from before is of no use either; it is told to come anew.
    assert_eq!(early.call(score("e", "x")).await.status, StatusCode::MISDIRECTED_REQUEST);
    // Without a certificate there is no connection; with TLS 1.3 the client learns that at its first read.
    let refused = match stage.tls(&host("e"), "http/1.1").await {
        Ok(stream) => stage.h1_over(stream).await.try_call(score("e", "x")).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    let mut caller = stage.h1_over(connect(&stage, &holder, &host("e")).await.unwrap()).await;
    assert_eq!(caller.call(score("e", "x")).await.text(), "https /score");
    let mut caller = stage.h1_over(connect(&stage, &holder, POOL).await.unwrap()).await;
    assert_eq!(caller.call(post(POOL, "/api/v1/service/both/score")).await.text(), "https /score");
    // With the wish known and the settings not yet served, nobody gets in.
    publish(&stage, &guarded, &TlsSettings::default());
    let wish = RouteTable { guarded: guarded.clone().into(), ..services(&model) };
    stage.publish(wish);
    let began = Instant::now();
    while stage.call(score("e", "x")).await.status == StatusCode::OK {
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(stage.call(score("e", "x")).await.status, StatusCode::MISDIRECTED_REQUEST);
    let service = post(POOL, "/api/v1/service/both/score");
    assert_eq!(stage.h1(POOL).await.call(service).await.status, StatusCode::MISDIRECTED_REQUEST);
    // What is not behind the name's settings is served as ever.
    let other = stage.h1("localhost").await.call(post("localhost", "/api/v1/service/other/score")).await;
    assert_eq!(other.status, StatusCode::OK);
}
