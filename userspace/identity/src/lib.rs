//! From a kernel origin to a workload.
//!
//! [`Origin`] is what the kernel attested about the process behind a
//! connection; [`Workloads`] are the `[[workload]]` entries of the
//! configuration; [`Workloads::resolve`] names the one the process belongs to.
//! Only what root controls names a workload: where a user's own systemd
//! manager or a container may choose cgroup names, those names are not read.
#![forbid(unsafe_code)]

mod cgroup;
mod error;
mod origin;
mod rule;
mod workloads;

pub use error::WorkloadError;
pub use origin::{Ancestor, ExecKey, Executable, Origin};
pub use workloads::Workloads;
