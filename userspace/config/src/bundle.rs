use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::Config;

/// What gate, proxy and keeper are handed at start and at each reload. All
/// three switch to it in two phases: prepare, commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// Counts up from 1 with each accepted configuration.
    pub epoch: u64,
    /// The file.
    pub config: Config,
    /// The Cedar files, sorted by name.
    pub policies: Vec<PolicyFile>,
    /// The certificate files the configuration names (`tls.ca`,
    /// `tls.certificate`), by path.
    pub certificates: BTreeMap<PathBuf, String>,
    /// Addresses of the DNS names in the targets' `match`.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Numeric uid of each `workload.user`, by the workload's name.
    pub uids: BTreeMap<String, u32>,
}

/// One file of the policies folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFile {
    /// File name, without the folder.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What only keeper is handed, and the proxy its part: [`Secrets::mask_key`].
#[derive(Default, Deserialize)]
pub struct Secrets {
    /// Passwords by target and workload.
    pub passwords: BTreeMap<String, BTreeMap<String, SecretString>>,
    /// PEM keys of targets with a certificate of their own, by target.
    pub keys: BTreeMap<String, SecretString>,
    /// Password for ClickHouse.
    pub clickhouse: Option<SecretString>,
    /// The key of keyed hashes. It goes to the proxy, and not to keeper.
    #[serde(skip)]
    pub mask_key: Option<SecretString>,
}

impl Secrets {
    /// [`Secrets::mask_key`] as it goes through the channel to the proxy.
    pub fn mask_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.mask_key.as_ref()?.expose_secret();
        Some(Zeroizing::new(key.as_bytes().to_vec()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

// The only place that writes secrets out: into the channel to keeper.
impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let plain = |secret: &SecretString| secret.expose_secret().to_owned();
        let passwords: BTreeMap<_, BTreeMap<_, _>> = self
            .passwords
            .iter()
            .map(|(target, by)| (target, by.iter().map(|(who, s)| (who, plain(s))).collect()))
            .collect();
        let keys: BTreeMap<_, _> = self
            .keys
            .iter()
            .map(|(target, s)| (target, plain(s)))
            .collect();
        let mut fields = serializer.serialize_struct("Secrets", 3)?;
        fields.serialize_field("passwords", &passwords)?;
        fields.serialize_field("keys", &keys)?;
        fields.serialize_field("clickhouse", &self.clickhouse.as_ref().map(plain))?;
        fields.end()
    }
}
