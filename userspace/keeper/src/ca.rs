use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use lockgate_config::{Bundle, Host, Target};
use lockgate_ipc::{LeafKey, SecretBytes};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring::sign::any_supported_type;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// How long a leaf is valid.
const LEAF: Duration = Duration::hours(24);

/// How long before its end a leaf is not given out any more.
const LEAF_REST: Duration = Duration::hours(12);

/// For clocks that are behind.
const BACKDATED: Duration = Duration::minutes(5);

/// How long the CA certificate is valid. Its key stays the same.
const CA: Duration = Duration::days(3650);

/// How long before its end the CA certificate is made anew, at a start.
const CA_REST: Duration = Duration::days(365);

/// Most leaves that are kept. Behind a target `*:PORT` there are as many
/// addresses as clients like.
const LEAVES: usize = 4096;

/// Longest common name (RFC 5280 appendix A.1, ub-common-name).
const COMMON_NAME: usize = 64;

/// The CA that stands for the targets towards the clients of this host. Its
/// certificate is constrained to the targets' names and addresses as the
/// configuration has them, so that trusting it means trusting it for nothing
/// else. Addresses that a name resolves to are not among them: the certificate
/// that people installed must outlive a change in DNS. So a target that is
/// matched by name alone is verified by name alone, as its own certificate
/// would be.
///
/// ```text
/// ca/host-ca.key   its key, mode 0600; never leaves keeper
/// ca/host-ca.pem   its certificate
/// ```
///
/// A leaf goes to the proxy with its key, for a day. So does, for now, the key
/// of a target that shows its own certificate (`tls.certificate`): where that
/// is not wanted, use the host CA.
pub(crate) struct HostCa {
    key: KeyPair,
    folder: PathBuf,
    issuing: Option<Issuing>,
    leaves: HashMap<(String, IpAddr), (OffsetDateTime, LeafKey)>,
}

/// What the CA stands for now.
struct Issuing {
    params: CertificateParams,
    fingerprint: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// The folder failed.
    #[error("the host CA in {path} cannot be read or written: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Key or certificate failed.
    #[error("the host CA cannot sign: {0}")]
    Sign(#[from] rcgen::Error),
    /// The key file is not what it was.
    #[error(
        "{0} holds no key that can be used; restore it, or remove it to have a new CA made that clients must be told of"
    )]
    Key(PathBuf),
    /// A name that no certificate can carry.
    #[error(
        "`{0}` is not a name that a certificate can carry; change `match` or `tls.server_name`"
    )]
    Name(String),
    /// A target's own certificate or key cannot be read.
    #[error("`tls.certificate` or `tls.key` of target `{target}` cannot be used: {problem}")]
    Own {
        /// Which.
        target: String,
        /// Why; never the content.
        problem: String,
    },
}

