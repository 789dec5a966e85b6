//! What needs secrets or the network, and reads no hostile wire: credentials,
//! the host CA, catalogues, the record, metrics.
//!
//! ```text
//! service     the main loop: orders of the parent, questions of the proxy
//! attested    which connections gate has attested, and what they may ask for
//! credential  passwords: SCRAM proofs, and the few cases in which one leaves
//! ca          the host CA and the leaves it signs
//! catalogue   names and kinds of a database, over a connection of its own
//! gate        sockets, which gate alone opens
//! record      spool segments: handed out, followed, sealed, shipped
//! metrics     the Prometheus endpoint
//! ```
#![forbid(unsafe_code)]

mod attested;
mod ca;
mod catalogue;
mod credential;
mod gate;
mod metrics;
mod record;
mod service;

pub use service::{Setup, run};
