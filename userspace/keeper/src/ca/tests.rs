use std::process::Command;

use rustls_pki_types::{PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::ring::default_provider;

use super::*;

const ADDRESS: &str = "10.0.3.14";
const BY_ADDRESS: &str = "'10.0.3.0/24:5432', '[fd00::]/64:5432'";
const BY_NAME: &str = "'db.internal:5432'";

fn bundle(places: &str) -> Bundle {
    let text =
        format!("[[target]]\nname = 'orders.db'\nprotocol = 'postgres'\nmatch = [{places}]\n");
    Bundle {
        config: toml::from_str(&text).unwrap(),
        names: [("db.internal".to_owned(), vec!["10.7.7.7".parse().unwrap()])].into(),
        ..Bundle::default()
    }
}

struct Issued {
    folder: tempfile::TempDir,
    ca: HostCa,
}

impl Issued {
    fn for_targets(bundle: &Bundle) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ca = HostCa::open(folder.path()).unwrap();
        ca.stand_for(bundle).unwrap();
        Self { folder, ca }
    }

    fn pem(&self) -> PathBuf {
        self.folder.path().join("ca/host-ca.pem")
    }

    /// A leaf for anything, signed as a keeper without scruples would.
    fn forge(&self, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::now_utc() - BACKDATED;
        params.not_after = OffsetDateTime::now_utc() + LEAF;
        let issuer = &self.ca.issuing.as_ref().unwrap().params;
        let issuer = Issuer::from_params(issuer, &self.ca.key);
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer);
        leaf.unwrap().der().to_vec()
    }

    /// As a client that has the published certificate among its roots.
    fn accepts(&self, leaf: &[u8], name: &str) -> [bool; 2] {
        [
            self.rustls_accepts(leaf, name),
            self.openssl_accepts(leaf, name),
        ]
    }

    fn rustls_accepts(&self, leaf: &[u8], name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.pem()).unwrap())
            .unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::new(default_provider()))
                .build()
                .unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let leaf = CertificateDer::from(leaf.to_vec());
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], UnixTime::now())
            .is_ok()
    }

    /// OpenSSL is what libpq verifies with.
    fn openssl_accepts(&self, leaf: &[u8], name: &str) -> bool {
        let path = self.folder.path().join("leaf.der");
        fs::write(&path, leaf).unwrap();
        let kind = match name.parse::<IpAddr>() {
            Ok(_) => "-verify_ip",
            Err(_) => "-verify_hostname",
        };
        let output = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"])
            .arg(self.pem())
            .args([kind, name])
            .arg(&path)
            .output()
            .expect("openssl runs");
        output.status.success()
    }
}

fn address(text: &str) -> SanType {
    SanType::IpAddress(text.parse().unwrap())
}

