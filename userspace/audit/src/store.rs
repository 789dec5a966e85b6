use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

mod columns;
mod erase;
mod search;
mod shipping;
mod verify;

pub use search::{Query, Row};
pub use shipping::{Batch, ShippedRow};
pub use verify::{ChainFault, ChainReport, ChainState};

pub(crate) use columns::Columns;

use crate::payload::Context;
use crate::{ChainKey, Digest};

/// Each element brings the store from its index to the next version.
const MIGRATIONS: &[&str] = &[include_str!("store/schema.sql")];

/// How long one connection waits for another's transaction.
const BUSY: Duration = Duration::from_secs(10);

/// Bits of an event's id that are its number within the chain.
pub(crate) const SEQ_BITS: u32 = 40;

/// The embedded store: every event, its place in the chain, and what is still
/// to be shipped. A SQLite file in WAL mode, on disk at each commit.
///
/// One `Store` is one connection; several may be open, also in several
/// processes.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was made by a later lockgate.
    #[error(
        "the audit store {path} has version {found}, this lockgate knows {known}; use the lockgate that made it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// `user_version` of the file.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// There is no such file.
    #[error("there is no audit store at {0}; has the agent run with this state folder?")]
    Missing(PathBuf),
    /// A row is not as it was written.
    #[error("the audit store is damaged: {0}; `lockgate audit verify` says where")]
    Damaged(String),
    /// SQLite failed.
    #[error("the audit store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) chain: i64,
    pub(crate) next_seq: u64,
    pub(crate) hash: Digest,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

/// One row as it is written.
pub(crate) struct NewRow<'a> {
    pub(crate) seq: u64,
    pub(crate) columns: Columns<'a>,
    pub(crate) payload_hash: Digest,
    pub(crate) hash: Digest,
    pub(crate) salt: [u8; 16],
    pub(crate) payload: &'a str,
}

impl Store {
    /// Opens the store at `path` for reading and writing, making or migrating
    /// it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", 8192)?;
        connection.pragma_update(None, "cache_size", -32 * 1024)?;
        // From the first write on: else what moved between pages stays behind.
        connection.pragma_update(None, "secure_delete", true)?;
        prepare(&connection)?;
        migrate(&mut connection, path)?;
        Ok(Self { connection })
    }

    /// Opens an existing store for reading, while keeper writes it or not.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        prepare(&connection)?;
        known_version(&connection, path)?;
        Ok(Self { connection })
    }

    /// How many events there are.
    pub fn events(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(next_seq), 0) FROM chains";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// How many events wait to be shipped.
    pub fn unshipped(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce((SELECT sum(next_seq - batched) FROM chains), 0)
                   + coalesce((SELECT sum(last - first + 1) FROM batches), 0)";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// Where the chain stands, beginning it if it is new.
    pub(crate) fn head(&mut self, key: &ChainKey) -> Result<Head, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT INTO chains (host, boot, stream, next_seq, head, segment, offset, batched)
             VALUES (?1, ?2, ?3, 0, zeroblob(32), 0, 0, 0) ON CONFLICT DO NOTHING",
            params![key.host, key.boot.as_bytes(), key.stream],
        )?;
        let head = transaction.query_row(
            "SELECT chain, next_seq, head, segment, offset FROM chains
             WHERE host = ?1 AND boot = ?2 AND stream = ?3",
            params![key.host, key.boot.as_bytes(), key.stream],
            |row| {
                Ok(Head {
                    chain: row.get(0)?,
                    next_seq: row.get::<_, i64>(1)? as u64,
                    hash: Digest(row.get(2)?),
                    segment: row.get(3)?,
                    offset: row.get::<_, i64>(4)? as u64,
                })
            },
        )?;
        transaction.commit()?;
        Ok(head)
    }

    /// Writes the rows that `rows` gives and moves the chain to the head it
    /// returns, or nothing of it. A row that is there already stays as it is.
    pub(crate) fn append(
        &mut self,
        chain: i64,
        rows: impl FnOnce(&mut dyn FnMut(NewRow) -> Result<(), StoreError>) -> Result<Head, StoreError>,
    ) -> Result<Head, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut insert = transaction.prepare_cached(columns::INSERT)?;
        let head = rows(&mut |row| row.insert(&mut insert, chain))?;
        drop(insert);
        transaction.execute(
            "UPDATE chains SET next_seq = ?2, head = ?3, segment = ?4, offset = ?5
             WHERE chain = ?1",
            params![
                chain,
                head.next_seq as i64,
                head.hash.0,
                head.segment,
                head.offset as i64
            ],
        )?;
        transaction.commit()?;
        Ok(head)
    }

    /// What the store knows of a connection.
    pub(crate) fn context(&self, connection: u64) -> Result<Option<Context>, StoreError> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT workload, target, user, database, uid, executable FROM events
                 WHERE connection = ?1 AND kind = 'connected' LIMIT 1",
            )?
            .query_row([connection as i64], |row| {
                Ok(Context {
                    workload: row.get(0)?,
                    target: row.get(1)?,
                    user: row.get(2)?,
                    database: row.get(3)?,
                    uid: row.get(4)?,
                    executable: row.get(5)?,
                })
            })
            .optional()?;
        Ok(found)
    }
}

/// What every connection has.
fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "trusted_schema", false)?;
    // Who may write the state folder alone has no place for temporary files.
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn known_version(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found as usize > MIGRATIONS.len() {
        true => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len() as u32,
        }),
        false => Ok(found as usize),
    }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    // Immediate: of two that open a new file, one waits.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = known_version(&transaction, path)?;
    for (version, sql) in MIGRATIONS.iter().enumerate().skip(from) {
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version as u32 + 1)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The id of an event.
pub(crate) fn event_id(chain: i64, seq: u64) -> i64 {
    chain << SEQ_BITS | seq as i64
}

/// A chain's columns.
pub(crate) fn key_from(host: String, boot: [u8; 16], stream: u32) -> ChainKey {
    ChainKey {
        host,
        boot: Uuid::from_bytes(boot),
        stream,
    }
}
