use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::Check;
use crate::load::resolve;
use crate::{Config, Host, Place, Protocol, Target, UpstreamTls};

impl Check<'_> {
    pub(super) fn targets(&mut self, config: &Config) {
        if config.targets.is_empty() {
            let message = "there is no [[target]], so nothing is protected".to_owned();
            self.warning(&[], message, "add one");
        }
        let workloads: BTreeSet<&str> = config
            .workloads
            .iter()
            .map(|workload| workload.name.as_str())
            .collect();
        let mut names = HashMap::new();
        let mut owners: HashMap<&Place, &Target> = HashMap::new();
        for (index, target) in config.targets.iter().enumerate() {
            let at = index.to_string();
            let at = at.as_str();
            self.name(target, at);
            if let Some(earlier) = names.insert(&target.name, index) {
                let earlier = ["target", &earlier.to_string(), "name"];
                let line = self.source.position(&earlier).map_or(0, |at| at.line);
                let message = format!(
                    "target `{}` is there twice, first at line {line}",
                    target.name
                );
                self.error(&["target", at, "name"], message, "give it another name");
            }
            if target.places.is_empty() {
                let message = format!("target `{}` matches nothing", target.name);
                let fix = "write match = [\"HOST:PORT\"]";
                self.error(&["target", at, "match"], message, fix);
            }
            for (number, place) in target.places.iter().enumerate() {
                let path = ["target", at, "match", &number.to_string()];
                match owners.insert(place, target) {
                    Some(other) if std::ptr::eq(other, target) => {
                        let message = format!("{place} is there twice");
                        self.warning(&path, message, "remove one");
                    }
                    Some(other) => {
                        let message = format!("{place} belongs to target `{}` already", other.name);
                        self.error(&path, message, "an address has one target: remove one");
                    }
                    None => {}
                }
            }
            self.everywhere(target, at);
            self.tls(target, at);
            self.tags(target, at);
            self.credentials(target, at, &workloads);
        }
    }

    fn name(&mut self, target: &Target, at: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &target.name;
        if name.is_empty() || name.starts_with(['-', '.']) || !name.chars().all(plain) {
            let message = format!("`{name}` is no name for a target");
            let fix = "use letters, digits, `-`, `_` and `.`, and do not begin with `-` or `.`";
            self.error(&["target", at, "name"], message, fix);
        }
    }

    /// A login must not be offered to whoever listens somewhere.
    fn everywhere(&mut self, target: &Target, at: &str) {
        let everywhere = |place: &Place| place.host == Host::Any;
        if target.protocol == Protocol::Postgres
            && target.tls.upstream != UpstreamTls::VerifyFull
            && !target.credentials.is_empty()
            && target.places.iter().any(everywhere)
        {
            let message = format!(
                "credentials of target `{}` would go to any server whatever",
                target.name
            );
            let fix = "list its servers, or set tls.upstream = \"verify-full\"";
            self.error(&["target", at, "match"], message, fix);
        }
    }

    /// Looks the names of `match` up, for the bundle, and finds those that are
    /// another target's address.
    pub(super) fn look_up_names(&mut self, config: &Config) {
        let mut owners: HashMap<(IpAddr, u16), &str> = HashMap::new();
        for target in &config.targets {
            for place in &target.places {
                if let Host::Net(net) = place.host
                    && net.prefix_len() == net.max_prefix_len()
                {
                    owners.insert((net.addr(), place.port), &target.name);
                }
            }
        }
        for (index, target) in config.targets.iter().enumerate() {
            let at = index.to_string();
            for (number, place) in target.places.iter().enumerate() {
                let Host::Name(name) = &place.host else {
                    continue;
                };
                let path = ["target", at.as_str(), "match", &number.to_string()];
                let addresses = match resolve(name) {
                    Ok(addresses) => addresses,
                    Err(why) => {
                        let message =
                            format!("`{name}` has no address now ({why}), so it is not protected");
                        let fix = "it is looked up again every 30 s; give addresses where that is too late";
                        self.warning(&path, message, fix);
                        continue;
                    }
                };
                for address in &addresses {
                    let owner = owners
                        .entry((*address, place.port))
                        .or_insert(target.name.as_str());
                    if *owner != target.name {
                        let message = format!(
                            "`{name}` is {address} now, which belongs to target `{owner}` too"
                        );
                        let fix = "a name wins over an address, and the earlier target over the later one; say which you mean";
                        self.warning(&path, message, fix);
                    }
                }
                self.bundle.names.insert(name.clone(), addresses);
            }
        }
    }
}
