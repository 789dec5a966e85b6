//! One intercepted connection from hand-over to close: target, protocol,
//! decisions, record.
//!
//! The proxy reads hostile bytes and can do nothing else: it has no right to
//! open a socket or a file. Every descriptor reaches it over a channel.
//!
//! ```text
//! service   the main thread: orders of the parent, the channels to gate and keeper
//! worker    one thread per processor: a runtime, a spool stream, its connections
//! links     what is asked of gate (dial) and keeper (login, leaf, catalogue, segment)
//! settings  configuration and policies of one epoch
//! judge     Command → Ruling → Outcome, recorded before it is answered
//! postgres  the adapter of PostgreSQL
//! tcp       the adapter of opaque targets
//! ```
#![forbid(unsafe_code)]

mod counters;
mod judge;
mod links;
mod postgres;
mod recorder;
mod service;
mod settings;
mod stream;
mod tcp;
mod tls;
mod worker;

pub use service::run;
