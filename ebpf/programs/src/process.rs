//! Which execution of which process: a pid is used again, and a process keeps
//! its pid over execve; what is kept here tells them apart.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use lockgate_abi::{Exec, Process, VERSION, lost};

use crate::maps::{EXECS, PROCESSES};
use crate::refusal::count_lost;

/// Offset of `child_pid`; set by the gate, since it differs between kernels.
#[unsafe(no_mangle)]
static FORK_CHILD_PID: u32 = 44;

/// Offset of `old_pid` in sched_process_exec's record, behind `filename` and
/// `pid`: the same on all kernels since Linux 3.4.
const EXEC_OLD_PID: usize = 16;

/// Runs in the parent. Fires for threads, too; their entries do no harm and go
/// with them.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn lockgate_fork(ctx: TracePointContext) -> u32 {
    // SAFETY: the loader may have changed it, so it must be read as it is.
    let offset = unsafe { core::ptr::read_volatile(&raw const FORK_CHILD_PID) } as usize;
    // SAFETY: read by a helper that fails where there is nothing.
    let Ok(child) = (unsafe { ctx.read_at::<u32>(offset) }) else {
        return 0;
    };
    let (start_ns, exec_ns, exec_tgid) = known(ctx.tgid());
    if start_ns == 0 {
        // Nor is the child of one that is not known; the gate learns of it when
        // it connects. An older one may have had its pid.
        let _ = PROCESSES.remove(child);
        return 0;
    }
    keep(
        child,
        Process {
            start_ns: now(),
            exec_ns,
            exec_tgid,
            reserved: 0,
        },
    );
    0
}

/// Before the old image goes, when nothing but the new one or death can follow
/// (Linux 6.10). What /proc shows from here on is not what connected before, so
/// nothing may be attested by it.
#[tracepoint(category = "sched", name = "sched_prepare_exec")]
pub fn lockgate_prepare(ctx: TracePointContext) -> u32 {
    let tgid = ctx.tgid();
    let (start_ns, exec_ns, _) = known(tgid);
    if exec_ns != 0 {
        keep(
            tgid,
            Process {
                start_ns,
                exec_ns: 0,
                exec_tgid: 0,
                reserved: 0,
            },
        );
    }
    0
}

#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn lockgate_exec(ctx: TracePointContext) -> u32 {
    let tgid = ctx.tgid();
    // A thread that is not the first takes the first one's place and number; no
    // exit tells of its own.
    // SAFETY: read by a helper that fails where there is nothing.
    if let Ok(before) = unsafe { ctx.read_at::<u32>(EXEC_OLD_PID) }
        && before != tgid
    {
        let _ = PROCESSES.remove(before);
    }
    let exec_ns = now();
    let start_ns = match known(tgid) {
        (0, _, _) => exec_ns,
        (start_ns, _, _) => start_ns,
    };
    keep(
        tgid,
        Process {
            start_ns,
            exec_ns,
            exec_tgid: tgid,
            reserved: 0,
        },
    );
    // The gate looks at the image at once, so that it knows it when the process
    // has gone before its connection is accepted.
    match EXECS.reserve_untyped::<Exec>(0) {
        Some(mut entry) => {
            entry.write(Exec {
                version: VERSION,
                reserved: [0; 3],
                tgid,
                start_ns,
                exec_ns,
            });
            entry.submit(0);
        }
        None => count_lost(lost::EXECS),
    }
    0
}

/// Fires for each thread; the process's own entry goes with its first thread.
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn lockgate_exit(ctx: TracePointContext) -> u32 {
    let _ = PROCESSES.remove(ctx.pid());
    0
}

/// start_ns, exec_ns and exec_tgid; zeros for a process that is not known.
#[inline(always)]
fn known(tgid: u32) -> (u64, u64, u32) {
    // SAFETY: a copy of a small record; a torn one attests nothing.
    match unsafe { PROCESSES.get(tgid) } {
        Some(process) => (process.start_ns, process.exec_ns, process.exec_tgid),
        None => (0, 0, 0),
    }
}

#[inline(always)]
fn keep(tgid: u32, process: Process) {
    // A full LRU map makes room; a process that is not in it attests nothing.
    let _ = PROCESSES.insert(tgid, process, 0);
}

fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
