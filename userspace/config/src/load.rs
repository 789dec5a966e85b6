use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use secrecy::SecretString;
use toml_edit::{Document, Item};

use crate::{
    Bundle, Config, Finding, Host, Mode, PolicyFile, Protocol, SecretSource, Secrets, Severity,
    Target, UpstreamTls,
};

/// A configuration with everything it names.
#[derive(Debug)]
pub struct Loaded {
    /// For all three processes.
    pub bundle: Bundle,
    /// For keeper alone.
    pub secrets: Secrets,
    /// What looks wrong but can be used.
    pub warnings: Vec<Finding>,
}

/// Reads the configuration at `path`, the policies, the certificates and the
/// secrets it names, and looks its names up. `epoch` goes into the bundle;
/// `uid_of` looks up a user.
///
/// # Errors
/// Everything that is wrong, with file and line, warnings among it. Findings
/// never quote a secret.
pub fn load(
    path: &Path,
    epoch: u64,
    uid_of: impl Fn(&str) -> Option<u32>,
) -> Result<Loaded, Vec<Finding>> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|why| {
        vec![Finding {
            severity: Severity::Error,
            file: file.clone(),
            line: None,
            message: format!("cannot be read: {why}"),
            fix: Some("`lockgate init` writes one to begin with".into()),
        }]
    })?;
    let config: Config =
        toml::from_str(&text).map_err(|error| vec![parse_finding(&file, &text, &error)])?;
    let mut loader = Loader {
        places: Places::new(&file, &text),
        findings: Vec::new(),
        bundle: Bundle {
            epoch,
            ..Bundle::default()
        },
        secrets: Secrets::default(),
    };
    loader.check_targets(&config);
    loader.check_workloads(&config, uid_of);
    loader.read_policies(&config);
    loader.read_clickhouse(&config);
    loader.look_up_names(&config);
    loader.bundle.config = config;
    let Loader {
        findings,
        bundle,
        secrets,
        ..
    } = loader;
    match findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
    {
        true => Err(findings),
        false => Ok(Loaded {
            bundle,
            secrets,
            warnings: findings,
        }),
    }
}

/// What the TOML reader says, with the line, and for a mistyped key the one
/// that was probably meant.
fn parse_finding(file: &str, text: &str, error: &toml::de::Error) -> Finding {
    let message = error.message().replace('\n', " ");
    let fix = message.split_once("unknown field `").and_then(|(_, rest)| {
        let (unknown, known) = rest.split_once('`')?;
        let closest = known
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
            .min()?;
        (closest.0 <= 2.max(unknown.len() / 3)).then(|| format!("did you mean `{}`?", closest.1))
    });
    Finding {
        severity: Severity::Error,
        file: file.to_owned(),
        line: error.span().map(|span| line_at(text, span.start)),
        message,
        fix,
    }
}

fn line_at(text: &str, offset: usize) -> u32 {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() as u32 + 1
}

/// Where things stand in the file.
struct Places {
    file: String,
    text: String,
    document: Option<Document<String>>,
}

impl Places {
    fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            document: Document::parse(text.to_owned()).ok(),
        }
    }

    /// Line of the deepest part of a path of keys and indexes that is there.
    fn line(&self, path: &[&str]) -> Option<u32> {
        let mut item: &Item = self.document.as_ref()?.as_item();
        let mut line = None;
        for step in path {
            let next = match step.parse::<usize>() {
                Ok(index) => item.get(index),
                Err(_) => item.get(*step),
            };
            let Some(next) = next else { break };
            item = next;
            if let Some(span) = item.span() {
                line = Some(line_at(&self.text, span.start));
            }
        }
        line
    }
}

struct Loader {
    places: Places,
    findings: Vec<Finding>,
    bundle: Bundle,
    secrets: Secrets,
}

impl Loader {
    fn find(&mut self, severity: Severity, path: &[&str], message: String, fix: &str) {
        self.findings.push(Finding {
            severity,
            file: self.places.file.clone(),
            line: self.places.line(path),
            message,
            fix: (!fix.is_empty()).then(|| fix.to_owned()),
        });
    }

    fn error(&mut self, path: &[&str], message: String, fix: &str) {
        self.find(Severity::Error, path, message, fix);
    }

