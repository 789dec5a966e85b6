//! Tries, from within the sandbox of a role, what that role must not be able
//! to do, and what it must.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::Write;
use std::path::Path;

use lockgate_ipc::Role;
use serde::Serialize;

use crate::role::Setup;

/// One attempt.
#[derive(Serialize)]
struct Attempt {
    attempt: &'static str,
    /// Whether the role must be able to.
    wanted: bool,
    worked: bool,
    errno: i32,
}

/// Enters the sandbox of `role` and prints one JSON object per attempt. True
/// if each came out as it should.
pub(crate) fn probe(role: Role, setup: &Setup) -> anyhow::Result<bool> {
    let shared = tempfile_in(&std::env::temp_dir())?;
    super::enter(role, setup)?;
    let mut attempts = Vec::new();
    let mut attempt = |attempt, wanted, result: std::io::Result<()>| {
        let errno = result
            .as_ref()
            .err()
            .and_then(std::io::Error::raw_os_error)
            .unwrap_or(0);
        attempts.push(Attempt {
            attempt,
            wanted,
            worked: result.is_ok(),
            errno,
        });
    };
    let gate = role == Role::Gate;
    let keeper = role == Role::Keeper;
    // SAFETY: plain system calls with constant arguments, or with pointers to
    // what lives over the call; their results are only looked at.
    unsafe {
        attempt("socket IPv4", gate, call(libc::SYS_socket, [2, 1, 0, 0]));
        attempt("socket IPv6", gate, call(libc::SYS_socket, [10, 1, 0, 0]));
        attempt("socket unix", gate, call(libc::SYS_socket, [1, 1, 0, 0]));
        attempt(
            "connect",
            false,
            expect_errno(call(libc::SYS_connect, [-1, 0, 0, 0]), libc::EBADF),
        );
        attempt(
            "bind",
            false,
            expect_errno(call(libc::SYS_bind, [-1, 0, 0, 0]), libc::EBADF),
        );
        let path = c"/bin/true";
        let argv = [path.as_ptr(), std::ptr::null()];
        attempt(
            "execve",
            false,
            call(
                libc::SYS_execve,
                [path.as_ptr() as i64, argv.as_ptr() as i64, 0, 0],
            ),
        );
        attempt(
            "ptrace",
            false,
            call(libc::SYS_ptrace, [16, i64::from(libc::getppid()), 0, 0]),
        );
        attempt(
            "process_vm_readv",
            false,
            expect_errno(call(libc::SYS_process_vm_readv, [1, 0, 0, 0]), libc::EINVAL),
        );
        attempt(
            "kill the parent",
            gate,
            call(libc::SYS_kill, [i64::from(libc::getppid()), 0, 0, 0]),
        );
        attempt(
            "io_uring",
            false,
            expect_errno(call(libc::SYS_io_uring_setup, [1, 0, 0, 0]), libc::EFAULT),
        );
        attempt(
            "mount",
            false,
            expect_errno(call(libc::SYS_mount, [0, 0, 0, 0]), libc::EFAULT),
        );
        attempt("unshare", gate, call(libc::SYS_unshare, [0, 0, 0, 0]));
        attempt(
            "bpf",
            gate,
            expect_errno(call(libc::SYS_bpf, [0, 0, 0, 0]), libc::EINVAL),
        );
        attempt("setuid 0", gate, call(libc::SYS_setuid, [0, 0, 0, 0]));
        attempt("map a shared file", true, map_shared(&shared));
    }
    attempt(
        "read /etc/passwd",
        gate,
        std::fs::read("/etc/passwd").map(drop),
    );
    attempt(
        "write /tmp",
        gate,
        write(&std::env::temp_dir().join("lockgate-probe")),
    );
    attempt(
        "write the state folder",
        keeper || gate,
        write(&setup.state_dir.join("probe")),
    );
    attempt(
        "start a thread",
        true,
        std::thread::Builder::new().spawn(|| {}).map(|thread| {
            let _ = thread.join();
        }),
    );
    attempt(
        "memfd",
        true,
        lockgate_ipc::to_memfd("probe", b"x").map(drop),
    );
    // gate has a shell of its own sockets, so these are for the other two.
    if gate {
        attempts.retain(|tried| !matches!(tried.attempt, "connect" | "bind"));
    }
    let mut right = true;
    for attempt in &attempts {
        right &= attempt.worked == attempt.wanted;
        println!("{}", serde_json::to_string(attempt)?);
    }
    Ok(right)
}

/// # Safety
/// As the system call itself.
unsafe fn call(number: i64, arguments: [i64; 4]) -> std::io::Result<()> {
    let [a, b, c, d] = arguments;
    // SAFETY: the caller's.
    match unsafe { libc::syscall(number, a, b, c, d, 0, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A call with nonsense that would be let through fails with `errno` rather
/// than EPERM.
fn expect_errno(result: std::io::Result<()>, errno: i32) -> std::io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}

fn map_shared(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: a new mapping of a file that is large enough; unmapped below.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            3,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        libc::munmap(at, 4096);
    }
    Ok(())
}

fn write(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(b"x")?;
    std::fs::remove_file(path)
}

fn tempfile_in(folder: &Path) -> anyhow::Result<std::fs::File> {
    let name = CString::new(folder.to_string_lossy().into_owned())?;
    let fd = rustix::fs::open(
        name.as_c_str(),
        rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::from_raw_mode(0o600),
    )?;
    let file = std::fs::File::from(fd);
    file.set_len(4096)?;
    Ok(file)
}