impl HostCa {
    /// Opens the CA in `state_dir`, or makes it.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, CaError> {
        let folder = state_dir.join("ca");
        let path = folder.join("host-ca.key");
        let failed = |source| CaError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let key = match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|_| CaError::Key(path.clone()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                let pem = Zeroizing::new(key.serialize_pem());
                write_whole(&path, pem.as_bytes(), 0o600)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            key,
            folder,
            issuing: None,
            leaves: HashMap::new(),
        })
    }

    /// Whether a certificate can stand for the targets of `bundle`.
    pub(crate) fn check(bundle: &Bundle) -> Result<(), CaError> {
        for target in &bundle.config.targets {
            alternative_names(target, IpAddr::from([0, 0, 0, 0]))?;
        }
        constraints(&bundle.config.targets).map(|_| ())
    }

    /// Stands for the targets of `bundle` from now. The certificate is made
    /// anew when the targets have changed, else it stays, over restarts too.
    ///
    /// # Errors
    /// When it cannot be written; leaves are signed nevertheless.
    pub(crate) fn stand_for(&mut self, bundle: &Bundle) -> Result<(), CaError> {
        let wanted = constraints(&bundle.config.targets)?;
        if let Some(issuing) = &self.issuing
            && issuing.params.name_constraints.as_ref() == Some(&wanted)
        {
            return Ok(());
        }
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "lockgate host CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - BACKDATED;
        params.not_after = now + CA;
        params.name_constraints = Some(wanted);
        let fresh = params.self_signed(&self.key)?;
        let path = self.folder.join("host-ca.pem");
        let kept = CertificateDer::from_pem_file(&path)
            .ok()
            .filter(|kept| stands_for_the_same(kept, fresh.der(), now));
        let shown = kept.as_ref().unwrap_or(fresh.der());
        self.issuing = Some(Issuing {
            params,
            fingerprint: fingerprint(shown),
        });
        self.leaves.clear();
        match kept {
            Some(_) => Ok(()),
            None => write_whole(&path, fresh.pem().as_bytes(), 0o644),
        }
    }

    /// SHA-256 of the CA's certificate, lower-case hexadecimal.
    pub(crate) fn fingerprint(&self) -> Option<&str> {
        self.issuing
            .as_ref()
            .map(|issuing| issuing.fingerprint.as_str())
    }

    /// A leaf for `target` with all of its names, and with `address` if it is
    /// one of the target's by configuration. What name the client asked for
    /// plays no part.
    pub(crate) fn leaf(&mut self, target: &Target, address: IpAddr) -> Result<LeafKey, CaError> {
        let now = OffsetDateTime::now_utc();
        let key = (target.name.clone(), address);
        if let Some((until, leaf)) = self.leaves.get(&key)
            && *until > now
        {
            return Ok(leaf.clone());
        }
        let Some(Issuing { params: issuer, .. }) = &self.issuing else {
            return Err(rcgen::Error::CouldNotParseCertificate.into());
        };
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative_names(target, address)?;
        // With the space it cannot be taken for a name of the server.
        let common: String = format!("lockgate for {}", target.name);
        let common: String = common.chars().take(COMMON_NAME).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        params.not_after = now + LEAF;
        let leaf_key = KeyPair::generate()?;
        let certificate = params.signed_by(&leaf_key, &Issuer::from_params(issuer, &self.key))?;
        let leaf = LeafKey {
            chain: vec![certificate.der().to_vec()],
            key: SecretBytes::from(leaf_key.serialize_der()),
        };
        if self.leaves.len() >= LEAVES {
            self.leaves.clear();
        }
        self.leaves
            .insert(key, (now + LEAF - LEAF_REST, leaf.clone()));
        Ok(leaf)
    }
}

/// What a target shows that has a certificate of its own (`tls.certificate`);
/// none if it has none. `key` is PEM.
pub(crate) fn own_leaf(
    target: &Target,
    bundle: &Bundle,
    key: Option<&str>,
) -> Result<Option<LeafKey>, CaError> {
    let Some(path) = &target.tls.certificate else {
        return Ok(None);
    };
    let own = |problem: String| CaError::Own {
        target: target.name.clone(),
        problem,
    };
    let pem = bundle
        .certificates
        .get(path)
        .ok_or_else(|| own(format!("{} was not read", path.display())))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|why| own(why.to_string()))?;
    if chain.is_empty() {
        return Err(own("it holds no certificate".into()));
    }
    let key = key.ok_or_else(|| own("the key was not read".into()))?;
    let key = match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => key,
        Ok(_) => {
            return Err(own(
                "the key is not PKCS #8; convert it with `openssl pkcs8 -topk8 -nocrypt`".into(),
            ));
        }
        // The error could quote the file.
        Err(_) => return Err(own("it holds no private key".into())),
    };
    let secret = SecretBytes::from(key.secret_pkcs8_der().to_vec());
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(key))
        .map_err(|_| own("the key is of a kind that TLS has no use for".into()))?;
    CertifiedKey::new(chain.clone(), Arc::clone(&key))
        .keys_match()
        .map_err(|_| own("the key is not that of the certificate".into()))?;
    Ok(Some(LeafKey {
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        key: secret,
    }))
}

