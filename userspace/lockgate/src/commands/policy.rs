use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_command::WorkloadName;
use lockgate_policy::{PACKS, Pack};

use crate::checked::{self, Checked};
use crate::cli::PackCommand;
use crate::exit::Exit;

/// Prints the policies that let a workload do something.
pub(crate) fn print(workload: &str, verb: &str, resource: &str) -> anyhow::Result<Exit> {
    let name = WorkloadName::from(workload);
    print!("{}", lockgate_policy::allow_policy(&name, verb, resource)?);
    Ok(Exit::Yes)
}

/// Writes them to `file` in the policies folder.
pub(crate) fn allow(
    workload: &str,
    verb: &str,
    resource: &str,
    config: &Path,
    file: &str,
) -> anyhow::Result<Exit> {
    let name = WorkloadName::from(workload);
    if file.contains('/') || file.starts_with('.') || !file.ends_with(".cedar") {
        bail!("`{file}` is no name for a file of policies; write NAME.cedar, without a folder");
    }
    let authored = lockgate_policy::allow_policies(&name, verb, resource)?;
    let before = loaded(config)?;
    let missing: Vec<_> = authored
        .iter()
        .filter(|policy| !before.policies.has(&policy.id))
        .collect();
    if missing.is_empty() {
        println!("{workload} may do that already");
        return Ok(Exit::Yes);
    }
    let path = before.loaded.bundle.config.agent.policies.join(file);
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut text = old.clone().unwrap_or_default();
    for policy in &missing {
        if !text.is_empty() && !text.ends_with("\n\n") {
            text.push('\n');
        }
        text.push_str(&policy.text);
    }
    write_checked(config, &path, old.as_deref(), &text)?;
    for policy in &missing {
        println!("{}", policy.text.trim_end());
    }
    println!(
        "\nwrote {}; `lockgate reload` takes it into use",
        path.display()
    );
    Ok(Exit::Yes)
}

/// Lists, prints or writes packs.
pub(crate) fn pack(command: PackCommand) -> anyhow::Result<Exit> {
    match command {
        PackCommand::List { json } => {
            for pack in PACKS {
                match json.json {
                    true => println!(
                        "{}",
                        serde_json::json!({ "name": pack.name, "summary": pack.summary() })
                    ),
                    false => println!("{:<14} {}", pack.name, pack.summary()),
                }
            }
        }
        PackCommand::Show {
            name,
            workload,
            target,
        } => {
            let pack = named(&name)?;
            match (workload, target) {
                (Some(workload), Some(target)) => {
                    let (workload, target) = (workload.into(), target.into());
                    print!("{}", pack.instantiate(&workload, &target));
                }
                _ => print!("{}", pack.text()),
            }
        }
        PackCommand::Install {
            name,
            workload,
            target,
            config,
        } => return install(named(&name)?, &workload, &target, &config.config),
    }
    Ok(Exit::Yes)
}

fn named(name: &str) -> anyhow::Result<&'static Pack> {
    if let Some(pack) = PACKS.iter().find(|pack| pack.name == name) {
        return Ok(pack);
    }
    let names = PACKS.iter().map(|pack| pack.name);
    bail!(
        "there is no pack `{name}`{}",
        super::server::hint(name, names)
    )
}

fn install(pack: &Pack, workload: &str, target: &str, config: &Path) -> anyhow::Result<Exit> {
    let before = loaded(config)?;
    let name = pack.name;
    // Before anything is written: these two become part of a file's name.
    super::server::target(&before.loaded.bundle.config, target)?;
    super::server::workload(&before.loaded.bundle.config, workload)?;
    let path = before
        .loaded
        .bundle
        .config
        .agent
        .policies
        .join(format!("{name}-{workload}-{target}.cedar"));
    if path.exists() {
        bail!("{} is there already", path.display());
    }
    let text = pack.instantiate(&workload.into(), &target.into());
    write_checked(config, &path, None, &text)?;
    println!(
        "wrote {}; read it, then `lockgate reload` takes it into use",
        path.display()
    );
    Ok(Exit::Yes)
}

fn loaded(config: &Path) -> anyhow::Result<Checked> {
    checked::load(config, 1).map_err(|findings| {
        super::print_findings(&findings);
        anyhow::anyhow!(
            "the configuration has errors; mend them first, so that this one is not blamed"
        )
    })
}

/// Writes `text`, checks everything as the agent will, and takes it back if that
/// finds an error: the set as a whole counts.
fn write_checked(config: &Path, path: &Path, old: Option<&str>, text: &str) -> anyhow::Result<()> {
    replace(path, text)?;
    let Err(findings) = checked::load(config, 1) else {
        return Ok(());
    };
    super::print_findings(&findings);
    match old {
        Some(old) => replace(path, old)?,
        None => std::fs::remove_file(path)?,
    }
    bail!("nothing was written");
}

/// In one step: a reload never sees half a file.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("cedar.new");
    let write = || {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // As one that was written by hand: what decides is no secret.
        file.set_permissions(PermissionsExt::from_mode(0o644))?;
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| path.display().to_string())
}
