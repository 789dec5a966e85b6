use std::path::Path;

use anyhow::{Context, bail};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::role::Setup;

/// Becomes the role's own user, without any capability, and loses the file
/// system but for `writable`.
pub(super) fn enter(setup: &Setup, writable: Option<&Path>) -> anyhow::Result<()> {
    let Some((uid, gid)) = setup.user else {
        bail!("this role has no user of its own");
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).context("setgroups")?;
    setresgid(gid, gid, gid).context("setresgid")?;
    // From here on there are no capabilities either.
    setresuid(uid, uid, uid).context("setresuid")?;
    landlock(writable).context("Landlock")
}

fn landlock(writable: Option<&Path>) -> anyhow::Result<()> {
    // As much as this kernel knows of what the newest one does.
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?;
    let mut ruleset = ruleset.create()?;
    if let Some(path) = writable {
        // Plain files and folders: no programs, devices, links, sockets.
        let plain = AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, plain))?;
    }
    if ruleset.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        tracing::warn!(
            "this kernel has no Landlock; the file system stays readable as far as its modes allow"
        );
    }
    Ok(())
}
