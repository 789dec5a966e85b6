use rusqlite::types::Value;
use serde::Serialize;

use super::columns::{COUNT, SELECT};
use super::{Columns, SEQ_BITS, Store, StoreError, event_id, key_from};
use crate::chain::{Header, kind_code, payload_hash};
use crate::moment::{parse_rfc3339, rfc3339};
use crate::payload::Payload;
use crate::{ChainKey, Digest};

/// What [`Store::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// One per chain.
    pub chains: Vec<ChainState>,
    /// Events that belong to no chain: the chain's own row was removed.
    pub orphans: u64,
}

/// What was found in one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainState {
    /// The host's name.
    pub host: String,
    /// UUID of the boot.
    pub boot: String,
    /// The writer's stream.
    pub stream: u32,
    /// Events there are.
    pub events: u64,
    /// Events whose payload was erased.
    pub erased: u64,
    /// Hash of the last event: what can be kept elsewhere, to prove later that
    /// the end was not cut off and written again.
    pub head: String,
    /// What is wrong, first of all; none if the chain is whole.
    pub fault: Option<ChainFault>,
}

/// Where a chain is broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainFault {
    /// Number of the event.
    pub seq: u64,
    /// What is wrong, for people.
    pub what: String,
}

impl ChainReport {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.orphans == 0 && self.chains.iter().all(|chain| chain.fault.is_none())
    }
}

impl Store {
    /// Computes every chain again: an event that was changed, removed, added or
    /// moved is found, and a column that does not say what its payload says. An
    /// erased payload is no fault.
    ///
    /// Whoever can write the file can compute a chain of his own; that is what
    /// the copy in ClickHouse and a kept [`ChainState::head`] are for.
    pub fn verify(&self) -> Result<ChainReport, StoreError> {
        // One view of the store, also while keeper appends.
        let transaction = self.connection.unchecked_transaction()?;
        let mut chains = transaction.prepare(
            "SELECT chain, host, boot, stream, next_seq, head FROM chains ORDER BY chain",
        )?;
        let mut rows = chains.query([])?;
        let mut report = ChainReport::default();
        while let Some(row) = rows.next()? {
            let key = key_from(row.get(1)?, row.get(2)?, row.get(3)?);
            let expected = Expected {
                next_seq: row.get::<_, i64>(4)? as u64,
                head: Digest(row.get(5)?),
            };
            report
                .chains
                .push(verify_chain(&transaction, row.get(0)?, key, expected)?);
        }
        let orphans: i64 = transaction.query_row(
            "SELECT count(*) FROM events WHERE id >> 40 NOT IN (SELECT chain FROM chains)",
            [],
            |row| row.get(0),
        )?;
        report.orphans = orphans as u64;
        Ok(report)
    }
}

struct Expected {
    next_seq: u64,
    head: Digest,
}

fn verify_chain(
    connection: &rusqlite::Connection,
    chain: i64,
    key: ChainKey,
    expected: Expected,
) -> Result<ChainState, StoreError> {
    let mut state = ChainState {
        host: key.host.clone(),
        boot: key.boot.to_string(),
        stream: key.stream,
        events: 0,
        erased: 0,
        head: Digest::default().to_string(),
        fault: None,
    };
    let sql = format!(
        "SELECT {SELECT}, payload_hash, hash, salt, payload, id FROM events
         WHERE id >= ?1 AND id < ?2 ORDER BY id"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([event_id(chain, 0), event_id(chain + 1, 0)])?;
    let mut previous = Digest::default();
    let mut fault = |seq, what: String| {
        state.fault.get_or_insert(ChainFault { seq, what });
    };
    while let Some(row) = rows.next()? {
        let seq = row.get::<_, i64>(COUNT + 4)? as u64 & ((1 << SEQ_BITS) - 1);
        if seq != state.events {
            fault(state.events, format!("missing; the next one is {seq}"));
        }
        let stored = Stored::read(row)?;
        state.events += 1;
        state.erased += u64::from(stored.payload.is_none());
        if let Err(what) = stored.check(&key, seq, previous) {
            fault(seq, what);
        }
        previous = stored.hash;
    }
    if state.events != expected.next_seq {
        let (there, all) = (state.events, expected.next_seq);
        fault(
            there,
            format!("the chain has {all} events, {there} are there"),
        );
    } else if previous != expected.head {
        fault(state.events, "the chain's head is another".into());
    }
    state.head = previous.to_string();
    Ok(state)
}

struct Stored {
    columns: Vec<Value>,
    payload_hash: Digest,
    hash: Digest,
    salt: Option<[u8; 16]>,
    payload: Option<String>,
}

impl Stored {
    fn read(row: &rusqlite::Row) -> Result<Self, StoreError> {
        let columns: Result<_, _> = (0..COUNT).map(|index| row.get(index)).collect();
        Ok(Self {
            columns: columns?,
            payload_hash: Digest(row.get(COUNT)?),
            hash: Digest(row.get(COUNT + 1)?),
            salt: row.get(COUNT + 2)?,
            payload: row.get(COUNT + 3)?,
        })
    }

    fn check(&self, key: &ChainKey, seq: u64, previous: Digest) -> Result<(), String> {
        let (Value::Integer(time_ns), Value::Text(kind)) = (&self.columns[0], &self.columns[1])
        else {
            return Err("its time or kind is missing".into());
        };
        let header = Header {
            key,
            seq,
            time_ns: *time_ns,
            kind: kind_code(kind).ok_or_else(|| format!("`{kind}` is no kind of event"))?,
            payload_hash: self.payload_hash,
            previous,
        };
        if header.hash() != self.hash {
            return Err("its hash is not that of its header and the event before".into());
        }
        let (payload, salt) = match (&self.payload, &self.salt) {
            (Some(payload), Some(salt)) => (payload, salt),
            (None, None) => {
                let left = self.columns[2..].iter().any(|value| *value != Value::Null);
                return match left {
                    true => Err("its payload was erased, but not the columns made of it".into()),
                    false => Ok(()),
                };
            }
            _ => return Err("one of payload and salt was erased, the other not".into()),
        };
        if payload_hash(salt, payload.as_bytes()) != self.payload_hash {
            return Err("its payload was changed".into());
        }
        let payload: Payload =
            serde_json::from_str(payload).map_err(|why| format!("its payload: {why}"))?;
        let connection = match payload.connection.as_deref() {
            None => None,
            Some(id) => Some(u64::from_str_radix(id, 16).map_err(|why| why.to_string())?),
        };
        if payload.kind != *kind || parse_rfc3339(&payload.time) != Some(*time_ns) {
            let time = rfc3339(*time_ns);
            return Err(format!(
                "its header says {kind} at {time}, its payload does not"
            ));
        }
        let columns = Columns::new(*time_ns, connection, &payload).values();
        match columns
            .iter()
            .zip(&self.columns)
            .position(|(made, stored)| made != stored)
        {
            None => Ok(()),
            Some(at) => {
                let column = SELECT.split(", ").nth(at).unwrap_or_default().trim();
                Err(format!(
                    "its column `{column}` does not say what its payload says"
                ))
            }
        }
    }
}
