//! The record of what clients asked, what was decided and how it ended.
//!
//! ```text
//! proxy   Event ── SpoolWriter ──▶ segment (shared memory on disk)
//! keeper  SpoolReader ──▶ Sealer (chain) ──▶ Store (SQLite) ──▶ ClickHouse
//! ```
//!
//! `docs/audit.md` has the frozen forms: the event model, the segment, the
//! header of the chain, the tables.
#![deny(unsafe_code)]

mod digest;
mod event;
mod record;
mod spool;

pub use digest::Digest;
pub use event::{Claims, CommandEvent, Event, EventKind, VerdictKind};
pub use record::{DecodeError, RECORD_VERSION};
pub use spool::{
    Damage, Entry, Fullness, ReadError, SegmentHeader, SegmentName, Spool, SpoolError, SpoolReader,
    SpoolSettings, SpoolSync, SpoolWriter,
};
