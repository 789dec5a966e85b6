//! eBPF programs, listeners in the network namespaces, attested origins,
//! dialling upstream.
//!
//! The gate reads no byte of payload and holds no secret and no policy.
//!
//! ```text
//! service    the main loop: orders, clients, dials
//! kernel     programs and maps: load, pin, resume, unpin
//! lease      says to the kernel that lockgate is alive
//! namespace  sockets made inside a network namespace
//! attest     from what the kernel recorded to an origin
//! cgroup     the hierarchy, and paths by id
//! preflight  what `lockgate doctor` looks at
//! ```
#![deny(unsafe_code)]

mod attest;
mod cgroup;
mod kernel;
mod lease;
mod namespace;
pub mod preflight;
mod protected;
mod service;
mod sys;

pub use cgroup::{CgroupError, v2_root};
pub use kernel::{Kernel, KernelError};
pub use lease::Lease;
pub use namespace::{Listeners, Namespace, NamespaceError};
pub use protected::{Protected, TooMany};
pub use service::run;