    fn check_targets(&mut self, config: &Config) {
        if config.targets.is_empty() {
            self.find(
                Severity::Warning,
                &[],
                "there is no [[target]], so nothing is protected".into(),
                "add one",
            );
        }
        let workloads: BTreeSet<&str> = config
            .workloads
            .iter()
            .map(|workload| workload.name.as_str())
            .collect();
        let mut names = HashMap::new();
        let mut seen = HashMap::new();
        for (index, target) in config.targets.iter().enumerate() {
            let at = index.to_string();
            let at = at.as_str();
            if target.name.is_empty() {
                self.error(
                    &["target", at, "name"],
                    "a target has no name".into(),
                    "give it one",
                );
            }
            if let Some(earlier) = names.insert(&target.name, index) {
                let line = self.places.line(&["target", &earlier.to_string(), "name"]);
                let message = format!(
                    "target `{}` is there twice, first at line {}",
                    target.name,
                    line.unwrap_or(0)
                );
                self.error(&["target", at, "name"], message, "give it another name");
            }
            if target.places.is_empty() {
                let message = format!("target `{}` matches nothing", target.name);
                self.error(
                    &["target", at, "match"],
                    message,
                    "write match = [\"HOST:PORT\"]",
                );
            }
            for place in &target.places {
                if let Some(other) = seen.insert(place.clone(), target.name.clone())
                    && other != target.name
                {
                    let message = format!("{place} belongs to target `{other}` already");
                    self.error(
                        &["target", at, "match"],
                        message,
                        "an address has one target",
                    );
                }
            }
            self.check_tls(target, at);
            self.check_tags(target, at);
            self.check_credentials(target, at, &workloads);
        }
    }

    fn check_tls(&mut self, target: &Target, at: &str) {
        let tls = &target.tls;
        if tls.upstream != UpstreamTls::Disable && tls.ca.is_none() {
            let message = format!(
                "target `{}` verifies its servers but names no CA",
                target.name
            );
            self.error(&["target", at, "tls"], message, "set tls.ca to a PEM file");
        }
        if tls.certificate.is_some() != tls.key.is_some() {
            let message = "`tls.certificate` and `tls.key` go together".to_owned();
            self.error(&["target", at, "tls"], message, "set both or none");
        }
        let named = target
            .places
            .iter()
            .any(|place| matches!(place.host, Host::Name(_)));
        if tls.upstream == UpstreamTls::VerifyFull && tls.server_name.is_none() && !named {
            let message = format!(
                "the servers of target `{}` must have certificates for their addresses",
                target.name
            );
            self.find(
                Severity::Warning,
                &["target", at, "tls"],
                message,
                "set tls.server_name where they have names",
            );
        }
        for (key, path) in [("ca", &tls.ca), ("certificate", &tls.certificate)] {
            let Some(path) = path else { continue };
            match fs::read_to_string(path) {
                Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => {
                    self.bundle.certificates.insert(path.clone(), pem);
                }
                Ok(_) => {
                    let message = format!("{} holds no PEM certificate", path.display());
                    self.error(
                        &["target", at, "tls", key],
                        message,
                        "it begins with -----BEGIN CERTIFICATE-----",
                    );
                }
                Err(why) => {
                    let message = format!("{} cannot be read: {why}", path.display());
                    self.error(&["target", at, "tls", key], message, "");
                }
            }
        }
        if let Some(path) = &tls.key
            && let Some(key) = self.read_secret(path, &["target", at, "tls", "key"])
        {
            self.secrets.keys.insert(target.name.clone(), key);
        }
    }

    fn check_tags(&mut self, target: &Target, at: &str) {
        for (index, tag) in target.tags.iter().enumerate() {
            let parts = tag.columns.split('.').count();
            let path = ["target", at, "tags", &index.to_string(), "columns"];
            if !(3..=4).contains(&parts) || tag.columns.split('.').any(str::is_empty) {
                let message = format!("`{}` names no column", tag.columns);
                self.error(
                    &path,
                    message,
                    "write schema.table.column or database.schema.table.column",
                );
            }
            if tag.tag.is_empty() {
                self.error(
                    &path,
                    "a tag has no name".into(),
                    "write tag = \"pii\", for example",
                );
            }
        }
    }

