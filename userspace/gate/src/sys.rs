//! The system calls that no crate here offers.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `SO_NETNS_COOKIE` (Linux 5.14): the cookie of a socket's network namespace.
pub(crate) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: c_int = 71;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are to locals of the sizes given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Opens the folder of a cgroup by its id (`open_by_handle_at` with a handle of
/// kernfs). `mount` is any folder of the hierarchy. Needs CAP_DAC_READ_SEARCH.
pub(crate) fn open_cgroup(mount: impl AsFd, id: u64) -> io::Result<OwnedFd> {
    /// `FILEID_KERNFS` in the kernel's exportfs.h.
    const FILEID_KERNFS: c_int = 0xfe;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: c_int,
        id: u64,
    }
    let mut handle = Handle {
        bytes: 8,
        kind: FILEID_KERNFS,
        id,
    };
    // SAFETY: the handle has the layout of struct file_handle with eight bytes
    // of f_handle, and lives over the call.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_fd().as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Ids of the programs that are attached to a cgroup itself, in the order in
/// which they run (`BPF_PROG_QUERY`). Needs CAP_NET_ADMIN or CAP_SYS_ADMIN.
pub(crate) fn attached_to(cgroup: impl AsFd, attach_type: u32) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: c_int = 16;
    #[repr(C)]
    struct Query {
        cgroup: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
    }
    let mut ids = vec![0u32; 256];
    let mut query = Query {
        cgroup: cgroup.as_fd().as_raw_fd() as u32,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: the kernel writes at most `count` ids, and into `query`, both of
    // which live over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    ids.truncate(query.count as usize);
    Ok(ids)
}

/// Lets the calling thread run before all others that are not of the kernel's
/// (`SCHED_FIFO` at its lowest, sched(7)), or at least before most of them.
pub(crate) fn go_first() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter is read during the call only.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) };
    if result != 0 {
        // Without the right to that, neither.
        let _ = rustix::process::setpriority_process(None, -20);
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether the namespace behind `file` belongs to the user namespace of this
/// process (`NS_GET_USERNS`, ioctl_ns(2)). One that does not was made by somebody
/// who need not be root here: he decides what is mounted, or routed, in it.
pub(crate) fn is_made_by_root(file: impl AsFd) -> io::Result<bool> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    let owner = unsafe { OwnedFd::from_raw_fd(fd) };
    let own = std::fs::metadata("/proc/self/ns/user")?;
    let of = std::fs::File::from(owner).metadata()?;
    use std::os::unix::fs::MetadataExt;
    Ok((of.dev(), of.ino()) == (own.dev(), own.ino()))
}
