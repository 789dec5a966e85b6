use anyhow::Context;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What gate keeps of root, each with its reason.
///
/// CAP_SYS_ADMIN holds what CAP_BPF and CAP_PERFMON are parts of.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN // load programs; setns into clients' namespaces
    .union(CapabilitySet::NET_ADMIN) // end connections from before
    .union(CapabilitySet::SYS_PTRACE) // /proc/PID/exe of other users' processes
    .union(CapabilitySet::DAC_READ_SEARCH) // hash executables; open cgroups by id
    .union(CapabilitySet::SYS_NICE); // the threads of lease and execs go first

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
