#![allow(unsafe_code)]

use std::io;

/// One system call by its number. The attempts pass numbers, null, and
/// pointers to what outlives the call; none lets the kernel write.
pub(super) fn call(number: i64, arguments: &[i64]) -> io::Result<()> {
    let mut padded = [0; 6];
    padded[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = padded;
    // SAFETY: see above: the attempts are chosen so that one that is let
    // through changes nothing that this program relies on.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Where something is, as an argument.
pub(super) fn address<T>(what: &[T]) -> i64 {
    what.as_ptr() as i64
}

/// A new process, which ends at once.
pub(super) fn fork(flags: i32) -> io::Result<()> {
    let flags = i64::from(flags | libc::SIGCHLD);
    // SAFETY: as fork(2); the child makes one async-signal-safe call.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: ends the child without running anything of this program.
        0 => unsafe { libc::_exit(0) },
        _ => Ok(()),
    }
}

/// Maps a page of `file` as shared, writes to it and syncs it.
pub(super) fn map_shared(file: &std::fs::File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of a file of at least one page, written within
    // that page and unmapped before anything else could use it.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        at.cast::<u8>().write(1);
        let synced = libc::msync(at, 4096, libc::MS_SYNC);
        libc::munmap(at, 4096);
        match synced {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
