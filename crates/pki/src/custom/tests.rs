use std::{path::PathBuf, process::Command};

use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
    date_time_ymd,
};

use base64::prelude::{BASE64_STANDARD, Engine};

use super::*;

const CNAME: &str = "www.example.org";

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// So many days from now, since 1970.
fn days(days: i64) -> Duration {
    let moment = now() + SignedDuration::from_hours(24 * days);
    Duration::from_secs(moment.as_second().unsigned_abs())
}

/// A certificate's plan: an authority or a server, valid from 10 days ago for 100 more.
fn plan(name: &str, names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + days(-10);
    params.not_after = date_time_ymd(1970, 1, 1) + days(100);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = plan(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn server(names: &[&str]) -> CertificateParams {
    let mut params = plan("server", names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A certificate with what is needed to sign others.
struct Made {
    pem: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

fn make(params: CertificateParams, algorithm: &'static SignatureAlgorithm, by: Option<&Made>) -> Made {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = match by {
        Some(by) => params.signed_by(&key, &by.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Made { pem: certificate.pem(), key: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

/// Root, intermediate and a server's certificate for [`CNAME`].
struct Pki {
    root: Made,
    middle: Made,
    leaf: Made,
}

impl Pki {
    fn new() -> Self {
        let root = make(authority("Test Root"), &PKCS_ECDSA_P384_SHA384, None);
        let middle = make(authority("Test Issuing"), &PKCS_ECDSA_P256_SHA256, Some(&root));
        let leaf = make(server(&[CNAME]), &PKCS_ECDSA_P256_SHA256, Some(&middle));
        Self { root, middle, leaf }
    }

    fn server(&self, params: CertificateParams) -> (String, String) {
        let made = make(params, &PKCS_ECDSA_P256_SHA256, Some(&self.middle));
        (made.pem + &self.middle.pem, made.key)
    }
}

fn judge(chain: &str, key: &str, cname: &str) -> Result<Checked, Fault> {
    check(chain, &Secret::from(key), cname, now())
}

/// No message holds a piece of what was given as a key.
fn assert_silent(fault: &Fault, key: &[u8]) {
    for line in key.split(|byte| *byte == b'\n').filter(|line| line.len() >= 12 && !line.starts_with(b"-----")) {
        let line = String::from_utf8_lossy(line);
        assert!(!fault.message.contains(line.trim()), "{fault}");
    }
    assert!(fault.message.len() > 30 && fault.message.ends_with(['.', 'm', 'Y']), "{fault}");
}

#[test]
fn what_is_accepted_is_put_in_order_and_commented_on() {
    let Pki { root, middle, leaf } = &Pki::new();
    let stranger = make(authority("Stranger"), &PKCS_ED25519, None);
    let direct = make(server(&[CNAME]), &PKCS_ED25519, Some(root));
    let pieces = |pieces: &[&Made]| pieces.iter().map(|piece| piece.pem.as_str()).collect::<String>();
    let order = "not in order";
    let left_out = "'CN=Test Root' is left out";
    for (what, chain, key, served, warnings) in [
        ("as it should be", pieces(&[leaf, middle]), leaf, 2, &[][..]),
        ("reversed", pieces(&[middle, leaf]), leaf, 2, &[order]),
        ("with its root", pieces(&[leaf, middle, root]), leaf, 2, &[left_out]),
        ("reversed with its root", pieces(&[root, middle, leaf]), leaf, 2, &[left_out, order]),
        ("root in between", pieces(&[leaf, root, middle]), leaf, 2, &[left_out]),
        ("issued by a root", pieces(&[&direct, root]), &direct, 1, &[left_out]),
        ("everything twice", pieces(&[leaf, leaf, middle, middle]), leaf, 2, &[]),
        (
            "with a stranger",
            pieces(&[leaf, middle, root, &stranger]),
            leaf,
            2,
            &[left_out, "'CN=Stranger' is not part"],
        ),
        (
            "with remarks",
            format!("\u{feff}subject=x\r\n{}", pieces(&[leaf, middle]).replace('\n', "\r\n")),
            leaf,
            2,
            &[],
        ),
    ] {
        let checked = judge(&chain, &key.key, CNAME).unwrap_or_else(|fault| panic!("{what}: {fault}"));
        assert_eq!(checked.chain.len(), served, "{what}: {:?}", checked.chain);
        assert_eq!(checked.chain[0], "CN=server", "{what}");
        assert_eq!(checked.warnings.len(), warnings.len(), "{what}: {:?}", checked.warnings);
        for (warning, expected) in checked.warnings.iter().zip(warnings) {
            assert!(warning.contains(expected), "{what}: {warning}");
        }
        let wanted = if served == 1 { direct.pem.clone() } else { pieces(&[leaf, middle]) };
        assert_eq!(checked.leaf.chain_pem.replace('\r', ""), wanted.replace('\r', ""), "{what}");
        assert_eq!(checked.leaf.key_pem.expose_str().unwrap(), key.key.replace('\r', ""), "{what}");
    }
}

#[test]
fn names_cover_the_cname_or_not() {
    let pki = Pki::new();
    let common = {
        let mut params = server(&[]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, CNAME);
        params
    };
    for (params, cname, wanted) in [
        (server(&[CNAME]), "WWW.Example.org.", None),
        (server(&["a.example", "*.example.org"]), CNAME, None),
        (server(&["*.example.org"]), "*.example.org", None),
        (server(&["10.0.0.1"]), "10.0.0.1", None),
        (server(&["*.example.org"]), "a.www.example.org", Some("*.example.org")),
        (server(&["*.example.org"]), "example.org", Some("*.example.org")),
        (server(&["w*.example.org"]), CNAME, Some("w*.example.org")),
        (server(&["*.org"]), "example.org", Some("*.org")),
        (server(&["www.example.com"]), CNAME, Some("www.example.com")),
        (server(&[CNAME]), "*.example.org", Some(CNAME)),
        (server(&[CNAME]), "10.0.0.1", Some(CNAME)),
        (common, CNAME, Some("common name of the subject, which clients do not look at")),
    ] {
        let (chain, key) = pki.server(params);
        match (judge(&chain, &key, cname), wanted) {
            (Ok(_), None) => {}
            (Err(fault), Some(part)) => {
                assert_eq!(fault.code, "CertificateNameMismatch", "{cname}: {fault}");
                assert!(fault.message.contains(part) && fault.message.contains(cname), "{cname}: {fault}");
            }
            (outcome, wanted) => panic!("{cname}: {outcome:?}, not {wanted:?}"),
        }
    }
    let (chain, key) = pki.server(server(&[CNAME]));
    for bad in ["", "a b", "a..b"] {
        assert_eq!(judge(&chain, &key, bad).unwrap_err().code, "InvalidCertificate", "{bad}");
    }
}

#[test]
fn dates_and_uses() {
    let pki = Pki::new();
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = server(&[CNAME]);
        change(&mut params);
        params
    };
    for (params, code, part) in [
        (with(|one| one.not_after = date_time_ymd(1970, 1, 1) + days(20)), "", "expires at"),
        (with(|one| one.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), "", "digitalSignature"),
        (with(|one| one.extended_key_usages = vec![]), "", ""),
        (with(|one| one.not_after = date_time_ymd(1970, 1, 1) + days(-1)), "CertificateExpired", "expired at"),
        (
            with(|one| one.not_before = date_time_ymd(1970, 1, 1) + days(1)),
            "CertificateNotYetValid",
            "not valid before",
        ),
        (
            with(|one| one.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "InvalidCertificate",
            "lacks serverAuth",
        ),
        (with(|one| one.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "InvalidCertificate", "CA:TRUE"),
    ] {
        let (chain, key) = pki.server(params);
        match judge(&chain, &key, CNAME) {
            Ok(checked) if code.is_empty() => {
                assert_eq!(checked.warnings.len(), usize::from(!part.is_empty()), "{:?}", checked.warnings);
                assert!(checked.warnings.iter().all(|warning| warning.contains(part)), "{:?}", checked.warnings);
            }
            Err(fault) => assert!(fault.code == code && fault.message.contains(part), "{part}: {fault}"),
            Ok(_) => panic!("{part} was accepted"),
        }
    }
}

#[test]
fn a_self_signed_certificate_is_accepted_with_a_warning() {
    for ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let mut params = server(&[CNAME]);
        let warnings = if ca == IsCa::NoCa { 1 } else { 2 };
        params.is_ca = ca;
        let own = make(params, &PKCS_ECDSA_P256_SHA256, None);
        let checked = judge(&own.pem, &own.key, CNAME).unwrap();
        assert_eq!((checked.chain.len(), checked.warnings.len()), (1, warnings), "{:?}", checked.warnings);
        assert!(checked.warnings.iter().any(|warning| warning.contains("self-signed")));
    }
}

#[test]
fn chains_with_a_gap_or_a_stranger_in_them_are_refused() {
    let Pki { root, middle, leaf } = &Pki::new();
    let namesake = make(authority("Test Issuing"), &PKCS_ECDSA_P256_SHA256, Some(root));
    let changed = |at: CertificateParams| make(at, &PKCS_ECDSA_P256_SHA256, Some(root));
    let chain_of = |middle: Made| {
        let leaf = make(server(&[CNAME]), &PKCS_ECDSA_P256_SHA256, Some(&middle));
        (leaf.pem + &middle.pem, leaf.key)
    };
    let plain = changed(plan("Test Plain", &[]));
    let mut params = authority("Test Old");
    params.not_after = date_time_ymd(1970, 1, 1) + days(-1);
    let old = changed(params);
    let mut params = authority("Test No Signer");
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_signer = changed(params);
    let mut params = authority("Test Elsewhere");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: vec![],
    });
    let elsewhere = changed(params);
    let second = make(authority("Test Second"), &PKCS_ECDSA_P256_SHA256, Some(&elsewhere));
    let below_elsewhere = make(server(&[CNAME]), &PKCS_ECDSA_P256_SHA256, Some(&second));
    let (plain, old, no_signer) = (chain_of(plain), chain_of(old), chain_of(no_signer));
    let key = leaf.key.clone();
    for (chain, key, code, part) in [
        (leaf.pem.clone(), key.clone(), "IncompleteCertificateChain", "'CN=Test Issuing', which issued 'CN=server'"),
        (leaf.pem.clone() + &root.pem, key.clone(), "IncompleteCertificateChain", "'CN=Test Issuing'"),
        (leaf.pem.clone() + &namesake.pem, key.clone(), "InvalidCertificate", "did not sign"),
        (plain.0, plain.1, "InvalidCertificate", "is not one of a certificate authority"),
        (old.0, old.1, "CertificateExpired", "'CN=Test Old' expired"),
        (no_signer.0, no_signer.1, "InvalidCertificate", "may not sign"),
        (below_elsewhere.pem + &second.pem + &elsewhere.pem, below_elsewhere.key, "InvalidCertificate", "client"),
        (leaf.pem.clone() + &middle.pem + &root.pem, middle.key.clone(), "InvalidCertificate", "CA:TRUE"),
        (leaf.pem.clone() + &middle.pem, root.key.clone(), "CertificateKeyMismatch", "none of the certificates"),
    ] {
        let fault = judge(&chain, &key, CNAME).unwrap_err();
        assert!(fault.code == code && fault.message.contains(part), "{code} {part}: {fault}");
        assert_silent(&fault, key.as_bytes());
    }
}

#[test]
fn texts_that_are_no_pem_are_named_for_what_they_are() {
    let pki = Pki::new();
    let (chain, key) = pki.server(server(&[CNAME]));
    let block = |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    let der = pem::certificates(chain.as_bytes()).unwrap().remove(0).to_vec();
    let mut longer = der.clone();
    longer.push(0);
    let cut = &chain[..chain.len() - 30];
    for (text, part) in [
        (b"".to_vec(), "is empty"),
        (b" \r\n".to_vec(), "is empty"),
        (b"hello".to_vec(), "is not PEM"),
        (b"\xff\xfe-\0".to_vec(), "is not text"),
        (der.clone(), "openssl x509 -inform der"),
        (b"\x30\x82\x01\x00\x02\x01\x03".to_vec(), "PKCS #12"),
        (cut.as_bytes().to_vec(), "cut off"),
        (format!("{chain}trailing").into_bytes(), "after its last PEM block"),
        (chain.replacen("END CERTIFICATE", "END NONSENSE", 1).into_bytes(), "different labels"),
        (block("CERTIFICATE", "A?B=").into_bytes(), "not Base64"),
        (block("CERTIFICATE", "AAAA").into_bytes(), "not an X.509 certificate"),
        (block("CERTIFICATE", &BASE64_STANDARD.encode(&longer)).into_bytes(), "bytes after its end"),
        (format!("{chain}{key}").into_bytes(), "private key beside it"),
        (block("CERTIFICATE REQUEST", "AAAA").into_bytes(), "only a request"),
        (block("PKCS7", "AAAA").into_bytes(), "openssl pkcs7"),
        (block("TRUSTED CERTIFICATE", "AAAA").into_bytes(), "trusted certificates"),
        (block("OTHER", "AAAA").into_bytes(), "neither a certificate nor a key"),
        (chain.repeat(6).into_bytes(), "1 to 10"),
        (chain.repeat(11).into_bytes(), "more than 20"),
        (vec![b'a'; 70_000], "longer than 64 KiB"),
    ] {
        let fault = check(&text, &Secret::from(key.as_str()), CNAME, now()).unwrap_err();
        assert!(fault.code == "InvalidCertificate" && fault.message.contains(part), "{part}: {fault}");
        assert_silent(&fault, key.as_bytes());
    }
    for (text, part) in [
        (b"".to_vec(), "is empty"),
        (b"secret words of mine".to_vec(), "is not PEM"),
        (der, "openssl pkey -inform der"),
        (chain.clone().into_bytes(), "has a certificate in its text"),
        (format!("{key}{chain}").into_bytes(), "has a certificate in its text"),
        (format!("{key}{key}").into_bytes(), "one of several"),
        (key.as_bytes()[..key.len() - 30].to_vec(), "cut off"),
        (format!("{key}secret words of mine").into_bytes(), "after its last PEM block"),
        (block("PUBLIC KEY", "AAAA").into_bytes(), "only a public key"),
        (block("OPENSSH PRIVATE KEY", "AAAA").into_bytes(), "ssh-keygen"),
        (block("DSA PRIVATE KEY", "AAAA").into_bytes(), "DSA"),
        (block("EC PARAMETERS", "AAAA").into_bytes(), "parameters"),
        (block("PRIVATE KEY", "AAAA").into_bytes(), "can't be used"),
        (block("PRIVATE KEY", "secret words of mine!").into_bytes(), "not Base64"),
        (vec![b'a'; 70_000], "longer than 64 KiB"),
    ] {
        let fault = check(&chain, &Secret::new(text.clone()), CNAME, now()).unwrap_err();
        assert!(fault.code == "InvalidPrivateKey" && fault.message.contains(part), "{part}: {fault}");
        assert_silent(&fault, &text);
    }
}

/// Runs openssl in a directory of its own; none on machines without it.
struct OpenSsl(tempfile::TempDir);

impl OpenSsl {
    fn find() -> Option<Self> {
        let found = Command::new("openssl").arg("version").output().is_ok_and(|answer| answer.status.success());
        found.then(|| Self(tempfile::tempdir().unwrap()))
    }

    fn run(&self, arguments: &str) {
        let answer = Command::new("openssl").args(arguments.split(' ')).current_dir(self.0.path()).output().unwrap();
        assert!(answer.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&answer.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// A self-signed certificate `<name>.pem` and its key `<name>.key`.
    fn certificate(&self, name: &str, key: &str, more: &str) {
        self.run(&format!(
            "req -x509 -nodes -newkey {key} -keyout {name}.key -out {name}.pem -days 90 -subj /CN={name} -addext \
             subjectAltName=DNS:{CNAME}{more}"
        ));
    }

    fn judge(&self, chain: &str, key: &str) -> Result<Checked, Fault> {
        check(self.read(chain), &Secret::new(self.read(key)), CNAME, Timestamp::now())
    }
}

#[test]
fn what_openssl_makes_is_judged_by_kind_of_key_and_signature() {
    let Some(openssl) = OpenSsl::find() else { return };
    for (name, key, more, refused) in [
        ("p256", "ec -pkeyopt ec_paramgen_curve:P-256", "", None),
        ("p384", "ec -pkeyopt ec_paramgen_curve:P-384", "", None),
        ("rsa2048", "rsa:2048", "", None),
        ("ed25519", "ed25519", "", None),
        ("pss", "rsa:2048", " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest", None),
        (
            "salty",
            "rsa:2048",
            " -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:100",
            Some(("InvalidCertificate", "algorithm (1.2.840.113549.1.1.10)")),
        ),
        ("rsa1024", "rsa:1024", "", Some(("WeakKey", "1024 bits"))),
        ("p224", "ec -pkeyopt ec_paramgen_curve:P-224", "", Some(("WeakKey", "P-224"))),
        ("secp256k1", "ec -pkeyopt ec_paramgen_curve:secp256k1", "", Some(("WeakKey", "secp256k1"))),
        ("brainpool", "ec -pkeyopt ec_paramgen_curve:brainpoolP256r1", "", Some(("WeakKey", "curve (1.3.36"))),
        ("ed448", "ed448", "", Some(("WeakKey", "1.3.101.113"))),
        ("sha1", "rsa:2048", " -sha1", Some(("WeakSignature", "SHA-1"))),
        ("md5", "rsa:2048", " -md5", Some(("WeakSignature", "MD5"))),
    ] {
        openssl.certificate(name, key, more);
        match (openssl.judge(&format!("{name}.pem"), &format!("{name}.key")), refused) {
            (Ok(checked), None) => assert!(checked.warnings.iter().any(|one| one.contains("self-signed")), "{name}"),
            (Err(fault), Some((code, part))) => {
                assert!(fault.code == code && fault.message.contains(part), "{name}: {fault}");
                assert_silent(&fault, &openssl.read(&format!("{name}.key")));
            }
            (outcome, _) => panic!("{name}: {outcome:?}"),
        }
    }
}

#[test]
fn keys_are_read_in_every_plain_form_and_named_when_they_are_encrypted() {
    let Some(openssl) = OpenSsl::find() else { return };
    openssl.certificate("ec", "ec -pkeyopt ec_paramgen_curve:P-256", "");
    openssl.certificate("rsa", "rsa:2048", "");
    openssl.run("ec -in ec.key -out sec1.key");
    openssl.run("rsa -in rsa.key -traditional -out pkcs1.key");
    openssl.run("pkcs8 -topk8 -in ec.key -passout pass:secret -out encrypted.key");
    openssl.run("ec -in ec.key -aes128 -passout pass:secret -out legacy.key");
    openssl.run("pkey -in ec.key -outform der -out der.key");
    openssl.run("pkcs12 -export -in ec.pem -inkey ec.key -passout pass:secret -out bundle.p12");
    openssl.run("x509 -in ec.pem -outform der -out der.pem");
    openssl.run("x509 -in ec.pem -text -out remarks.pem");
    openssl.run("ecparam -name prime256v1 -out parameters.pem");
    let both = [openssl.read("parameters.pem"), openssl.read("sec1.key")].concat();
    std::fs::write(openssl.path("with_parameters.key"), both).unwrap();
    for (chain, key) in
        [("ec.pem", "sec1.key"), ("rsa.pem", "pkcs1.key"), ("ec.pem", "with_parameters.key"), ("remarks.pem", "ec.key")]
    {
        let checked = openssl.judge(chain, key).unwrap_or_else(|fault| panic!("{key}: {fault}"));
        Leaf::load(checked.leaf.chain_pem, checked.leaf.key_pem).unwrap();
    }
    for (chain, key, code, part) in [
        ("ec.pem", "encrypted.key", "EncryptedPrivateKey", "openssl pkey -in FILE -out key.pem"),
        ("ec.pem", "legacy.key", "EncryptedPrivateKey", "openssl pkey -in FILE -out key.pem"),
        ("ec.pem", "der.key", "InvalidPrivateKey", "openssl pkey -inform der"),
        ("ec.pem", "rsa.key", "CertificateKeyMismatch", "belongs to none"),
        ("rsa.pem", "ec.key", "CertificateKeyMismatch", "belongs to none"),
        ("der.pem", "ec.key", "InvalidCertificate", "openssl x509 -inform der"),
        ("bundle.p12", "ec.key", "InvalidCertificate", "openssl pkcs12"),
    ] {
        let fault = openssl.judge(chain, key).unwrap_err();
        assert!(fault.code == code && fault.message.contains(part), "{chain} {key}: {fault}");
        assert_silent(&fault, &openssl.read(key));
    }
}
