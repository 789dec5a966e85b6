use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses by DNS name.
pub(super) type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// How long an address stays protected after its name was last seen to have
/// it: clients keep what they looked up, and servers with many addresses give
/// out a few at a time.
const LINGER: Duration = Duration::from_secs(600);

/// What the names of the targets have been seen to mean.
#[derive(Default)]
pub(super) struct Names {
    seen: BTreeMap<(String, IpAddr), Instant>,
}

impl Names {
    /// Adds what was found at `now`, and gives all that counts: what was found
    /// and what lingers. Names that are not in `found` are forgotten, unless
    /// they only could not be looked up.
    pub(super) fn merge(&mut self, found: Vec<Found>, now: Instant) -> Addresses {
        let mut all = Addresses::new();
        let mut seen = BTreeMap::new();
        for Found { name, addresses } in found {
            let fresh = addresses.iter().flatten();
            for address in fresh {
                seen.insert((name.clone(), *address), now);
            }
            let before = self.seen.iter().filter(|((other, _), _)| *other == name);
            for ((_, address), at) in before {
                // A resolver that is away forgets nothing.
                let at = if addresses.is_none() { now } else { *at };
                if now.duration_since(at) < LINGER {
                    seen.entry((name.clone(), *address)).or_insert(at);
                }
            }
            let of_name = seen.keys().filter(|(other, _)| *other == name);
            let of_name: Vec<IpAddr> = of_name.map(|(_, address)| *address).collect();
            if !of_name.is_empty() {
                all.insert(name, of_name);
            }
        }
        self.seen = seen;
        all
    }
}

/// What a look-up gave.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// None if it could not be looked up.
    pub(super) addresses: Option<Vec<IpAddr>>,
}

/// Looks `names` up; takes as long as the resolver does.
pub(super) fn look_up(names: Vec<String>) -> Vec<Found> {
    let resolved = names.into_iter().map(|name| {
        let addresses = lockgate_config::resolve(&name)
            .inspect_err(|error| tracing::warn!(%name, %error, "no address now; those before stay"))
            .ok();
        Found { name, addresses }
    });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, addresses: &[&str]) -> Found {
        Found {
            name: name.into(),
            addresses: Some(addresses.iter().map(|text| text.parse().unwrap()).collect()),
        }
    }

    fn text(all: &Addresses) -> String {
        let shown = all.iter().map(|(name, addresses)| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{name}={}", addresses.join("+"))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_address_lingers_and_goes() {
        let start = Instant::now();
        let mut names = Names::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all = names.merge(vec![found("db", &["10.0.0.1"])], at(0));
        assert_eq!(text(&all), "db=10.0.0.1");
        let all = names.merge(vec![found("db", &["10.0.0.2"])], at(30));
        assert_eq!(text(&all), "db=10.0.0.1+10.0.0.2");
        let all = names.merge(vec![found("db", &["10.0.0.2"])], at(599));
        assert_eq!(text(&all), "db=10.0.0.1+10.0.0.2");
        let all = names.merge(vec![found("db", &["10.0.0.2"])], at(600));
        assert_eq!(text(&all), "db=10.0.0.2");
    }

    #[test]
    fn a_resolver_that_is_away_forgets_nothing_but_a_removed_name_is_forgotten() {
        let start = Instant::now();
        let mut names = Names::default();
        names.merge(vec![found("a", &["10.0.0.1"]), found("b", &["::1"])], start);
        let away = Found {
            name: "a".into(),
            addresses: None,
        };
        let all = names.merge(vec![away], start + Duration::from_secs(6000));
        assert_eq!(text(&all), "a=10.0.0.1");
        let all = names.merge(vec![found("b", &[])], start + Duration::from_secs(6001));
        assert_eq!(text(&all), "");
    }
}