    fn check_credentials(&mut self, target: &Target, at: &str, workloads: &BTreeSet<&str>) {
        if target.protocol == Protocol::Tcp
            && !(target.credentials.is_empty() && target.tags.is_empty())
        {
            let message = format!(
                "target `{}` is opaque: credentials and tags mean nothing there",
                target.name
            );
            self.error(
                &["target", at, "protocol"],
                message,
                "remove them, or set protocol = \"postgres\"",
            );
        }
        if target.protocol == Protocol::Postgres && target.credentials.is_empty() {
            let message = format!("nobody can log in at target `{}`", target.name);
            self.find(
                Severity::Warning,
                &["target", at, "name"],
                message,
                "add credentials for each workload",
            );
        }
        let mut seen = BTreeSet::new();
        for (index, credential) in target.credentials.iter().enumerate() {
            let index = index.to_string();
            let path = ["target", at, "credentials", index.as_str(), "workload"];
            let workload = credential.workload.as_str();
            if !workloads.contains(workload) && workload != "unknown" {
                let closest = workloads
                    .iter()
                    .map(|known| (strsim::damerau_levenshtein(workload, known), *known))
                    .min();
                let fix = match closest {
                    Some((distance, known)) if distance <= 3 => format!("did you mean `{known}`?"),
                    _ => "add a [[workload]] of this name".into(),
                };
                self.error(&path, format!("there is no workload `{workload}`"), &fix);
            }
            if !seen.insert(workload) {
                let message = format!(
                    "workload `{workload}` has two credentials at target `{}`",
                    target.name
                );
                self.error(&path, message, "keep one");
            }
            if let Some(SecretSource::File(file)) = &credential.password {
                let path = ["target", at, "credentials", index.as_str(), "password"];
                if let Some(secret) = self.read_secret(file, &path) {
                    self.secrets
                        .passwords
                        .entry(target.name.clone())
                        .or_default()
                        .insert(workload.to_owned(), secret);
                }
            }
        }
        if target.mode == Mode::Observe && !target.tags.is_empty() {
            let message = format!(
                "target `{}` is only observed: its tagged columns are seen by all",
                target.name
            );
            self.find(
                Severity::Warning,
                &["target", at, "mode"],
                message,
                "set mode = \"enforce\" to protect them",
            );
        }
    }

    fn read_secret(&mut self, file: &Path, path: &[&str]) -> Option<SecretString> {
        match fs::metadata(file) {
            Ok(meta) if meta.mode() & 0o077 != 0 => {
                let message = format!("{} can be read by others than its owner", file.display());
                self.error(
                    path,
                    message,
                    &format!("run `chmod 600 {}`", file.display()),
                );
                return None;
            }
            _ => {}
        }
        match fs::read_to_string(file) {
            Ok(mut text) => {
                if text.ends_with('\n') {
                    text.pop();
                }
                if text.is_empty() {
                    let message = format!("{} is empty", file.display());
                    self.error(path, message, "write the secret into it");
                    return None;
                }
                Some(SecretString::from(text))
            }
            Err(why) => {
                self.error(
                    path,
                    format!("{} cannot be read: {why}", file.display()),
                    "",
                );
                None
            }
        }
    }

    fn check_workloads(&mut self, config: &Config, uid_of: impl Fn(&str) -> Option<u32>) {
        for (index, workload) in config.workloads.iter().enumerate() {
            let Some(user) = &workload.user else { continue };
            match user.parse().ok().or_else(|| uid_of(user)) {
                Some(uid) => {
                    self.bundle.uids.insert(workload.name.clone(), uid);
                }
                None => {
                    let at = index.to_string();
                    let message = format!("there is no user `{user}` on this host");
                    self.error(
                        &["workload", &at, "user"],
                        message,
                        "name one, or give its number",
                    );
                }
            }
        }
    }

    fn read_policies(&mut self, config: &Config) {
        let folder = &config.agent.policies;
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(why) => {
                let message = format!(
                    "the policies folder {} cannot be read: {why}",
                    folder.display()
                );
                self.error(&["agent", "policies"], message, "`lockgate init` makes one");
                return;
            }
        };
        let mut files = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_none_or(|extension| extension != "cedar")
            {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            match fs::read_to_string(&path) {
                Ok(text) => {
                    files.insert(name, text);
                }
                Err(why) => self.findings.push(Finding {
                    severity: Severity::Error,
                    file: path.display().to_string(),
                    line: None,
                    message: format!("cannot be read: {why}"),
                    fix: None,
                }),
            }
        }
        self.bundle.policies = files
            .into_iter()
            .map(|(name, text)| PolicyFile { name, text })
            .collect();
    }

    fn read_clickhouse(&mut self, config: &Config) {
        let Some(clickhouse) = &config.audit.clickhouse else {
            return;
        };
        if !clickhouse.url.starts_with("http://") {
            let message = format!("`{}` is not an http:// address", clickhouse.url);
            self.error(
                &["audit", "clickhouse"],
                message,
                "HTTPS needs a TLS proxy in front of ClickHouse",
            );
        }
        if let Some(SecretSource::File(file)) = &clickhouse.password {
            self.secrets.clickhouse = self.read_secret(file, &["audit", "clickhouse"]);
        }
    }

    fn look_up_names(&mut self, config: &Config) {
        for (index, target) in config.targets.iter().enumerate() {
            for place in &target.places {
                let Host::Name(name) = &place.host else {
                    continue;
                };
                match resolve(name) {
                    Ok(addresses) => {
                        self.bundle.names.insert(name.clone(), addresses);
                    }
                    Err(why) => {
                        let at = index.to_string();
                        let message =
                            format!("`{name}` has no address now ({why}), so it is not protected");
                        self.find(Severity::Warning, &["target", &at, "match"], message, "it is looked up again every 30 s; give addresses where that is too late");
                    }
                }
            }
        }
    }
}

