//! The records that the eBPF programs and the gate share.
//!
//! Every record is `repr(C)` without implicit padding, and its size and
//! offsets are asserted below, at compile time, on both sides. [`VERSION`]
//! stands in every record that outlives a program: a gate of another version
//! does not resume its maps.
#![no_std]

/// Version of everything in this file.
pub const VERSION: u8 = 3;

/// Names of maps, as in the object and below the pin folder.
pub mod maps {
    /// Protected IPv4 destinations: [`super::Key4`] → 1.
    pub const PROTECTED4: &str = "PROTECTED4";
    /// Protected IPv6 destinations: [`super::Key6`] → 1.
    pub const PROTECTED6: &str = "PROTECTED6";
    /// One u64: CLOCK_MONOTONIC nanoseconds until which the gate is alive.
    pub const LEASE: &str = "LEASE";
    /// Network namespace cookie → [`super::Listener`].
    pub const LISTENERS: &str = "LISTENERS";
    /// Ports of listeners, in host order → 1.
    pub const LISTENER_PORTS: &str = "LISTENER_PORTS";
    /// Sockets of the gate itself → [`super::exempt`].
    pub const EXEMPT: &str = "EXEMPT";
    /// Socket → [`super::Origin`], from connect on.
    pub const ORIGINS: &str = "ORIGINS";
    /// [`super::Flow`] → [`super::Origin`], from before the SYN on.
    pub const FLOWS: &str = "FLOWS";
    /// Thread group id → [`super::Process`].
    pub const PROCESSES: &str = "PROCESSES";
    /// Ring buffer of [`super::Refusal`].
    pub const REFUSALS: &str = "REFUSALS";
    /// Ring buffer of [`super::Exec`].
    pub const EXECS: &str = "EXECS";
    /// Per processor, u64s by [`super::lost`]: records that found their ring
    /// buffer full.
    pub const LOST: &str = "LOST";
}

/// Names of globals that the gate sets before loading.
pub mod globals {
    /// Offset of `child_pid` in the record of sched_process_fork. It differs
    /// between kernels; the gate reads it from tracefs.
    pub const FORK_CHILD_PID: &str = "FORK_CHILD_PID";
}

/// Values of [`maps::EXEMPT`].
pub mod exempt {
    /// The gate's own: not redirected, may bind a listener's port.
    pub const GATE: u8 = 1;
    /// The gate has connected it and given it away: what it sends leaves, but
    /// it connects to nothing else.
    pub const DIALLED: u8 = 2;
}

/// Indexes of [`maps::LOST`].
pub mod lost {
    /// Records of [`super::Refusal`].
    pub const REFUSALS: u32 = 0;
    /// Records of [`super::Exec`].
    pub const EXECS: u32 = 1;
}

/// IPPROTO_MPTCP.
pub const MPTCP: u32 = 262;

/// Data of an LPM key for IPv4: port, then address, both in network order, so
/// that a prefix of 16 + n bits is an exact port and a range of addresses.
/// Port 0 stands for every port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key4 {
    /// Network order.
    pub port: [u8; 2],
    /// Network order.
    pub address: [u8; 4],
}

/// As [`Key4`], for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key6 {
    /// Network order.
    pub port: [u8; 2],
    /// Network order.
    pub address: [u8; 16],
}

/// Where the gate listens in one network namespace, on 127.0.0.1 and ::1.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Host order.
    pub port4: u16,
    /// Host order; 0 where the namespace has no IPv6.
    pub port6: u16,
}

/// AF_INET in [`Flow::family`] and [`Origin::family`].
pub const INET: u16 = 2;
/// AF_INET6.
pub const INET6: u16 = 10;

/// One TCP connection as its two ends agree on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Of the network namespace.
    pub netns_cookie: u64,
    /// The client's address; IPv4 and v4-mapped in the first four bytes.
    pub address: [u8; 16],
    /// [`INET`] or [`INET6`]; a v4-mapped socket counts as INET.
    pub family: u16,
    /// The client's port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u32,
}

