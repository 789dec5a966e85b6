use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the kernel attested about the process behind a connection, and what
/// gate read about it from /proc. Claims are marked as such and never decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where the client wanted to connect to; a v4-mapped address is given as
    /// IPv4.
    pub original: SocketAddr,
    /// The client's own address as the listener saw it.
    pub client: SocketAddr,
    /// Process id (thread group) in the host's pid namespace.
    pub tgid: u32,
    /// Thread that called connect.
    pub tid: u32,
    /// Real uid and gid in the initial user namespace: a setuid program keeps its
    /// caller.
    pub uid: u32,
    /// See `uid`.
    pub gid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Path of that cgroup below the cgroup lockgate is attached to, such as
    /// `/system.slice/nightly-report.service`; none if it is gone.
    pub cgroup: Option<String>,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// CLOCK_MONOTONIC at connect, in nanoseconds.
    pub connected_ns: u64,
    /// Which execution of which process.
    pub exec: ExecKey,
    /// The running image; none if it could not be attested.
    pub executable: Option<Executable>,
    /// Parent first, up to 16 or to pid 1.
    pub ancestors: Vec<Ancestor>,
    /// Claim: the argument vector, up to 4 KiB, without the values: names of
    /// options and paths of files stay, the rest is `…`.
    pub argv: Vec<String>,
    /// Label for people: the kernel's comm.
    pub comm: String,
}

/// Names one execution: a process keeps its pid over execve, not this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExecKey {
    /// Thread group id.
    pub tgid: u32,
    /// CLOCK_MONOTONIC at fork, ns; 0 for a process older than the tracepoints.
    pub start_ns: u64,
    /// CLOCK_MONOTONIC at the last execve, ns; inherited over fork.
    pub exec_ns: u64,
}

/// An executable file as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// Path as the kernel names it (/proc/PID/exe).
    pub path: PathBuf,
    /// SHA-256 of the content; none if a limit of time or size was reached.
    pub sha256: Option<[u8; 32]>,
}

/// A process above the connecting one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Process id.
    pub tgid: u32,
    /// Path of its executable; none if it is gone.
    pub executable: Option<PathBuf>,
}
