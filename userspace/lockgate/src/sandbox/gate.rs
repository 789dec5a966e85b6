use anyhow::Context;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What gate keeps of root, each with its reason.
const KEPT: CapabilitySet = CapabilitySet::BPF // load programs, update maps
    .union(CapabilitySet::PERFMON) // attach to tracepoints
    .union(CapabilitySet::NET_ADMIN) // attach to cgroups; cookies of namespaces
    .union(CapabilitySet::SYS_ADMIN) // setns into clients' network namespaces
    .union(CapabilitySet::SYS_PTRACE) // /proc/PID/exe of other users' processes
    .union(CapabilitySet::DAC_READ_SEARCH) // hash executables; open cgroups by id
    .union(CapabilitySet::SYS_RESOURCE) // memory for maps on kernels before 5.11
    .union(CapabilitySet::SYS_NICE); // the lease's thread goes first

/// Drops all other capabilities. Landlock is not used here: it would deny the
/// look at other processes' executables, which is what gate is for.
pub(super) fn enter() -> anyhow::Result<()> {
    // In a container there may be fewer; what then fails says so itself.
    let kept = KEPT & capabilities(None).context("capabilities")?.permitted;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context("capabilities")
}
