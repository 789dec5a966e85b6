//! What needs secrets or the network, and reads no hostile wire: credentials,
//! the host CA, catalogues, the record, metrics.
//!
//! ```text
//! service     the main loop: orders of the parent, the word of gate
//! answers     questions of proxies
//! attested    which connections gate has attested, and what they may ask for
//! credential  passwords: SCRAM proofs, and the few cases in which one leaves
//! ca          the host CA and the leaves it signs
//! catalogue   names and kinds of a database, over a connection of its own
//! look        what an operator asks about a database
//! gate        sockets, which gate alone opens
//! record      spool segments: handed out, followed, sealed, shipped
//! metrics     the Prometheus endpoint
//! memory      kept out of swap where that is allowed
//! ```
//!
//! # What is kept where
//!
//! Secrets arrive over the parent's channel in a sealed memfd and stay in
//! memory, in types that are overwritten when dropped and print nothing.
//! `Debug`, errors, logs, status and metrics name targets and workloads only.
//! Below the state folder: the host CA (`ca/`, the key with mode 0600), the spool
//! (`spool/`) and the store (`audit.sqlite`).
//!
//! # What leaves
//!
//! To the proxy: SCRAM proofs, never what they are made of; the password or its
//! MD5 form where the target is `verify-full` and the server asks for it; leaf
//! keys, and for now the key of a target that shows its own certificate. To
//! ClickHouse: the record, over plain HTTP (https is not there yet; use a local
//! TLS proxy or a trusted link). keeper opens no socket: gate dials.
#![forbid(unsafe_code)]

mod answers;
mod attested;
mod ca;
mod catalogue;
mod credential;
mod gate;
mod look;
mod memory;
mod metrics;
mod record;
mod service;

pub use service::{Setup, run};