fn name(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

#[test]
fn clients_accept_a_leaf_for_the_target_and_for_nothing_else() {
    let by_address = bundle(BY_ADDRESS);
    let mut issued = Issued::for_targets(&by_address);
    let target = &by_address.config.targets[0];
    let leaf = issued.ca.leaf(target, ADDRESS.parse().unwrap()).unwrap();
    assert_eq!(issued.accepts(&leaf.chain[0], ADDRESS), [true; 2]);
    assert_eq!(issued.accepts(&leaf.chain[0], "10.0.3.15"), [false; 2]);
    assert_eq!(issued.accepts(&leaf.chain[0], "orders.db"), [false; 2]);
    let leaf = issued.ca.leaf(target, "fd00::7".parse().unwrap()).unwrap();
    assert_eq!(issued.accepts(&leaf.chain[0], "fd00::7"), [true; 2]);
}

#[test]
fn a_target_by_name_is_verified_by_name() {
    let by_name = bundle(BY_NAME);
    let mut issued = Issued::for_targets(&by_name);
    let target = &by_name.config.targets[0];
    // Wherever DNS says that it is today.
    for address in ["10.7.7.7", "192.0.2.9"] {
        let leaf = issued.ca.leaf(target, address.parse().unwrap()).unwrap();
        assert_eq!(issued.accepts(&leaf.chain[0], "db.internal"), [true; 2]);
        assert_eq!(issued.accepts(&leaf.chain[0], address), [false; 2]);
    }
}

#[test]
fn name_constraints_make_the_key_useless_for_anything_else() {
    let issued = Issued::for_targets(&bundle(BY_ADDRESS));
    for (forged, asked) in [
        (address("10.0.4.1"), "10.0.4.1"),
        (address("2001:db8::1"), "2001:db8::1"),
        (name("bank.example"), "bank.example"),
    ] {
        let leaf = issued.forge(vec![forged]);
        assert_eq!(issued.accepts(&leaf, asked), [false; 2], "{asked}");
    }
    let issued = Issued::for_targets(&bundle(BY_NAME));
    for (forged, asked) in [
        (address("10.7.7.7"), "10.7.7.7"),
        (address("2001:db8::1"), "2001:db8::1"),
        (name("bank.example"), "bank.example"),
        (name("notdb.internal"), "notdb.internal"),
    ] {
        let leaf = issued.forge(vec![forged, name("db.internal")]);
        assert_eq!(issued.accepts(&leaf, asked), [false; 2], "{asked}");
    }
    // The same way of forging does work for the target itself.
    let leaf = issued.forge(vec![name("db.internal")]);
    assert_eq!(issued.accepts(&leaf, "db.internal"), [true; 2]);
}

#[test]
fn without_targets_nothing_at_all_can_be_signed() {
    let issued = Issued::for_targets(&Bundle::default());
    for (forged, asked) in [(address("10.0.3.14"), "10.0.3.14"), (name("a.b"), "a.b")] {
        let leaf = issued.forge(vec![forged]);
        assert_eq!(issued.accepts(&leaf, asked), [false; 2], "{asked}");
    }
}

#[test]
fn key_and_certificate_survive_a_restart_and_a_change_of_dns() {
    let mut bundle = bundle(BY_NAME);
    let first = Issued::for_targets(&bundle);
    let published = fs::read(first.pem()).unwrap();
    bundle.names.clear();
    let mut again = HostCa::open(first.folder.path()).unwrap();
    again.stand_for(&bundle).unwrap();
    assert_eq!(fs::read(first.pem()).unwrap(), published);
    assert_eq!(again.fingerprint(), first.ca.fingerprint());
    // What is signed after the restart is verified by what was published before.
    let target = &bundle.config.targets[0];
    let leaf = again.leaf(target, ADDRESS.parse().unwrap()).unwrap();
    assert_eq!(first.accepts(&leaf.chain[0], "db.internal"), [true; 2]);
}

#[test]
fn other_targets_make_another_certificate_of_the_same_key() {
    let mut issued = Issued::for_targets(&bundle(BY_NAME));
    let read = |issued: &Issued| CertificateDer::from_pem_file(issued.pem()).unwrap();
    let first = read(&issued);
    issued.ca.stand_for(&bundle(BY_ADDRESS)).unwrap();
    let second = read(&issued);
    assert_ne!(first, second);
    let key = |der: &CertificateDer| {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        certificate.public_key().raw.to_vec()
    };
    assert_eq!(key(&first), key(&second));
    assert_eq!(issued.ca.fingerprint(), Some(fingerprint(&second).as_str()));
}

#[test]
fn only_keeper_may_read_the_key() {
    use std::os::unix::fs::PermissionsExt;

    let issued = Issued::for_targets(&bundle(BY_NAME));
    let path = issued.folder.path().join("ca/host-ca.key");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Half a key, as a crash of an older program may leave it.
    fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let error = HostCa::open(issued.folder.path()).err().unwrap();
    assert!(error.to_string().contains("host-ca.key"), "{error}");
}

#[test]
fn a_leaf_lives_a_day_and_is_given_out_for_half_of_it() {
    let bundle = bundle(BY_ADDRESS);
    let mut issued = Issued::for_targets(&bundle);
    let target = &bundle.config.targets[0];
    let at: IpAddr = ADDRESS.parse().unwrap();
    let leaf = issued.ca.leaf(target, at).unwrap();
    let (_, certificate) = X509Certificate::from_der(&leaf.chain[0]).unwrap();
    let validity = certificate.validity();
    let lives = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert_eq!(lives, 24 * 3600 + 300);
    let same = issued.ca.leaf(target, at).unwrap();
    assert_eq!(same.chain, leaf.chain);
    for (until, _) in issued.ca.leaves.values_mut() {
        *until = OffsetDateTime::now_utc();
    }
    let next = issued.ca.leaf(target, at).unwrap();
    assert_ne!(next.chain, leaf.chain);
}

/// A target that shows a certificate of its own, with the PEM of `key`.
fn own(key: &str) -> Result<Option<LeafKey>, CaError> {
    let own = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
    let certificate = params.self_signed(&own).unwrap();
    let key = match key {
        "its own" => own.serialize_pem(),
        other => other.to_owned(),
    };
    let mut bundle = bundle(BY_NAME);
    bundle.config.targets[0].tls.certificate = Some("/chain.pem".into());
    bundle
        .certificates
        .insert("/chain.pem".into(), certificate.pem());
    own_leaf(&bundle.config.targets[0], &bundle, Some(&key))
}

#[test]
fn a_target_shows_its_own_certificate_where_it_has_one() {
    let leaf = own("its own").unwrap().expect("its own");
    let key = PrivatePkcs8KeyDer::from(leaf.key.expose().to_vec());
    assert!(any_supported_type(&PrivateKeyDer::Pkcs8(key)).is_ok());
    assert!(
        own_leaf(&bundle(BY_NAME).config.targets[0], &bundle(BY_NAME), None)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_key_that_does_not_fit_is_refused_without_being_quoted() {
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    let secret = "MEECAQAwEwYHKoZIzj0CAQYIKoZIzj0DAQcEJzAlAgEBBCA";
    let broken = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    for key in [foreign.as_str(), broken.as_str(), "hunter2"] {
        let error = own(key).expect_err("refused").to_string();
        assert!(error.contains("orders.db"), "{error}");
        assert!(
            !error.contains(secret) && !error.contains("hunter2"),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_no_certificate_can_carry_is_refused() {
    let mut bundle = bundle(BY_NAME);
    bundle.config.targets[0].tls.server_name = Some("dätabase".into());
    assert!(matches!(HostCa::check(&bundle), Err(CaError::Name(_))));
    bundle.config.targets[0].tls.server_name = Some("10.0.0.9".into());
    HostCa::check(&bundle).unwrap();
}