/// Who connects, and where to, as the kernel knows it at connect(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// [`VERSION`].
    pub version: u8,
    /// Zero.
    pub reserved: u8,
    /// [`INET`] or [`INET6`]; v4-mapped counts as INET.
    pub family: u16,
    /// Whether the socket itself is IPv6, so that a v4-mapped address is given
    /// back by getpeername.
    pub socket_family: u16,
    /// Original port, host order.
    pub port: u16,
    /// Original address; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Thread group id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Real uid, initial user namespace.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
    /// cgroup v2.
    pub cgroup_id: u64,
    /// Network namespace.
    pub netns_cookie: u64,
    /// CLOCK_MONOTONIC, ns.
    pub connected_ns: u64,
    /// See [`Process`]; zero if the process was not known.
    pub start_ns: u64,
    /// See [`Process`].
    pub exec_ns: u64,
    /// See [`Process`].
    pub exec_tgid: u32,
    /// Zero.
    pub reserved_end: u32,
    /// For people.
    pub comm: [u8; 16],
}

/// What the tracepoints know of a process.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// CLOCK_MONOTONIC at fork, ns; 1 for one that was there before.
    pub start_ns: u64,
    /// CLOCK_MONOTONIC at the last execve, ns; inherited over fork; 1 for an
    /// image that was there before, 0 for one that is not known or, while
    /// execve is under way, not decided.
    pub exec_ns: u64,
    /// Who called that execve: with `exec_ns` it names the image, which
    /// children share until they call execve themselves. 0 where `exec_ns` is
    /// 0 or 1.
    pub exec_tgid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A process has a new image.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// [`VERSION`].
    pub version: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Thread group id.
    pub tgid: u32,
    /// See [`Process`].
    pub start_ns: u64,
    /// See [`Process`].
    pub exec_ns: u64,
}

/// Something the kernel refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`VERSION`].
    pub version: u8,
    /// One of [`reason`].
    pub reason: u8,
    /// [`INET`] or [`INET6`].
    pub family: u16,
    /// Port, host order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// Address; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Thread group id.
    pub tgid: u32,
    /// Real uid.
    pub uid: u32,
    /// Network namespace.
    pub netns_cookie: u64,
    /// CLOCK_MONOTONIC, ns.
    pub at_ns: u64,
}

/// Values of [`Refusal::reason`].
pub mod reason {
    /// The lease has run out: lockgate is down.
    pub const DOWN: u8 = 1;
    /// No listener in the caller's network namespace.
    pub const NAMESPACE: u8 = 2;
    /// Not TCP.
    pub const NOT_TCP: u8 = 3;
    /// bind to a listener's port.
    pub const BIND: u8 = 4;
    /// A multipath or raw TCP socket.
    pub const SOCKET: u8 = 5;
    /// The origin could not be kept.
    pub const STORAGE: u8 = 6;
    /// A packet that would begin something past connect(2).
    pub const PACKET: u8 = 7;

    /// For metrics and logs.
    pub const fn name(reason: u8) -> &'static str {
        match reason {
            DOWN => "down",
            NAMESPACE => "namespace",
            NOT_TCP => "not_tcp",
            BIND => "bind",
            SOCKET => "socket",
            STORAGE => "storage",
            PACKET => "packet",
            _ => "unknown",
        }
    }
}

const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Key4>() == 6 && align_of::<Key4>() == 1);
    assert!(size_of::<Key6>() == 18 && align_of::<Key6>() == 1);
    assert!(size_of::<Listener>() == 4);
    assert!(size_of::<Flow>() == 32 && offset_of!(Flow, family) == 24);
    assert!(size_of::<Origin>() == 104);
    assert!(offset_of!(Origin, address) == 8 && offset_of!(Origin, tgid) == 24);
    assert!(offset_of!(Origin, cgroup_id) == 40 && offset_of!(Origin, exec_tgid) == 80);
    assert!(offset_of!(Origin, comm) == 88);
    assert!(size_of::<Process>() == 24 && offset_of!(Process, exec_tgid) == 16);
    assert!(size_of::<Exec>() == 24 && offset_of!(Exec, start_ns) == 8);
    assert!(size_of::<Refusal>() == 48 && offset_of!(Refusal, netns_cookie) == 32);
};

#[cfg(feature = "user")]
mod user {
    macro_rules! pod {
        ($($record:ty),*) => {
            $(
                // SAFETY: repr(C), Copy, made of integers only, and without
                // padding: the sizes above are the sums of the fields'.
                unsafe impl aya::Pod for $record {}
            )*
        };
    }
    pod!(
        super::Key4,
        super::Key6,
        super::Listener,
        super::Flow,
        super::Origin,
        super::Process,
        super::Refusal,
        super::Exec
    );
}
