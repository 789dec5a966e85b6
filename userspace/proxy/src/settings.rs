use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lockgate_command::{Shown, TargetName};
use lockgate_config::{Bundle, Host, Mask, Protocol, Tag, Target};
use lockgate_mask::Key;
use lockgate_mask::postgres::Masker;
use lockgate_policy::Policies;
use lockgate_sql::{TagMask, Tags};

use crate::tls::Upstream;

/// Configuration and policies of one epoch, shared by all threads.
pub(crate) struct Settings {
    /// What the parent sent.
    pub(crate) bundle: Bundle,
    /// The policies, ready to decide.
    pub(crate) policies: Policies,
    targets: Vec<Arc<TargetSettings>>,
}

/// One target, ready for use.
pub(crate) struct TargetSettings {
    /// Its name.
    pub(crate) name: TargetName,
    /// Its part of the configuration.
    pub(crate) config: Target,
    /// Its tagged columns.
    pub(crate) tags: Tags,
    /// Keys of hashes, by tag.
    keys: BTreeMap<String, Key>,
    /// TLS towards its servers.
    pub(crate) upstream: Upstream,
}

impl TargetSettings {
    /// How the values that are `shown` look to those who may not view them; the
    /// error is a sentence for the client.
    pub(crate) fn mask(&self, shown: &Shown) -> Result<TagMask<'_>, String> {
        self.masker(shown).map(|(mask, _)| mask)
    }

    /// As [`TargetSettings::mask`], ready for use.
    pub(crate) fn masker(&self, shown: &Shown) -> Result<(TagMask<'_>, Masker), String> {
        let mask = self.tags.mask(&shown.column);
        let mask = mask.ok_or("its tags have no mask, or several")?;
        let key = mask.key.and_then(|tag| self.keys.get(tag));
        let masker = Masker::new(mask.mask, &shown.type_name, key);
        Ok((mask, masker.map_err(|misfit| misfit.to_string())?))
    }
}

fn keys(tags: &[Tag], mask_key: Option<&[u8]>) -> BTreeMap<String, Key> {
    let hashed = tags.iter().filter(|tag| tag.mask == Some(Mask::Hash));
    let key = |tag: &Tag| Some((tag.tag.clone(), Key::of_tag(mask_key?, &tag.tag)));
    hashed.filter_map(key).collect()
}

impl Settings {
    /// Checks a configuration. The error is one text for the operator.
    /// `mask_key` is for the tags whose values are hashed.
    pub(crate) fn new(bundle: Bundle, mask_key: Option<&[u8]>) -> Result<Self, String> {
        let policies = Policies::load(&bundle).map_err(|findings| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })?;
        let mut targets = Vec::with_capacity(bundle.config.targets.len());
        for config in &bundle.config.targets {
            let ca = config
                .tls
                .ca
                .as_ref()
                .and_then(|path| bundle.certificates.get(path));
            let alpn = match config.protocol {
                Protocol::Postgres => Some(crate::postgres::ALPN),
                Protocol::Tcp => None,
            };
            let upstream = Upstream::new(&config.tls, ca.map(String::as_str), alpn)
                .map_err(|why| format!("target `{}`: {why}", config.name))?;
            targets.push(Arc::new(TargetSettings {
                name: TargetName::from(config.name.as_str()),
                config: config.clone(),
                tags: Tags::new(&config.tags),
                keys: keys(&config.tags, mask_key),
                upstream,
            }));
        }
        Ok(Self {
            bundle,
            policies,
            targets,
        })
    }

    /// The target that `address` belongs to, and the DNS name it was found by
    /// if it was found by one. An exact address or name wins over a range, a
    /// longer prefix over a shorter one.
    pub(crate) fn target(
        &self,
        address: SocketAddr,
    ) -> Option<(&Arc<TargetSettings>, Option<&str>)> {
        let mut best: Option<(u16, &Arc<TargetSettings>, Option<&str>)> = None;
        for target in &self.targets {
            for place in target
                .config
                .places
                .iter()
                .filter(|place| place.port == address.port())
            {
                let (rank, name) = match &place.host {
                    Host::Any => (0, None),
                    Host::Net(net) if place.host.contains(address.ip()) => {
                        (1 + u16::from(net.prefix_len()), None)
                    }
                    Host::Name(name) if self.resolves_to(name, address) => {
                        (u16::MAX, Some(name.as_str()))
                    }
                    Host::Net(_) | Host::Name(_) => continue,
                };
                if best.is_none_or(|(ranked, ..)| rank > ranked) {
                    best = Some((rank, target, name));
                }
            }
        }
        best.map(|(_, target, name)| (target, name))
    }

    fn resolves_to(&self, name: &str, address: SocketAddr) -> bool {
        let addresses = self.bundle.names.get(name);
        addresses.is_some_and(|found| {
            found
                .iter()
                .any(|ip| ip.to_canonical() == address.ip().to_canonical())
        })
    }
}
