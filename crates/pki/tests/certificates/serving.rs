//! How names are served: settings of their own, sessions that never cross them, challenges.

use std::sync::{Arc, Mutex};

use casemate_model::{
    Secret,
    challenge::{AlpnCertificate, ChallengeBoard},
    tls::MinimumTls,
};
use casemate_pki::{CertificateAuthority, CertificateMap, CertificateResolver, Leaf, PkiError, Served, TlsSettings};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, string,
};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};

use crate::support::{authority, client_config, issue, roots, visit};

/// A client session store that offers the last session to any server.
#[derive(Debug, Default)]
struct OneSession {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Option<Tls13ClientSessionValue>>,
}

impl ClientSessionStore for OneSession {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.tls12.lock().unwrap() = Some(value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().unwrap().clone()
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.tls12.lock().unwrap() = None;
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        *self.tls13.lock().unwrap() = Some(value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tls13.lock().unwrap().take()
    }
}

/// An authority for clients' certificates.
struct ClientAuthority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl ClientAuthority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn settings(&self) -> TlsSettings {
        TlsSettings::new(MinimumTls::V1_2, Some(&self.pem)).unwrap()
    }

    /// A certificate for a client.
    fn client(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Some((vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

type Identity = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

/// A client of one version with a session store of its own, and maybe a certificate.
fn client(
    authority: &CertificateAuthority,
    version: &'static rustls::SupportedProtocolVersion,
    sessions: &Arc<OneSession>,
    identity: Identity,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots(authority.root_pem()));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::store(Arc::clone(sessions) as Arc<dyn ClientSessionStore>);
    Arc::new(config)
}

fn served(leaf: &Leaf, names: &[(&str, &TlsSettings)]) -> CertificateMap {
    let one = |(name, settings): &(&str, &TlsSettings)| Served {
        names: vec![(*name).to_owned()],
        leaf,
        settings: TlsSettings::clone(settings),
    };
    CertificateMap::new(names.iter().map(one), None)
}

fn alert(outcome: Result<crate::support::Visit, rustls::Error>) -> AlertDescription {
    match outcome {
        Err(rustls::Error::AlertReceived(alert)) => alert,
        other => panic!("no alert but {other:?}"),
    }
}

#[test]
fn sessions_resume_for_the_same_name_and_never_for_another() {
    let (authority, _) = authority();
    let leaf = issue(&authority, &["a.example", "b.example"]);
    let default = TlsSettings::default();
    let both = || served(&leaf, &[("a.example", &default), ("b.example", &default)]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let resolver = CertificateResolver::new(both());
        let sessions = Arc::new(OneSession::default());
        let client = client(&authority, version, &sessions, None);
        let kind = |name| visit(&client, &resolver, name).map(|visit| visit.kind);
        assert_eq!(kind("a.example").unwrap(), HandshakeKind::Full);
        assert_eq!(kind("a.example").unwrap(), HandshakeKind::Resumed);
        // A map with the same certificate and settings keeps sessions.
        resolver.publish(both());
        assert_eq!(kind("a.example").unwrap(), HandshakeKind::Resumed);
        // A new certificate is shown to everybody.
        let successor = issue(&authority, &["a.example", "b.example"]);
        resolver.publish(served(&successor, &[("a.example", &default), ("b.example", &default)]));
        assert_eq!(kind("a.example").unwrap(), HandshakeKind::Full);
        assert_eq!(kind("a.example").unwrap(), HandshakeKind::Resumed);
        // The client offers a.example's session to b.example; the server must not take it.
        assert_eq!(kind("b.example").unwrap(), HandshakeKind::Full);
        // A name that is gone is not resumed either.
        resolver.publish(CertificateMap::default());
        assert!(kind("b.example").is_err());
    }
}

#[test]
fn a_session_begun_under_other_settings_does_not_get_in() {
    let (authority, _) = authority();
    let leaf = issue(&authority, &["open.example", "one.example", "two.example"]);
    let (one, two) = (ClientAuthority::new(), ClientAuthority::new());
    let open = TlsSettings::default();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let names = [("open.example", &open), ("one.example", &one.settings()), ("two.example", &two.settings())];
        let resolver = CertificateResolver::new(served(&leaf, &names));
        let sessions = Arc::new(OneSession::default());
        let nobody = client(&authority, version, &sessions, None);
        let holder = client(&authority, version, &sessions, one.client());
        let kind = |client, name| visit(client, &resolver, name).map(|visit| visit.kind);

        // Begun without a certificate, offered where one is wanted.
        kind(&nobody, "open.example").unwrap();
        assert_eq!(alert(visit(&nobody, &resolver, "one.example")), AlertDescription::CertificateRequired);
        // Begun with a certificate of one authority, offered to the name of another.
        kind(&nobody, "open.example").unwrap();
        assert_eq!(kind(&holder, "one.example").unwrap(), HandshakeKind::Full);
        assert_eq!(kind(&holder, "one.example").unwrap(), HandshakeKind::Resumed);
        assert!(matches!(kind(&holder, "two.example"), Err(rustls::Error::AlertReceived(_))));
        // Begun at the same name before it wanted certificates.
        kind(&nobody, "open.example").unwrap();
        resolver.publish(served(&leaf, &[("open.example", &one.settings())]));
        assert_eq!(alert(visit(&nobody, &resolver, "open.example")), AlertDescription::CertificateRequired);
        assert_eq!(kind(&holder, "open.example").unwrap(), HandshakeKind::Full);
    }
}

#[test]
fn clients_need_a_certificate_of_the_names_authority_and_the_names_version() {
    let (authority, _) = authority();
    let leaf = issue(&authority, &["open.example", "one.example", "new.example"]);
    let (one, other) = (ClientAuthority::new(), ClientAuthority::new());
    let newest = TlsSettings::new(MinimumTls::V1_3, None).unwrap();
    let open = TlsSettings::default();
    let settings = one.settings();
    let names = [("open.example", &open), ("one.example", &settings), ("new.example", &newest)];
    let resolver = CertificateResolver::new(served(&leaf, &names));
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let visit = |name: &str, version, identity: Identity| {
        let client = client(&authority, version, &Arc::new(OneSession::default()), identity);
        visit(&client, &resolver, name)
    };
    for version in [tls12, tls13] {
        visit("open.example", version, None).unwrap();
        visit("open.example", version, other.client()).unwrap();
        visit("one.example", version, one.client()).unwrap();
        assert_eq!(alert(visit("one.example", version, None)), AlertDescription::CertificateRequired);
        let foreign = alert(visit("one.example", version, other.client()));
        assert!(matches!(foreign, AlertDescription::UnknownCA | AlertDescription::DecryptError), "{foreign:?}");
        assert_eq!(alert(visit("gone.example", version, None)), AlertDescription::UnrecognisedName);
        // No server name is sent for an address.
        assert_eq!(alert(visit("127.0.0.1", version, None)), AlertDescription::UnrecognisedName);
    }
    visit("new.example", tls13, None).unwrap();
    assert_eq!(alert(visit("new.example", tls12, None)), AlertDescription::ProtocolVersion);

    assert!(resolver.has_settings() && settings.asks_for_client_certificates());
    for (name, given, guarded, admitted) in [
        ("open.example", &open, false, true),
        ("open.example", &open, true, false),
        ("open.example", &settings, false, true),
        ("ONE.example", &settings, false, true),
        ("one.example", &settings, true, true),
        ("one.example", &open, false, false),
        ("one.example", &other.settings(), false, false),
        ("new.example", &open, false, false),
        ("unknown.example", &open, false, true),
        ("unknown.example", &open, true, false),
        ("unknown.example", &settings, true, false),
    ] {
        assert_eq!(resolver.admits(name, given, guarded), admitted, "{name} {given:?} {guarded}");
    }
}

#[test]
fn client_authorities_are_read_or_refused() {
    let one = ClientAuthority::new();
    assert_eq!(one.settings(), one.settings());
    assert_ne!(one.settings(), ClientAuthority::new().settings());
    for bad in [String::new(), "hello".to_owned(), one.pem.repeat(101), one.pem.replace("MII", "MIJ")] {
        let error = TlsSettings::new(MinimumTls::V1_2, Some(&bad)).unwrap_err();
        assert!(matches!(error, PkiError::Malformed { .. }), "{error}");
    }
}

/// A certificate authority's eye: looks at what is shown without judging it.
#[derive(Debug)]
struct Onlooker;

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn challenge_certificate(name: &str) -> AlpnCertificate {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = vec![rcgen::SanType::DnsName(string::Ia5String::try_from(name).unwrap())];
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().to_vec();
    AlpnCertificate { certificate, key: Secret::new(key.serialize_der()) }
}

#[test]
fn a_challenges_certificate_is_shown_to_those_who_ask_for_it_and_to_nobody_else() {
    let (authority, _) = authority();
    let leaf = issue(&authority, &["a.example"]);
    let board = ChallengeBoard::default();
    let resolver = CertificateResolver::with_challenges(board.clone());
    resolver.publish(CertificateMap::new([("a.example".to_owned(), &leaf)], Some(&leaf)));
    let mut acme = client_config(authority.root_pem());
    acme.dangerous().set_certificate_verifier(Arc::new(Onlooker));
    let mut mixed = acme.clone();
    acme.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    mixed.alpn_protocols = vec![b"h2".to_vec(), b"acme-tls/1".to_vec()];
    let (acme, mixed) = (Arc::new(acme), Arc::new(mixed));
    let mut normal = client_config(authority.root_pem());
    normal.alpn_protocols = vec![b"h2".to_vec()];
    let normal = Arc::new(normal);

    assert_eq!(alert(visit(&acme, &resolver, "a.example")), AlertDescription::UnrecognisedName);
    let (a, new) = (challenge_certificate("a.example"), challenge_certificate("new.example"));
    let posted = [("a.example", &a), ("new.example", &new)].map(|(name, answer)| board.post_alpn(name, answer.clone()));
    for (name, answer) in [("a.example", &a), ("NEW.example", &new)] {
        let seen = visit(&acme, &resolver, name).unwrap();
        assert_eq!((&seen.certificate[..], seen.alpn.as_deref()), (&answer.certificate[..], Some(&b"acme-tls/1"[..])));
        assert_eq!(alert(visit(&mixed, &resolver, name)), AlertDescription::NoApplicationProtocol);
    }
    let seen = visit(&normal, &resolver, "a.example").unwrap();
    assert_ne!(seen.certificate[..], a.certificate[..]);
    assert_eq!(seen.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(alert(visit(&normal, &resolver, "new.example")), AlertDescription::UnrecognisedName);
    assert_eq!(alert(visit(&acme, &resolver, "127.0.0.1")), AlertDescription::UnrecognisedName);
    drop(posted);
    assert_eq!(alert(visit(&acme, &resolver, "a.example")), AlertDescription::UnrecognisedName);
}
