use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_command::WorkloadName;

use crate::checked;
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
    let before = match checked::load(config, 1) {
        Ok(checked) => checked,
        Err(findings) => {
            super::print_findings(&findings);
            bail!("the configuration has errors; mend them first, so that this one is not blamed");
        }
    };
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
    replace(&path, &text)?;
    // Written first, then checked as the agent will: the set as a whole counts.
    if let Err(findings) = checked::load(config, 1) {
        super::print_findings(&findings);
        match old {
            Some(old) => replace(&path, &old)?,
            None => std::fs::remove_file(&path)?,
        }
        bail!("nothing was written");
    }
    for policy in &missing {
        println!("{}", policy.text.trim_end());
    }
    println!(
        "\nwrote {}; `lockgate reload` takes it into use",
        path.display()
    );
    Ok(Exit::Yes)
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
