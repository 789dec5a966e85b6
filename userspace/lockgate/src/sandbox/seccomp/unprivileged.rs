//! What proxy and keeper may do; everything else fails.

use super::rule::When;

const AF_UNIX: u64 = libc::AF_UNIX as u64;
const STREAM: u64 = libc::SOCK_STREAM as u64;
const EXEC: u64 = libc::PROT_EXEC as u64;
const FIONBIO: u64 = libc::FIONBIO;
const FIONREAD: u64 = libc::FIONREAD;
const FIOCLEX: u64 = libc::FIOCLEX;
const TCGETS: u64 = libc::TCGETS;
const THREAD: u64 = libc::CLONE_THREAD as u64;
/// prctl(2): names an anonymous mapping.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// Every flag of clone(2) that makes a namespace.
const NAMESPACES: u64 = 0x7e02_0000;

/// What a program of Rust, glibc and tokio does all day, and nothing that
/// reaches out of the process. `own` is its pid.
pub(super) fn all_day(own: u32) -> Vec<(i64, When)> {
    let mut allowed: Vec<(i64, When)> = ALWAYS.iter().map(|call| (*call, When::Always)).collect();
    allowed.extend([
        // Threads, but neither processes nor namespaces. The arguments of
        // clone3 cannot be seen: it is answered as if it did not exist, and
        // glibc takes clone.
        (
            libc::SYS_clone,
            When::Masked(0, THREAD | NAMESPACES, THREAD),
        ),
        (libc::SYS_clone3, When::Always),
        // No code but what is there.
        (libc::SYS_mmap, When::Masked(2, EXEC, 0)),
        (libc::SYS_mprotect, When::Masked(2, EXEC, 0)),
        // Signals to itself alone.
        (libc::SYS_tgkill, When::IsNow(0, own)),
        // A pair is connected to itself; a datagram socket could be sent to
        // any other's.
        (
            libc::SYS_socketpair,
            When::Both((0, !0, AF_UNIX), (1, 0xff, STREAM)),
        ),
        (
            libc::SYS_ioctl,
            When::Is(1, &[FIONBIO, FIONREAD, FIOCLEX, TCGETS]),
        ),
        (
            libc::SYS_prctl,
            When::Is(
                0,
                &[
                    libc::PR_SET_NAME as u64,
                    libc::PR_GET_NAME as u64,
                    PR_SET_VMA,
                ],
            ),
        ),
        // To read limits of its own, not to set any.
        (libc::SYS_prlimit64, When::Both((0, !0, 0), (2, !0, 0))),
    ]);
    allowed
}

const ALWAYS: &[i64] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    // Threads and time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals: handlers and masks.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Descriptors that are there already.
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // Sockets that are there already, all of them connected. (Not narrowed by
    // arguments: these are asked for with each query, and the kernel decides
    // on calls without conditions by a bitmap.)
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_uname,
];

/// keeper's own: files below its state folder (by Landlock), clients of the
/// metrics endpoint, memory that is not swapped, the priority of its threads.
pub(super) const KEEPER: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_flock,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_mkdirat,
    libc::SYS_mlockall,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_setpriority,
    libc::SYS_sysinfo,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];
