//! Clients on this host whose settings do not go with lockgate.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lockgate_config::{Config, Host};
use lockgate_gate::preflight::State;

use super::Line;

/// What libpq reads before any program says a word: services, and the
/// certificates that change what `require` means.
pub(super) fn libpq(config: Option<&Config>, ca: &Path) -> Vec<Line> {
    let homes = homes();
    let mut lines = Vec::new();
    for home in &homes {
        let root = home.join(".postgresql/root.crt");
        if root.exists() {
            lines.push(Line {
                name: "libpq".into(),
                state: State::Limited,
                found: root.display().to_string(),
                advice: format!(
                    "with this file sslmode=require verifies, too: append {} to it",
                    ca.display()
                ),
            });
        }
    }
    let services = homes
        .iter()
        .map(|home| home.join(".pg_service.conf"))
        .chain([PathBuf::from("/etc/postgresql-common/pg_service.conf")]);
    for path in services {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (service, settings) in sections(&text) {
            let troubles = troubles(&settings, config);
            lines.extend(troubles.into_iter().map(|advice| Line {
                name: "connection string".into(),
                state: State::Limited,
                found: format!("[{service}] in {}", path.display()),
                advice,
            }));
        }
    }
    lines
}

/// Home folders of all users.
fn homes() -> Vec<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let homes = passwd
        .lines()
        .filter_map(|line| line.split(':').nth(5))
        .filter(|home| home.len() > 1);
    let mut homes: Vec<PathBuf> = homes.map(PathBuf::from).collect();
    homes.sort();
    homes.dedup();
    homes
}

type Settings<'a> = BTreeMap<&'a str, &'a str>;

/// A file of services: `[NAME]`, then `key=value` lines.
fn sections(text: &str) -> Vec<(&str, Settings<'_>)> {
    let mut sections: Vec<(&str, Settings<'_>)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            sections.push((name, Settings::new()));
        } else if let Some((key, value)) = line.split_once('=')
            && !line.starts_with('#')
            && let Some((_, settings)) = sections.last_mut()
        {
            settings.insert(key.trim(), value.trim());
        }
    }
    sections
}

/// What of a connection string does not work through lockgate; nothing if it
/// leads to no target.
fn troubles(settings: &Settings<'_>, config: Option<&Config>) -> Vec<String> {
    let get = |key| settings.get(key).copied().unwrap_or_default();
    let host = match get("hostaddr") {
        "" => get("host"),
        address => address,
    };
    let port = get("port").parse().unwrap_or(5432);
    let mut troubles = Vec::new();
    if host.is_empty() || host.starts_with(['/', '@']) {
        troubles.push(
            "goes to a unix socket, which is not redirected: set host to an address of the target"
                .into(),
        );
        return troubles;
    }
    let to_target = config.is_some_and(|config| leads_to_target(config, host, port));
    if !to_target {
        return troubles;
    }
    if get("sslmode").starts_with("verify-") {
        troubles.push(format!(
            "sslmode={} needs the host CA in sslrootcert, or the target's own certificate (tls.certificate)",
            get("sslmode")
        ));
    }
    for (key, value) in [
        ("channel_binding", "require"),
        ("gssencmode", "require"),
        ("require_auth", "scram-sha-256"),
        ("replication", "database"),
    ] {
        if get(key) == value {
            troubles.push(format!(
                "{key}={value} does not work through lockgate: remove it"
            ));
        }
    }
    troubles
}

fn leads_to_target(config: &Config, host: &str, port: u16) -> bool {
    let places = config.targets.iter().flat_map(|target| &target.places);
    let mut places = places.filter(|place| place.port == port);
    let address = host.trim_matches(['[', ']']).parse().ok();
    places.any(|place| match (&place.host, address) {
        (Host::Any, _) => true,
        (Host::Name(name), _) => name.eq_ignore_ascii_case(host),
        (Host::Net(_), Some(address)) => place.host.contains(address),
        (Host::Net(_), None) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_would_fail_are_found() {
        let text = "# comment\n[orders]\nhost=10.0.3.14\nsslmode = verify-full\nchannel_binding=require\n\n\
                    [else]\nhost=10.0.9.9\nsslmode=verify-full\n[local]\ndbname=x\n[name]\nhost=DB.internal\nport=6432\ngssencmode=require\n";
        let config = Config {
            targets: vec![target(&["10.0.3.0/24:5432", "db.internal:6432"])],
            ..Config::default()
        };
        let found: Vec<(&str, usize)> = sections(text)
            .into_iter()
            .map(|(name, settings)| (name, troubles(&settings, Some(&config)).len()))
            .collect();
        assert_eq!(
            found,
            [("orders", 2), ("else", 0), ("local", 1), ("name", 1)]
        );
    }

    fn target(places: &[&str]) -> lockgate_config::Target {
        let text = format!("name = 'db'\nprotocol = 'postgres'\nmatch = {places:?}\n");
        toml::from_str(&text).unwrap()
    }
}
