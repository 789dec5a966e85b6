use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use crate::check::Check;
use crate::text::Text;
use crate::{Bundle, Config, Finding, Secrets, Severity};

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
/// Everything that is wrong, with file, line and column, warnings among it.
/// Findings never quote a secret.
pub fn load(
    path: &Path,
    epoch: u64,
    uid_of: impl Fn(&str) -> Option<u32>,
) -> Result<Loaded, Vec<Finding>> {
    load_and(path, epoch, uid_of, |_, _| Vec::new())
}

/// As [`load`]; `further` looks at what was read for what this crate does not
/// know, and its findings count like those of [`load`] itself.
///
/// # Errors
/// As [`load`].
pub fn load_and(
    path: &Path,
    epoch: u64,
    uid_of: impl Fn(&str) -> Option<u32>,
    further: impl FnOnce(&Bundle, &Text) -> Vec<Finding>,
) -> Result<Loaded, Vec<Finding>> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|why| {
        let message = format!("cannot be read: {why}");
        let fix = "`lockgate init` writes one to begin with";
        vec![Text::new(&file, "").finding(Severity::Error, &[], message, fix)]
    })?;
    let source = Text::new(&file, &text);
    let config: Config =
        toml::from_str(&text).map_err(|error| vec![parse_finding(&source, &error)])?;
    let bundle = Bundle {
        epoch,
        ..Bundle::default()
    };
    let mut check = Check::new(&source, bundle);
    check.everything(path, &config, uid_of);
    let (mut bundle, secrets, mut findings) = check.done();
    bundle.config = config;
    findings.extend(further(&bundle, &source));
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

/// What the TOML reader says, with its place, and for a mistyped key the one
/// that was probably meant.
fn parse_finding(source: &Text, error: &toml::de::Error) -> Finding {
    let message = error.message().replace('\n', " ");
    let fix = ["unknown field `", "unknown variant `"]
        .iter()
        .find_map(|start| {
            let (unknown, known) = message.split_once(start)?.1.split_once('`')?;
            closest(unknown, known.split('`').skip(1).step_by(2))
        })
        .map(|known| format!("did you mean `{known}`?"));
    let position = error.span().map(|span| source.position_of(span.start));
    source.finding_at(Severity::Error, position, message, &fix.unwrap_or_default())
}

/// The one of `known` that was probably meant by `typed`.
pub(crate) fn closest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, known) = known
        .map(|known| (strsim::damerau_levenshtein(typed, known), known))
        .min()?;
    (distance <= 2.max(typed.len() / 3)).then_some(known)
}

/// All addresses of a name, sorted.
///
/// # Errors
/// The resolver has none, or is away.
pub fn resolve(name: &str) -> std::io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    let addresses: BTreeMap<IpAddr, ()> = found
        .map(|address| (address.ip().to_canonical(), ()))
        .collect();
    Ok(addresses.into_keys().collect())
}
