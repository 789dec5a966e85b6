use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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

/// How long a leaf is valid.
const LEAF: Duration = Duration::hours(24);

/// How long before its end a leaf is not given out any more.
const LEAF_REST: Duration = Duration::hours(12);

/// For clocks that are behind.
const BACKDATED: Duration = Duration::minutes(5);

/// How long the CA certificate is valid. Its key stays the same.
const CA: Duration = Duration::days(3650);

/// The CA that stands for the targets towards the clients of this host. Its
/// certificate is constrained to the targets' names and addresses, so that
/// trusting it means trusting it for nothing else.
pub(crate) struct HostCa {
    key: KeyPair,
    folder: PathBuf,
    params: Option<CertificateParams>,
    scope: Vec<String>,
    leaves: HashMap<(String, IpAddr, Option<String>), (OffsetDateTime, LeafKey)>,
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
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                let mut file = fs::OpenOptions::new()
                    .create_new(true)
                    .write(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(failed)?;
                std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes())
                    .map_err(failed)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self {
            key,
            folder,
            params: None,
            scope: Vec::new(),
            leaves: HashMap::new(),
        })
    }

    /// Stands for the targets of `bundle` from now. The certificate is written
    /// to `host-ca.pem`, anew when the targets have changed.
    pub(crate) fn stand_for(&mut self, bundle: &Bundle) -> Result<(), CaError> {
        let subtrees: Vec<GeneralSubtree> = bundle
            .config
            .targets
            .iter()
            .flat_map(|target| subtrees(target, bundle))
            .collect();
        let scope: Vec<String> = subtrees
            .iter()
            .map(|subtree| format!("{subtree:?}"))
            .collect();
        if self.params.is_some() && self.scope == scope {
            return Ok(());
        }
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "lockgate host CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - BACKDATED;
        params.not_after = OffsetDateTime::now_utc() + CA;
        params.name_constraints = Some(constraints(subtrees));
        let certificate = params.self_signed(&self.key)?;
        let path = self.folder.join("host-ca.pem");
        fs::write(&path, certificate.pem()).map_err(|source| CaError::Io { path, source })?;
        self.params = Some(params);
        self.scope = scope;
        self.leaves.clear();
        Ok(())
    }

    /// A leaf for `target` at `address`. `asked` is the name a client asked
    /// for; it counts only if it is one of the target's.
    pub(crate) fn leaf(
        &mut self,
        target: &Target,
        address: IpAddr,
        asked: Option<&str>,
    ) -> Result<LeafKey, CaError> {
        let names: Vec<&str> = target
            .places
            .iter()
            .filter_map(|place| match &place.host {
                Host::Name(name) => Some(name.as_str()),
                Host::Net(_) | Host::Any => None,
            })
            .chain(target.tls.server_name.as_deref())
            .collect();
        let asked = asked
            .filter(|asked| names.contains(asked))
            .map(str::to_owned);
        let now = OffsetDateTime::now_utc();
        let key = (target.name.clone(), address, asked);
        if let Some((until, leaf)) = self.leaves.get(&key)
            && *until > now
        {
            return Ok(leaf.clone());
        }
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        params.subject_alt_names.push(SanType::IpAddress(address));
        params
            .distinguished_name
            .push(DnType::CommonName, target.name.clone());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        params.not_after = now + LEAF;
        let issuer_params = self
            .params
            .clone()
            .ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let leaf_key = KeyPair::generate()?;
        let certificate = params.signed_by(&leaf_key, &issuer)?;
        let leaf = LeafKey {
            chain: vec![certificate.der().to_vec()],
            key: SecretBytes::from(leaf_key.serialize_der()),
        };
        self.leaves
            .insert(key, (now + LEAF - LEAF_REST, leaf.clone()));
        Ok(leaf)
    }
}

/// Permits `permitted`. A kind of name of which nothing is permitted would not
/// be constrained at all (RFC 5280 section 4.2.1.10), so all of it is excluded.
fn constraints(permitted: Vec<GeneralSubtree>) -> NameConstraints {
    let has = |kind: fn(&GeneralSubtree) -> bool| permitted.iter().any(kind);
    let mut excluded = Vec::new();
    if !has(|subtree| matches!(subtree, GeneralSubtree::DnsName(_))) {
        excluded.push(GeneralSubtree::DnsName(String::new()));
    }
    if !has(|subtree| matches!(subtree, GeneralSubtree::IpAddress(_))) {
        excluded.extend(EVERYWHERE.map(|all| range(all.parse().expect("a range"))));
    }
    NameConstraints {
        permitted_subtrees: permitted,
        excluded_subtrees: excluded,
    }
}

/// The target's own certificate and key, as configured.
pub(crate) fn own_leaf(target: &str, chain: &str, key: &str) -> Result<LeafKey, CaError> {
    let own = |problem: String| CaError::Own {
        target: target.to_owned(),
        problem,
    };
    let chain: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .map(|der| {
            der.map(|der| der.to_vec())
                .map_err(|why| own(why.to_string()))
        })
        .collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err(own("it holds no certificate".into()));
    }
    match PrivateKeyDer::from_pem_slice(key.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => Ok(LeafKey {
            chain,
            key: SecretBytes::from(key.secret_pkcs8_der().to_vec()),
        }),
        Ok(_) => Err(own(
            "the key is not PKCS #8; convert it with `openssl pkcs8 -topk8 -nocrypt`".into(),
        )),
        Err(_) => Err(own("it holds no private key".into())),
    }
}

/// Every address.
const EVERYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn range(net: IpNet) -> GeneralSubtree {
    GeneralSubtree::IpAddress(match net {
        IpNet::V4(net) => CidrSubnet::from_v4_prefix(net.addr().octets(), net.prefix_len()),
        IpNet::V6(net) => CidrSubnet::from_v6_prefix(net.addr().octets(), net.prefix_len()),
    })
}

/// What a target may be called.
fn subtrees(target: &Target, bundle: &Bundle) -> Vec<GeneralSubtree> {
    let mut found: Vec<GeneralSubtree> = target
        .places
        .iter()
        .flat_map(|place| match &place.host {
            // A target by name is also reached by address.
            Host::Name(name) => {
                let addresses = bundle.names.get(name).into_iter().flatten();
                let mut found = vec![GeneralSubtree::DnsName(name.clone())];
                found.extend(addresses.map(|address| range(address.to_canonical().into())));
                found
            }
            Host::Net(net) => vec![range(*net)],
            Host::Any => EVERYWHERE
                .map(|all| range(all.parse().expect("a range")))
                .to_vec(),
        })
        .collect();
    found.extend(target.tls.server_name.clone().map(GeneralSubtree::DnsName));
    found
}
