//! eBPF programs, listeners in the network namespaces, attested origins,
//! dialling upstream.
//!
//! The gate reads no byte of payload and holds no secret and no policy.
//!
//! ```text
//! service    the main loop: orders, clients
//! inbox      everything that happens to it, in one queue
//! running    what exists from the first configuration on
//! dial       upstream, past the redirect
//! kernel     the maps: load, pin, resume, unpin
//! attach     the programs: attach, pin, replace
//! lease      says to the kernel that lockgate is alive
//! served     the namespaces with a listener, from the first process to the last
//! namespace  sockets made inside a network namespace
//! attest     from what the kernel recorded to an origin
//! earlier    connections that were there before the programs
//! execs      each new image, looked at as it starts
//! proc       what /proc says
//! claim      what a process says of itself
//! bounded    threads for what may never return
//! image      the file that a process runs
//! hash       what an executable contains
//! cgroup     the hierarchy, and paths by id
//! trace      what the programs log, for debugging
//! others     programs of others on the same hooks
//! preflight  what `lockgate doctor` looks at
//! ```
#![deny(unsafe_code)]

mod attach;
mod attest;
mod bounded;
mod cgroup;
mod claim;
mod dial;
mod earlier;
mod execs;
mod hash;
mod image;
mod inbox;
mod kernel;
mod lease;
mod namespace;
mod others;
pub mod preflight;
mod proc;
mod protected;
mod running;
mod served;
mod service;
mod sys;
mod trace;

pub use attest::Attestor;
pub use cgroup::{CgroupError, v2_root};
pub use execs::watch_execs;
pub use kernel::{Exemptions, Kernel, KernelError};
pub use lease::Lease;
pub use namespace::{Listeners, Namespace, NamespaceError};
pub use others::{behind, filtering};
pub use protected::{Protected, TooMany};
pub use service::run;
