use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};

use crate::exit::Exit;

const CONFIG: &str = include_str!("lockgate.toml");

/// Writes a configuration to begin with.
pub(crate) fn init(dir: &Path, force: bool) -> anyhow::Result<Exit> {
    let policies = dir.join("policies");
    let secrets = dir.join("secrets");
    fs::create_dir_all(&policies).with_context(|| policies.display().to_string())?;
    if !secrets.exists() {
        DirBuilder::new().mode(0o700).create(&secrets)?;
    }
    let config = CONFIG.replace("/etc/lockgate", &dir.display().to_string());
    let mut files = vec![(dir.join("lockgate.toml"), config)];
    for (name, text) in lockgate_policy::STARTER {
        files.push((policies.join(name), (*text).to_owned()));
    }
    if !force && let Some((there, _)) = files.iter().find(|(path, _)| path.exists()) {
        bail!(
            "{} is there already; --force overwrites it",
            there.display()
        );
    }
    for (path, text) in &files {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o644)
            .open(path)
            .with_context(|| path.display().to_string())?;
        file.write_all(text.as_bytes())?;
        println!("wrote {}", path.display());
    }
    let secret = secrets.join("nightly-report");
    if !secret.exists() {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&secret)?;
        file.write_all(b"the password of report_ro goes here\n")?;
        println!("wrote {}", secret.display());
    }
    println!(
        "\nNow:\n  1. edit {0}/lockgate.toml: your target's address, your workload's unit\n  2. put the role's password into {0}/secrets/nightly-report\n  3. lockgate check --config {0}/lockgate.toml\n  4. lockgate run --config {0}/lockgate.toml\nReady-made policies: lockgate policy pack list",
        dir.display()
    );
    Ok(Exit::Yes)
}
