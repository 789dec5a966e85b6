//! What each role gives up at its start, before it reads a byte.
//!
//! | | user | capabilities | files (Landlock) | system calls (seccomp) |
//! | --- | --- | --- | --- | --- |
//! | gate | root | eight, see `gate` | opens none for writing (seccomp) | all but a list |
//! | proxy | own | none | none | a list; no socket, no open |
//! | keeper | own | none | its state folder | a list; no socket |
//!
//! For all: no new privileges, no core dumps, not traceable by others, no
//! programs, no processes, no new code in memory, ended with the parent.

mod gate;
mod probe;
mod seccomp;
mod unprivileged;

use anyhow::{Context, bail};
use lockgate_ipc::Role;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};

pub(crate) use probe::probe;

use crate::role::Setup;

/// Descriptors a role may hold: two for each connection, and some.
const DESCRIPTORS: u64 = 1 << 20;

/// Gives up what `role` does not need. What cannot be given up is an error,
/// except where the kernel has no Landlock: there the rest must do, and
/// `lockgate doctor` says so.
pub(crate) fn enter(role: Role, setup: &Setup) -> anyhow::Result<()> {
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    keep_memory_private()?;
    // Where even root may not raise it (fs.nr_open, a container), what there
    // is must do; the limit on connections then is this one.
    let many = Rlimit {
        current: Some(DESCRIPTORS),
        maximum: Some(DESCRIPTORS),
    };
    if setrlimit(Resource::Nofile, many).is_err() {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        let all = Rlimit {
            current: hard,
            maximum: hard,
        };
        setrlimit(Resource::Nofile, all).context("RLIMIT_NOFILE")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    match role {
        Role::Gate => gate::enter()?,
        Role::Proxy => unprivileged::enter(setup, None)?,
        Role::Keeper => unprivileged::enter(setup, Some(&setup.state_dir))?,
    }
    // The change of user undoes both of these.
    die_with_parent(setup.parent)?;
    keep_memory_private()?;
    seccomp::apply(role).context("seccomp")
}

/// No core dumps, and no look by others of its user: for the parent, too, which
/// reads the secrets.
pub(crate) fn keep_memory_private() -> anyhow::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("RLIMIT_CORE")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")
}

/// A role without its parent would serve nobody and hold the kernel's lease.
fn die_with_parent(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("PR_SET_PDEATHSIG")?;
    if std::os::unix::process::parent_id() != parent {
        bail!("the parent has ended already");
    }
    Ok(())
}
