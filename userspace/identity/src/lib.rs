//! From a kernel origin to a workload.
#![forbid(unsafe_code)]

mod origin;

pub use origin::{Ancestor, ExecKey, Executable, Origin};
