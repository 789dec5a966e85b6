//! What each role gives up at its start, before it reads a byte.
//!
//! | | user | capabilities | files (Landlock) | system calls (seccomp) |
//! | --- | --- | --- | --- | --- |
//! | gate | root | nine, see [`gate`] | as root without overriding modes | all but a list |
//! | proxy | own | none | none | a list; no socket, no open |
//! | keeper | own | none | its state folder | a list; no socket |
//!
//! For all: no new privileges, no core dumps, not traceable by others.

mod gate;
mod probe;
mod seccomp;
mod unprivileged;

use anyhow::Context;
use lockgate_ipc::Role;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

pub(crate) use probe::probe;

use crate::role::Setup;

/// Gives up what `role` does not need. What cannot be given up is an error,
/// except where the kernel has no Landlock: there the rest must do, and
/// `lockgate doctor` says so.
pub(crate) fn enter(role: Role, setup: &Setup) -> anyhow::Result<()> {
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("RLIMIT_CORE")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match role {
        Role::Gate => gate::enter()?,
        Role::Proxy => unprivileged::enter(setup, None)?,
        Role::Keeper => unprivileged::enter(setup, Some(&setup.state_dir))?,
    }
    // After the change of user, which sets it again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")?;
    seccomp::apply(role).context("seccomp")
}
