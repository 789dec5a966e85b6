//! Tries, from within the sandbox of a role, what that role must not be able
//! to do, and what it must. For tests: `lockgate internal probe-ROLE SETUP`.

mod belongings;
mod call;

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use belongings::Belongings;
use call::{address, call, fork};
use lockgate_ipc::Role;
use serde::Serialize;

use crate::role::Setup;

/// One attempt.
#[derive(Serialize)]
struct Attempt {
    attempt: String,
    /// EPERM or EACCES, or as if the system call did not exist.
    denied: bool,
    errno: i32,
    /// Whether it came out as it must for this role.
    right: bool,
}

/// Enters the sandbox of `role` and prints one JSON object per attempt, then
/// waits for the end of its input, so that it can be looked at. True if each
/// came out as it should.
pub(crate) fn probe(role: Role, setup: &Setup) -> anyhow::Result<bool> {
    // What the parent hands over later, in a real agent.
    let belongings = Belongings::new()?;
    super::enter(role, setup)?;
    let mut probe = Probe {
        role,
        parent: setup.parent,
        attempts: Vec::new(),
    };
    probe.network();
    probe.processes();
    probe.kernel();
    probe.memory();
    probe.files(&setup.state_dir);
    belongings.try_out(&mut probe);
    let mut stdout = io::stdout().lock();
    for attempt in &probe.attempts {
        writeln!(stdout, "{}", serde_json::to_string(attempt)?)?;
    }
    stdout.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(probe.attempts.iter().all(|attempt| attempt.right))
}

struct Probe {
    role: Role,
    /// Some other process.
    parent: u32,
    attempts: Vec<Attempt>,
}