/// Whether `kept` says what `fresh` says, and for long enough from `now`.
fn stands_for_the_same(kept: &[u8], fresh: &[u8], now: OffsetDateTime) -> bool {
    let (Ok((_, kept)), Ok((_, fresh))) = (
        X509Certificate::from_der(kept),
        X509Certificate::from_der(fresh),
    ) else {
        return false;
    };
    let extensions = |of: &X509Certificate| -> Vec<(String, Vec<u8>)> {
        of.extensions()
            .iter()
            .map(|extension| (extension.oid.to_id_string(), extension.value.to_vec()))
            .collect()
    };
    kept.subject() == fresh.subject()
        && kept.public_key().raw == fresh.public_key().raw
        && extensions(&kept) == extensions(&fresh)
        && kept.validity().not_after.timestamp() > (now + CA_REST).unix_timestamp()
}

fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
}

/// Writes a file that is there whole or not at all, whatever happens.
fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    let write = || {
        let fresh = path.with_extension("new");
        // Of an attempt that was interrupted, perhaps with another mode.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| CaError::Io {
        path: path.to_owned(),
        source,
    })
}

/// What the CA may sign: the targets' names and addresses. A kind of name of
/// which nothing is permitted would not be constrained at all (RFC 5280 section
/// 4.2.1.10), so all of it is excluded.
fn constraints(targets: &[Target]) -> Result<NameConstraints, CaError> {
    let mut permitted = Vec::new();
    for target in targets {
        for name in names(target)? {
            permitted.push(match name {
                Name::Dns(name) => GeneralSubtree::DnsName(name),
                Name::Address(address) => range(address.into()),
            });
        }
        for place in &target.places {
            match &place.host {
                Host::Name(_) => {}
                Host::Net(net) => permitted.push(range(*net)),
                Host::Any => permitted.extend(EVERYWHERE.map(range)),
            }
        }
    }
    let mut distinct: Vec<GeneralSubtree> = Vec::new();
    for subtree in permitted {
        if !distinct.contains(&subtree) {
            distinct.push(subtree);
        }
    }
    let mut excluded = Vec::new();
    let is_dns = |subtree: &GeneralSubtree| matches!(subtree, GeneralSubtree::DnsName(_));
    if !distinct.iter().any(is_dns) {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if distinct.iter().all(is_dns) {
        excluded.extend(EVERYWHERE.map(range));
    }
    Ok(NameConstraints {
        permitted_subtrees: distinct,
        excluded_subtrees: excluded,
    })
}

fn alternative_names(target: &Target, address: IpAddr) -> Result<Vec<SanType>, CaError> {
    let mut found = Vec::new();
    for name in names(target)? {
        found.push(match name {
            Name::Dns(name) => {
                let text = name.as_str().try_into();
                SanType::DnsName(text.map_err(|_| CaError::Name(name))?)
            }
            Name::Address(address) => SanType::IpAddress(address),
        });
    }
    let configured = target.places.iter();
    if configured.clone().any(|place| place.host.contains(address)) {
        found.push(SanType::IpAddress(address));
    }
    Ok(found)
}

/// What a target is called.
enum Name {
    Dns(String),
    Address(IpAddr),
}

/// The DNS names in its `match`, and `tls.server_name`.
fn names(target: &Target) -> Result<Vec<Name>, CaError> {
    let matched = target.places.iter().filter_map(|place| match &place.host {
        Host::Name(name) => Some(name.as_str()),
        Host::Net(_) | Host::Any => None,
    });
    matched
        .chain(target.tls.server_name.as_deref())
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(Name::Address(address)),
            Err(_) if name.is_ascii() && !name.is_empty() => {
                Ok(Name::Dns(name.to_ascii_lowercase()))
            }
            Err(_) => Err(CaError::Name(name.to_owned())),
        })
        .collect()
}

/// Every address.
const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(
        std::net::Ipv4Addr::UNSPECIFIED,
        0,
    )),
    IpNet::V6(ipnet::Ipv6Net::new_assert(
        std::net::Ipv6Addr::UNSPECIFIED,
        0,
    )),
];

fn range(net: IpNet) -> GeneralSubtree {
    GeneralSubtree::IpAddress(match net {
        IpNet::V4(net) => CidrSubnet::from_v4_prefix(net.addr().octets(), net.prefix_len()),
        IpNet::V6(net) => CidrSubnet::from_v6_prefix(net.addr().octets(), net.prefix_len()),
    })
}

#[cfg(test)]
mod tests;
