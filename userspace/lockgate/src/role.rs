use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use anyhow::Context;
use lockgate_config::LogFormat;
use lockgate_ipc::Role;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::sandbox;

/// What a child is told on its command line: numbers of descriptors it
/// inherits, and names. Never a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Descriptor of the channel to the parent.
    pub(crate) channel: RawFd,
    /// The parent's pid: a child that finds another one was orphaned.
    pub(crate) parent: u32,
    /// uid and gid to run as; none to stay.
    pub(crate) user: Option<(u32, u32)>,
    /// Of the agent.
    pub(crate) state_dir: PathBuf,
    /// keeper: descriptor of the metrics listener.
    pub(crate) metrics: Option<RawFd>,
    /// Name of the host in the record.
    pub(crate) host: String,
    /// Boot id.
    pub(crate) boot: Uuid,
    /// Form of log lines.
    pub(crate) log: LogFormat,
}

/// One of the three processes, from its start to its end.
pub(crate) fn run(role: Role, setup: Setup) -> anyhow::Result<()> {
    crate::log::start(setup.log);
    let channel = inherited(setup.channel);
    let metrics = setup
        .metrics
        .map(|fd| std::net::TcpListener::from(inherited(fd)));
    sandbox::enter(role, &setup).with_context(|| format!("the sandbox of {}", role.as_str()))?;
    match role {
        Role::Gate => lockgate_gate::run(channel),
        Role::Proxy => lockgate_proxy::run(channel),
        Role::Keeper => {
            let Setup {
                state_dir,
                host,
                boot,
                ..
            } = setup;
            let setup = lockgate_keeper::Setup {
                state_dir,
                metrics,
                host,
                boot,
            };
            lockgate_keeper::run(channel, setup)
        }
    }
}

#[allow(unsafe_code)]
fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the parent made this descriptor for this process alone and gave
    // its number; nothing else here knows it, and each is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // Whatever this process may start later must not have it.
    let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
    fd
}