/// All addresses of a name, sorted.
pub fn resolve(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip().to_canonical()).collect();
    Ok(addresses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let policies = dir.path().join("policies");
        fs::create_dir(&policies).unwrap();
        let open = dir.path().join("open-secret");
        fs::write(&open, "hunter2\n").unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let path = dir.path().join("lockgate.toml");
        let text = text
            .replace("POLICIES", policies.to_str().unwrap())
            .replace("OPEN", open.to_str().unwrap());
        fs::write(&path, text).unwrap();
        let found = match load(&path, 1, |user| (user == "ci").then_some(1000)) {
            Ok(loaded) => loaded.warnings,
            Err(findings) => findings,
        };
        let prefix = format!("{}/", dir.path().display());
        found
            .iter()
            .map(|finding| finding.to_string().replace(&prefix, ""))
            .collect()
    }

    const HEAD: &str = "[agent]\npolicies = 'POLICIES'\n";

    #[test]
    fn each_mistake_has_its_line_and_its_fix() {
        let target = "[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['127.0.0.1:5432']\n";
        for (text, expected) in [
            (
                "[agnet]\n".into(),
                "lockgate.toml:1: error: unknown field `agnet`, expected one of `agent`, `kernel`, `audit`, `metrics`, `limits`, `target`, `workload`; did you mean `agent`?",
            ),
            (
                format!(
                    "{HEAD}[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['127.0.0.1']\n"
                ),
                "lockgate.toml:6: error: `127.0.0.1` has no port; write HOST:PORT, for example db.internal:5432, 10.0.3.0/24:5432, [fd00::]/64:5432 or *:5432",
            ),
            (
                format!("{HEAD}{target}{target}"),
                "lockgate.toml:8: error: target `db` is there twice, first at line 4; give it another name",
            ),
            (
                format!(
                    "{HEAD}{target}credentials = [{{ workload = 'nightl', user = 'x' }}]\n[[workload]]\nname = 'nightly'\nuser = 'ci'\n"
                ),
                "lockgate.toml:7: error: there is no workload `nightl`; did you mean `nightly`?",
            ),
            (
                format!(
                    "{HEAD}{target}credentials = [{{ workload = 'ci', user = 'x', password = {{ file = 'OPEN' }} }}]\n[[workload]]\nname = 'ci'\nuser = 'ci'\n"
                ),
                "lockgate.toml:7: error: open-secret can be read by others than its owner; run `chmod 600 open-secret`",
            ),
            (
                format!("{HEAD}{target}tls = {{ upstream = 'verify-full' }}\n"),
                "lockgate.toml:7: error: target `db` verifies its servers but names no CA; set tls.ca to a PEM file",
            ),
            (
                format!("{HEAD}{target}tags = [{{ columns = 'ssn', tag = 'pii' }}]\n"),
                "lockgate.toml:7: error: `ssn` names no column; write schema.table.column or database.schema.table.column",
            ),
            (
                format!("{HEAD}[[workload]]\nname = 'x'\nuser = 'nobody-here'\n"),
                "lockgate.toml:5: error: there is no user `nobody-here` on this host; name one, or give its number",
            ),
            (
                "[agent]\npolicies = '/nowhere'\n".into(),
                "lockgate.toml:2: error: the policies folder /nowhere cannot be read: No such file or directory (os error 2); `lockgate init` makes one",
            ),
        ] {
            let found = findings(&text);
            assert!(
                found.iter().any(|finding| finding == expected),
                "{expected}\n{found:#?}"
            );
        }
    }

    #[test]
    fn no_finding_quotes_a_secret() {
        let text = format!(
            "{HEAD}[[target]]\nname = 'db'\nprotocol = 'postgres'\nmatch = ['127.0.0.1:5432']\ncredentials = [{{ workload = 'ci', user = 'x', password = {{ file = 'OPEN' }} }}]\n"
        );
        assert!(!findings(&text).concat().contains("hunter2"));
    }
}
