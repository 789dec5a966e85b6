use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One entry of a target's `match`: where its servers are.
///
/// Written `HOST:PORT`, where HOST is an IPv4 address, `[IPv6]`, a range in
/// CIDR form (`10.0.3.0/24`, `[fd00::]/64`), a DNS name or `*` for any address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// Which addresses.
    pub host: Host,
    /// TCP port, 1 to 65535.
    pub port: u16,
}

/// The address part of a [`Place`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address (full prefix) or a range.
    Net(IpNet),
    /// A DNS name, lower case, without a trailing dot.
    Name(String),
    /// Every address of both families.
    Any,
}

impl Host {
    /// Whether `address` is in the range; a v4-mapped address counts as IPv4.
    /// Names never match by themselves: they are resolved first.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Net(net) => net.contains(&address.to_canonical()),
            Self::Name(_) => false,
            Self::Any => true,
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "write HOST:PORT, for example db.internal:5432, 10.0.3.0/24:5432, [fd00::]/64:5432 or *:5432";
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("`{text}` has no port; {form}"))?;
        let port: u16 = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("`{port}` is not a port from 1 to 65535; {form}"))?;
        Ok(Self {
            host: host.parse().map_err(|why| format!("{why}; {form}"))?,
            port,
        })
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bare = text.replace(['[', ']'], "");
        if let Ok(net) = bare.parse::<IpNet>() {
            return match net.trunc() == net {
                true => Ok(Self::Net(net)),
                false => Err(format!(
                    "`{text}` has host bits set; did you mean {}?",
                    net.trunc()
                )),
            };
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            if address.is_ipv6() && !text.starts_with('[') {
                return Err(format!("an IPv6 address stands in brackets: [{text}]"));
            }
            return Ok(Self::Net(address.to_canonical().into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if name.len() <= 253 && !numeric && name.split('.').all(label_ok) {
            return Ok(Self::Name(name));
        }
        Err(format!(
            "`{text}` is neither an address, a range, a DNS name nor *"
        ))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => {
                let full = net.prefix_len() == net.max_prefix_len();
                match (net, full) {
                    (IpNet::V4(net), true) => write!(f, "{}", net.addr()),
                    (IpNet::V4(net), false) => write!(f, "{net}"),
                    (IpNet::V6(net), true) => write!(f, "[{}]", net.addr()),
                    (IpNet::V6(net), false) => write!(f, "[{}]/{}", net.addr(), net.prefix_len()),
                }
            }
            Self::Name(name) => f.write_str(name),
            Self::Any => f.write_str("*"),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_written() {
        for text in [
            "10.0.3.14:5432",
            "10.0.3.0/24:5432",
            "[fd00::1]:5432",
            "[fd00::]/64:5432",
            "db.internal:5432",
            "*:5432",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_name_the_form() {
        for text in [
            "10.0.3.14",
            "db:0",
            "fd00::1:5432",
            "10.0.3.1/24:5432",
            "a b:1",
            "1.2.3:5",
        ] {
            let why = text.parse::<Place>().unwrap_err();
            assert!(why.contains("write HOST:PORT"), "{text}: {why}");
        }
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_self() {
        let host: Host = "10.0.3.0/24".parse().unwrap();
        assert!(host.contains("::ffff:10.0.3.9".parse().unwrap()));
        assert!(!host.contains("::ffff:10.0.4.9".parse().unwrap()));
    }
}