impl Probe {
    fn note(&mut self, attempt: &str, result: io::Result<()>, right: impl Fn(bool, i32) -> bool) {
        let errno = match &result {
            Ok(()) => 0,
            // Without a number it is an error of this program's own.
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let denied = [libc::EPERM, libc::EACCES, libc::ENOSYS].contains(&errno);
        self.attempts.push(Attempt {
            attempt: attempt.to_owned(),
            denied,
            errno,
            right: right(denied, errno),
        });
    }

    /// Must be denied to `roles`, and must get past the sandbox for the others
    /// (where nonsense arguments then fail in the kernel).
    fn forbidden(&mut self, roles: &[Role], attempt: &str, result: io::Result<()>) {
        let forbidden = roles.contains(&self.role);
        self.note(attempt, result, |denied, _| denied == forbidden);
    }

    /// Must work for `roles` and be denied to the others.
    fn works(&mut self, roles: &[Role], attempt: &str, result: io::Result<()>) {
        match roles.contains(&self.role) {
            true => self.note(attempt, result, |_, errno| errno == 0),
            false => self.note(attempt, result, |denied, _| denied),
        }
    }

    fn network(&mut self) {
        let unprivileged = &[Role::Proxy, Role::Keeper];
        let raw = call(
            libc::SYS_socket,
            &[libc::AF_INET as i64, libc::SOCK_RAW as i64, 6],
        );
        for (name, family) in [
            ("socket IPv4", libc::AF_INET),
            ("socket IPv6", libc::AF_INET6),
            ("socket unix", libc::AF_UNIX),
            ("socket netlink", libc::AF_NETLINK),
        ] {
            let stream = match family {
                libc::AF_NETLINK => libc::SOCK_RAW,
                _ => libc::SOCK_STREAM,
            };
            let made = call(libc::SYS_socket, &[family.into(), stream.into(), 0]);
            self.forbidden(unprivileged, name, made);
        }
        self.forbidden(ALL, "socket raw", raw);
        let packet = call(libc::SYS_socket, &[libc::AF_PACKET as i64, 3, 0]);
        self.forbidden(ALL, "socket packet", packet);
        let datagrams = call(
            libc::SYS_socketpair,
            &[libc::AF_UNIX as i64, libc::SOCK_DGRAM as i64, 0, 0],
        );
        self.forbidden(unprivileged, "socket pair of datagrams", datagrams);
        for (name, number) in [
            ("connect", libc::SYS_connect),
            ("bind", libc::SYS_bind),
            ("listen", libc::SYS_listen),
        ] {
            self.forbidden(unprivileged, name, call(number, &[-1, 0, 0]));
        }
        let accepted = call(libc::SYS_accept4, &[-1, 0, 0, 0]);
        self.forbidden(&[Role::Proxy], "accept", accepted);
    }

    fn processes(&mut self) {
        let parent = i64::from(self.parent);
        let program = c"/bin/true";
        let arguments = [address(program.to_bytes_with_nul()), 0];
        let argv = address(&arguments);
        let ran = call(libc::SYS_execve, &[arguments[0], argv, 0]);
        self.forbidden(ALL, "execve", ran);
        let ran = call(
            libc::SYS_execveat,
            &[libc::AT_FDCWD.into(), arguments[0], argv, 0, 0],
        );
        self.forbidden(ALL, "execveat", ran);
        self.forbidden(ALL, "fork", fork(0));
        self.forbidden(
            ALL,
            "clone into a user namespace",
            fork(libc::CLONE_NEWUSER),
        );
        self.forbidden(ALL, "clone3", call(libc::SYS_clone3, &[0, 0]));
        self.forbidden(ALL, "unshare", call(libc::SYS_unshare, &[0]));
        let attach = i64::from(libc::PTRACE_ATTACH);
        self.forbidden(
            ALL,
            "ptrace",
            call(libc::SYS_ptrace, &[attach, parent, 0, 0]),
        );
        for (name, number) in [
            ("process_vm_readv", libc::SYS_process_vm_readv),
            ("process_vm_writev", libc::SYS_process_vm_writev),
        ] {
            self.forbidden(ALL, name, call(number, &[parent, 0, 0, 0, 0, 0]));
        }
        self.forbidden(ALL, "kill", call(libc::SYS_kill, &[parent, 0]));
        self.forbidden(ALL, "tkill", call(libc::SYS_tkill, &[parent, 0]));
        let signalled = call(libc::SYS_tgkill, &[parent, parent, 0]);
        self.forbidden(ALL, "tgkill of another", signalled);
        let signalled = call(libc::SYS_pidfd_send_signal, &[-1, 0, 0, 0]);
        self.forbidden(ALL, "pidfd_send_signal", signalled);
        let taken = call(libc::SYS_pidfd_getfd, &[-1, 0, 0]);
        self.forbidden(ALL, "pidfd_getfd", taken);
        self.forbidden(ALL, "setuid", call(libc::SYS_setuid, &[0]));
        self.forbidden(ALL, "setgroups", call(libc::SYS_setgroups, &[0, 0]));
        let own = i64::from(std::process::id());
        let signalled = call(libc::SYS_tgkill, &[own, own, 0]);
        self.works(ALL, "tgkill of itself", signalled);
    }

    fn kernel(&mut self) {
        let unprivileged = &[Role::Proxy, Role::Keeper];
        for (name, number) in [
            ("bpf", libc::SYS_bpf),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("setns", libc::SYS_setns),
        ] {
            self.forbidden(unprivileged, name, call(number, &[-1, 0, 0, 0, 0]));
        }
        for (name, number) in [
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("mount", libc::SYS_mount),
            ("umount", libc::SYS_umount2),
            ("fsopen", libc::SYS_fsopen),
            ("open_tree", libc::SYS_open_tree),
            ("move_mount", libc::SYS_move_mount),
            ("pivot_root", libc::SYS_pivot_root),
            ("chroot", libc::SYS_chroot),
            ("init_module", libc::SYS_init_module),
            ("kexec_load", libc::SYS_kexec_load),
            ("keyctl", libc::SYS_keyctl),
            ("clock_settime", libc::SYS_clock_settime),
            ("sethostname", libc::SYS_sethostname),
        ] {
            self.forbidden(ALL, name, call(number, &[-1, 0, 0, 0, 0]));
        }
    }

    fn memory(&mut self) {
        let executable = i64::from(libc::PROT_READ | libc::PROT_EXEC);
        let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let mapped = call(libc::SYS_mmap, &[0, 4096, executable, private, -1, 0]);
        self.forbidden(ALL, "map executable memory", mapped);
        let changed = call(libc::SYS_mprotect, &[0, 4096, executable]);
        self.forbidden(ALL, "make memory executable", changed);
        let dumpable = call(libc::SYS_prctl, &[libc::PR_SET_DUMPABLE.into(), 1]);
        self.forbidden(&[Role::Proxy, Role::Keeper], "become dumpable", dumpable);
    }

    fn files(&mut self, state: &Path) {
        let keeper = &[Role::Keeper];
        let gate = &[Role::Gate];
        self.works(gate, "read /etc/passwd", fs::read("/etc/passwd").map(drop));
        self.works(gate, "read /proc/self/status", {
            fs::read("/proc/self/status").map(drop)
        });
        let another = format!("/proc/{}/exe", self.parent);
        self.works(gate, "see another's executable", {
            fs::read_link(another).map(drop)
        });
        let temporary = std::env::temp_dir().join("lockgate-probe");
        self.works(&[], "write a temporary file", fs::write(&temporary, "x"));
        self.works(&[], "change a mode", {
            fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o1777))
        });
        let file = state.join("probe");
        self.works(keeper, "write the state folder", fs::write(&file, "x"));
        self.works(keeper, "rename in the state folder", {
            fs::rename(&file, state.join("probe.renamed"))
        });
        self.works(&[], "link in the state folder", {
            std::os::unix::fs::symlink("/etc/passwd", state.join("probe.link"))
        });
        // gate reads everywhere and makes folders, for its pins.
        if self.role != Role::Gate {
            let renamed = fs::read(state.join("probe.renamed"));
            self.works(keeper, "read the state folder", renamed.map(drop));
            let made = fs::create_dir(state.join("probe.dir"));
            self.works(keeper, "make a folder in the state folder", made);
            let beside = fs::read(state.join("../beside"));
            self.works(&[], "read beside the state folder", beside.map(drop));
        }
    }
}

const ALL: &[Role] = &[Role::Gate, Role::Proxy, Role::Keeper];
