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

mod chain;
mod clickhouse;
mod digest;
mod event;
mod moment;
mod payload;
mod record;
mod sealer;
mod spool;
mod store;

pub use chain::{ChainKey, Header, kind_code, payload_hash};
pub use clickhouse::{ClickHouse, ClickHouseError, ClickHouseSettings};
pub use digest::Digest;
pub use event::{Claims, CommandEvent, Event, EventKind, VerdictKind};
pub use moment::{parse_rfc3339, rfc3339};
pub use payload::{AccessRecord, AncestorRecord, OriginRecord, Payload};
pub use record::{DecodeError, RECORD_VERSION};
pub use sealer::{SealError, Sealed, Sealer};
pub use spool::{
    Damage, Entry, Fullness, ReadError, SegmentHeader, SegmentName, Spool, SpoolError, SpoolReader,
    SpoolSettings, SpoolSync, SpoolWriter,
};
pub use store::{
    Batch, ChainFault, ChainReport, ChainState, Query, Row, ShippedRow, Store, StoreError,
};
