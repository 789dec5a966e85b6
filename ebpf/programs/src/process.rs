//! Which execution of which process: a pid is used again, and a process keeps
//! its pid over execve; what is kept here tells them apart.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use lockgate_abi::Process;

use crate::maps::PROCESSES;

/// Offset of `child_pid`; set by the gate, since it differs between kernels.
#[unsafe(no_mangle)]
static FORK_CHILD_PID: u32 = 44;

/// Runs in the parent. Fires for threads, too; their entries do no harm and go
/// with them.
#[tracepoint(category = "sched", name = "sched_process_fork")]
pub fn lockgate_fork(ctx: TracePointContext) -> u32 {
    // SAFETY: the loader may have changed it, so it must be read as it is.
    let offset = unsafe { core::ptr::read_volatile(&raw const FORK_CHILD_PID) } as usize;
    // SAFETY: read by a helper that fails where there is nothing.
    let Ok(child) = (unsafe { ctx.read_at::<u32>(offset) }) else { return 0 };
    let now = now();
    // SAFETY: a copy of a small record.
    let exec_ns = match unsafe { PROCESSES.get(ctx.tgid()) } {
        Some(parent) => parent.exec_ns,
        None => 0,
    };
    let _ = PROCESSES.insert(child, Process { start_ns: now, exec_ns }, 0);
    0
}

#[tracepoint(category = "sched", name = "sched_process_exec")]
pub fn lockgate_exec(ctx: TracePointContext) -> u32 {
    let tgid = ctx.tgid();
    let now = now();
    // SAFETY: a copy of a small record.
    let start_ns = match unsafe { PROCESSES.get(tgid) } {
        Some(process) => process.start_ns,
        None => now,
    };
    let _ = PROCESSES.insert(tgid, Process { start_ns, exec_ns: now }, 0);
    0
}

/// Fires for each thread; the process's own entry goes with its first thread.
#[tracepoint(category = "sched", name = "sched_process_exit")]
pub fn lockgate_exit(ctx: TracePointContext) -> u32 {
    let _ = PROCESSES.remove(ctx.pid());
    0
}

fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}
