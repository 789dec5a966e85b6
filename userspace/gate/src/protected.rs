use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use lockgate_config::{Bundle, Host};

/// Entries the kernel's maps have room for, per family.
pub(crate) const MOST: usize = 65_536;

/// What the kernel redirects: exact ports with ranges of addresses, as keys of
/// the LPM maps. A superset of the targets; the exact one is chosen later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Prefix length of the address, port, address.
    pub v4: BTreeSet<(u8, u16, [u8; 4])>,
    /// As `v4`.
    pub v6: BTreeSet<(u8, u16, [u8; 16])>,
}

/// More destinations than the maps take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} protected {family} ranges are more than the {MOST} the kernel's map takes; merge some into wider ranges"
)]
pub struct TooMany {
    count: usize,
    family: &'static str,
}

impl Protected {
    /// From the targets' places and the addresses of their names.
    pub fn from_bundle(bundle: &Bundle) -> Result<Self, TooMany> {
        let mut protected = Self::default();
        for place in bundle
            .config
            .targets
            .iter()
            .flat_map(|target| &target.places)
        {
            match &place.host {
                Host::Net(net) => protected.add(*net, place.port),
                Host::Any => {
                    protected.v4.insert((0, place.port, [0; 4]));
                    protected.v6.insert((0, place.port, [0; 16]));
                }
                Host::Name(name) => {
                    for address in bundle.names.get(name).into_iter().flatten() {
                        protected.add(IpNet::from(address.to_canonical()), place.port);
                    }
                }
            }
        }
        for (count, family) in [(protected.v4.len(), "IPv4"), (protected.v6.len(), "IPv6")] {
            if count > MOST {
                return Err(TooMany { count, family });
            }
        }
        Ok(protected)
    }

    /// Whether a connection to `peer` is a client's to a protected destination.
    pub(crate) fn covers(&self, peer: SocketAddr) -> bool {
        let net = |length| IpNet::new(peer.ip(), length).map(|net| net.network());
        (0..=IpNet::from(peer.ip()).max_prefix_len()).any(|length| match net(length) {
            Ok(IpAddr::V4(ip)) => self.v4.contains(&(length, peer.port(), ip.octets())),
            Ok(IpAddr::V6(ip)) => self.v6.contains(&(length, peer.port(), ip.octets())),
            Err(_) => false,
        })
    }

    /// Whether all of `other` is in it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        self.v4.is_superset(&other.v4) && self.v6.is_superset(&other.v6)
    }

    fn add(&mut self, net: IpNet, port: u16) {
        match net.network() {
            IpAddr::V4(address) => {
                self.v4.insert((net.prefix_len(), port, address.octets()));
            }
            // The kernel side takes a mapped address for IPv4, so ranges of them
            // must be that, too.
            IpAddr::V6(address) if net.prefix_len() >= MAPPED && is_mapped(address) => {
                let [.., a, b, c, d] = address.octets();
                let prefix = net.prefix_len() - MAPPED;
                self.v4.insert((prefix, port, [a, b, c, d]));
            }
            IpAddr::V6(address) => {
                self.v6.insert((net.prefix_len(), port, address.octets()));
            }
        }
    }
}

/// Length of the prefix of v4-mapped addresses (RFC 4291 section 2.5.5.2).
const MAPPED: u8 = 96;

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(places: &[&str]) -> Bundle {
        let places: Vec<String> = places.iter().map(|place| format!("{place:?}")).collect();
        let text = format!(
            "[[target]]\nname = 't'\nprotocol = 'tcp'\nmatch = [{}]\n",
            places.join(",")
        );
        Bundle {
            config: toml::from_str(&text).unwrap(),
            ..Bundle::default()
        }
    }

    #[test]
    fn names_and_ranges_become_keys() {
        let mut bundle = bundle(&[
            "10.0.3.0/24:5432",
            "db:5433",
            "[fd00::1]:5432",
            "*:6379",
            "[::ffff:10.2.0.0/112]:5434",
        ]);
        bundle
            .names
            .insert("db".into(), vec!["::ffff:10.1.1.1".parse().unwrap()]);
        let protected = Protected::from_bundle(&bundle).unwrap();
        assert!(protected.v4.contains(&(24, 5432, [10, 0, 3, 0])));
        assert!(
            protected.v4.contains(&(32, 5433, [10, 1, 1, 1])),
            "a mapped address is IPv4"
        );
        assert!(protected.v4.contains(&(16, 5434, [10, 2, 0, 0])));
        assert!(protected.v4.contains(&(0, 6379, [0; 4])));
        assert!(protected.v6.contains(&(0, 6379, [0; 16])));
        assert_eq!(protected.v6.len(), 2);
        for (peer, covered) in [
            ("10.0.3.77:5432", true),
            ("10.0.4.77:5432", false),
            ("10.0.3.77:5433", false),
            ("10.1.1.1:5433", true),
            ("192.0.2.1:6379", true),
            ("[fd00::1]:5432", true),
            ("[fd00::2]:5432", false),
            ("[fd00::2]:6379", true),
        ] {
            assert_eq!(protected.covers(peer.parse().unwrap()), covered, "{peer}");
        }
    }

    #[test]
    fn more_than_the_map_takes_is_refused_before_it_is_used() {
        let mut bundle = bundle(&["db:5432"]);
        let addresses = (0..=MOST as u32)
            .map(|n| IpAddr::from(n.to_be_bytes()))
            .collect();
        bundle.names.insert("db".into(), addresses);
        assert!(
            Protected::from_bundle(&bundle)
                .unwrap_err()
                .to_string()
                .contains("65537")
        );
    }
}
