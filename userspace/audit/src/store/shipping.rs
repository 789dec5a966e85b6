use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::search::list;
use super::{SEQ_BITS, Store, StoreError, event_id, key_from};
use crate::{ChainKey, Digest};

/// A run of events of one chain that is shipped as one. Once made it never
/// changes, so that whoever has it already can tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub(super) id: i64,
    /// The chain.
    pub key: ChainKey,
    /// Number of the first event.
    pub first: u64,
    /// Number of the last event, inclusive.
    pub last: u64,
    /// The events, in order.
    pub rows: Vec<ShippedRow>,
}

/// An event as it is shipped.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // as in docs/audit.md, each column of the store
pub struct ShippedRow {
    pub seq: u64,
    pub time_ns: i64,
    pub kind: String,
    pub connection: Option<u64>,
    pub ticket: Option<u64>,
    pub workload: String,
    pub target: String,
    pub user: String,
    pub database: String,
    pub uid: Option<u32>,
    pub executable: String,
    pub verdict: String,
    pub enforced: Option<bool>,
    pub writes: Option<bool>,
    pub verbs: Vec<String>,
    pub objects: Vec<String>,
    pub policies: Vec<String>,
    pub shape: String,
    pub message: String,
    pub outcome: String,
    pub error: String,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub duration_us: Option<u64>,
    pub payload_hash: Digest,
    pub hash: Digest,
    pub salt: Option<[u8; 16]>,
    pub payload: String,
}

impl Batch {
    /// Names the batch everywhere and for ever.
    pub fn token(&self) -> String {
        let ChainKey { host, boot, stream } = &self.key;
        format!("{host}/{boot}/{stream}/{}-{}", self.first, self.last)
    }
}

impl Store {
    /// The oldest batch that is not shipped, the same again until
    /// [`Store::shipped`] is told of it; a new one of up to `limit` events if
    /// there is none; none if everything is shipped.
    pub fn next_batch(&mut self, limit: u32) -> Result<Option<Batch>, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let oldest = "SELECT batch, chain, first, last FROM batches ORDER BY batch LIMIT 1";
        let read = |row: &rusqlite::Row| -> rusqlite::Result<(i64, i64, i64, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let mut found = transaction.query_row(oldest, [], read).optional()?;
        if found.is_none() {
            let made = transaction.execute(
                "INSERT INTO batches (chain, first, last)
                 SELECT chain, batched, min(next_seq, batched + ?1) - 1 FROM chains
                 WHERE batched < next_seq ORDER BY chain LIMIT 1",
                [limit.max(1)],
            )?;
            if made == 1 {
                transaction.execute(
                    "UPDATE chains SET batched = b.last + 1
                     FROM (SELECT chain, last FROM batches) AS b WHERE chains.chain = b.chain",
                    [],
                )?;
                found = Some(transaction.query_row(oldest, [], read)?);
            }
        }
        transaction.commit()?;
        match found {
            None => Ok(None),
            Some((id, chain, first, last)) => self.batch(id, chain, first, last).map(Some),
        }
    }

    /// The batch is shipped.
    pub fn shipped(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM batches WHERE batch = ?1", params![batch.id])?;
        Ok(())
    }

    fn batch(&self, id: i64, chain: i64, first: i64, last: i64) -> Result<Batch, StoreError> {
        let key = self.connection.query_row(
            "SELECT host, boot, stream FROM chains WHERE chain = ?1",
            [chain],
            |row| Ok(key_from(row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let mut statement = self.connection.prepare_cached(
            "SELECT id, time_ns, kind, connection, ticket, workload, target, user, database, uid,
                executable, verdict, enforced, writes, verbs, objects, policies, shape, message,
                outcome, error, rows, bytes, duration_us, payload_hash, hash, salt, payload
             FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
        )?;
        let (from, to) = (event_id(chain, first as u64), event_id(chain, last as u64));
        let mut rows = statement.query([from, to])?;
        let mut shipped = Vec::with_capacity((last - first + 1) as usize);
        while let Some(row) = rows.next()? {
            shipped.push(read(row)?);
        }
        if shipped.len() as i64 != last - first + 1 {
            return Err(StoreError::Damaged(format!(
                "{} of {} events of stream {} are missing",
                last - first + 1 - shipped.len() as i64,
                last - first + 1,
                key.stream
            )));
        }
        Ok(Batch {
            id,
            key,
            first: first as u64,
            last: last as u64,
            rows: shipped,
        })
    }
}

fn read(row: &rusqlite::Row) -> Result<ShippedRow, StoreError> {
    let number = |index| -> rusqlite::Result<Option<u64>> {
        Ok(row
            .get::<_, Option<i64>>(index)?
            .map(|number| number as u64))
    };
    let text = |index| -> rusqlite::Result<String> {
        Ok(row.get::<_, Option<String>>(index)?.unwrap_or_default())
    };
    Ok(ShippedRow {
        seq: row.get::<_, i64>(0)? as u64 & ((1 << SEQ_BITS) - 1),
        time_ns: row.get(1)?,
        kind: row.get(2)?,
        connection: number(3)?,
        ticket: number(4)?,
        workload: text(5)?,
        target: text(6)?,
        user: text(7)?,
        database: text(8)?,
        uid: row.get(9)?,
        executable: text(10)?,
        verdict: text(11)?,
        enforced: row.get(12)?,
        writes: row.get(13)?,
        verbs: list(row.get(14)?)?,
        objects: list(row.get(15)?)?,
        policies: list(row.get(16)?)?,
        shape: text(17)?,
        message: text(18)?,
        outcome: text(19)?,
        error: text(20)?,
        rows: number(21)?,
        bytes: number(22)?,
        duration_us: number(23)?,
        payload_hash: Digest(row.get(24)?),
        hash: Digest(row.get(25)?),
        salt: row.get(26)?,
        payload: text(27)?,
    })
}
