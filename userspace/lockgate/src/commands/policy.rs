use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_command::WorkloadName;

use crate::checked;
use crate::exit::Exit;

/// Name of the file that `policy allow` writes to.
const FILE: &str = "allowed.cedar";

/// Writes the policies that let a workload do something.
pub(crate) fn allow(
    workload: &str,
    verb: &str,
    resource: &str,
    config: &Path,
    print: bool,
) -> anyhow::Result<Exit> {
    let name = WorkloadName::from(workload);
    if print {
        print!("{}", lockgate_policy::allow_policy(&name, verb, resource)?);
        return Ok(Exit::Yes);
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
    let path = before.loaded.bundle.config.agent.policies.join(FILE);
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
        std::fs::rename(&fresh, path)
    };
    write().with_context(|| path.display().to_string())
}
