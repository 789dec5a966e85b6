//! Servers of this host that listen where nothing protects them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lockgate_config::{Config, Host, Place};
use lockgate_gate::preflight::State;
use nix::ifaddrs::getifaddrs;

use super::Line;

/// A target that names one address of this host protects that address; its
/// server may be reached by the others.
pub(super) fn beside(config: Option<&Config>) -> Vec<Line> {
    let Some(config) = config else {
        return Vec::new();
    };
    let local = local_addresses();
    let listening = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let listening: Vec<SocketAddr> = listening
        .iter()
        .flatten()
        .flat_map(|table| table.lines().filter_map(listener))
        .collect();
    let line = |(target, place, open): (&str, &Place, Vec<SocketAddr>)| {
        let open: Vec<String> = open.iter().map(ToString::to_string).collect();
        Line {
            name: "local server".into(),
            state: State::Open,
            found: format!(
                "what target `{target}` protects at {place} also listens on {}",
                open.join(", ")
            ),
            advice: "add these to the target's `match`, or let the server listen on fewer addresses (listen_addresses)".into(),
        }
    };
    uncovered(config, &local, &listening)
        .into_iter()
        .map(line)
        .collect()
}

/// Addresses of local servers that are not in any target, by the place of a
/// target that they stand beside.
fn uncovered<'c>(
    config: &'c Config,
    local: &BTreeSet<IpAddr>,
    listening: &[SocketAddr],
) -> Vec<(&'c str, &'c Place, Vec<SocketAddr>)> {
    let places = || {
        let of_target = |target: &'c lockgate_config::Target| {
            target
                .places
                .iter()
                .map(|place| (target.name.as_str(), place))
        };
        config.targets.iter().flat_map(of_target)
    };
    let is_protected = |address: &SocketAddr| {
        places().any(|(_, place)| place.port == address.port() && place.host.contains(address.ip()))
    };
    let beside = |(target, place): (&'c str, &'c Place)| {
        let here = local.iter().any(|address| {
            // A range is of a network, and `*` leaves nothing out.
            matches!(&place.host, Host::Net(net) if net.prefix_len() == net.max_prefix_len())
                && place.host.contains(*address)
        });
        let on_port = listening
            .iter()
            .filter(|server| here && server.port() == place.port);
        let open: BTreeSet<SocketAddr> = on_port
            .flat_map(|server| addresses_of(server, local))
            .filter(|address| !is_protected(address))
            .collect();
        (!open.is_empty()).then(|| (target, place, open.into_iter().collect()))
    };
    places().filter_map(beside).collect()
}

/// Where a listener can be reached. One on `[::]` takes IPv4, too, unless it or
/// the host says otherwise.
fn addresses_of(server: &SocketAddr, local: &BTreeSet<IpAddr>) -> Vec<SocketAddr> {
    let port = server.port();
    let all = |wanted: fn(&IpAddr) -> bool| {
        let found = local.iter().filter(|address| wanted(address));
        found
            .map(|address| SocketAddr::new(*address, port))
            .collect()
    };
    match server.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => all(IpAddr::is_ipv4),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => all(|_| true),
        one => vec![SocketAddr::new(one.to_canonical(), port)],
    }
}

fn local_addresses() -> BTreeSet<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        // What is link-local needs a scope to be reached.
        let v6 = address
            .as_sockaddr_in6()
            .filter(|v6| !v6.ip().is_unicast_link_local())
            .map(|v6| IpAddr::V6(v6.ip()));
        v4.or(v6)
    };
    interfaces.filter_map(address).collect()
}

/// The address of a line of /proc/net/tcp or tcp6, if it is a listener's.
fn listener(line: &str) -> Option<SocketAddr> {
    /// TCP_LISTEN (include/net/tcp_states.h).
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (fields.get(1)?, fields.get(3)?);
    if *state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in the host's order.
    let words: Option<Vec<[u8; 4]>> = (0..address.len())
        .step_by(8)
        .map(|at| {
            let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let ip = match words?.as_flattened() {
        v4 if v4.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(v4).ok()?),
        v6 => IpAddr::from(<[u8; 16]>::try_from(v6).ok()?),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(matches: &str, listening: &[&str]) -> Vec<String> {
        let text = format!("[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = {matches}");
        let config: Config = toml::from_str(&text).unwrap();
        let local = ["127.0.0.1", "10.0.0.5", "::1"].map(|address| address.parse().unwrap());
        let listening: Vec<SocketAddr> = listening.iter().map(|it| it.parse().unwrap()).collect();
        uncovered(&config, &local.into(), &listening)
            .into_iter()
            .flat_map(|(_, _, open)| open)
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    fn the_other_addresses_of_a_local_server_are_found() {
        let one = "['127.0.0.1:5432']";
        assert_eq!(found(one, &["0.0.0.0:5432"]), ["10.0.0.5:5432"]);
        assert_eq!(found(one, &["[::]:5432"]), ["10.0.0.5:5432", "[::1]:5432"]);
        assert_eq!(
            found(one, &["127.0.0.1:5432", "[::1]:5432"]),
            ["[::1]:5432"]
        );
        let quiet: [&str; 0] = [];
        assert_eq!(found(one, &["127.0.0.1:5432", "0.0.0.0:80"]), quiet);
        assert_eq!(found("['10.9.9.9:5432']", &["0.0.0.0:5432"]), quiet);
        assert_eq!(found("['*:5432']", &["[::]:5432"]), quiet);
        let all = "['127.0.0.1:5432', '10.0.0.0/24:5432', '[::1]:5432']";
        assert_eq!(found(all, &["[::]:5432"]), quiet);
    }

    #[test]
    fn listeners_are_read_from_the_kernel_s_table() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = server.local_addr().unwrap();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(table.lines().filter_map(listener).any(|it| it == wanted));
        if let Ok(server) = std::net::TcpListener::bind("[::1]:0") {
            let wanted = server.local_addr().unwrap();
            let table = fs::read_to_string("/proc/net/tcp6").unwrap();
            assert!(table.lines().filter_map(listener).any(|it| it == wanted));
        }
        assert!(local_addresses().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
