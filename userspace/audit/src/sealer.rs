use std::collections::HashMap;
use std::sync::Arc;

use rand::RngCore;

use crate::chain::{Header, kind_code, payload_hash};
use crate::payload::{Context, Payload};
use crate::spool::{Entry, ReadError, SpoolReader};
use crate::store::{Columns, Head, NewRow, Store, StoreError};
use crate::{ChainKey, EventKind};

/// Contexts kept in memory; more are read from the store again.
const CONTEXTS: usize = 65_536;

/// Takes events out of the spool, chains them and puts them into the store,
/// each exactly once, however often a segment is read.
#[derive(Debug)]
pub struct Sealer {
    store: Store,
    host: String,
    heads: HashMap<ChainKey, Head>,
    contexts: HashMap<u64, Arc<Context>>,
}

/// What one call of [`Sealer::seal`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Events that are in the store now and were not before.
    pub events: u64,
    /// Whether everything that is in the segment now is in the store.
    pub caught_up: bool,
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The segment cannot be read on; what stands before is sealed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not take it; the segment is to be sealed again later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sealer {
    /// Seals into `store`, in the name of `host`.
    pub fn new(store: Store, host: &str) -> Self {
        Self {
            store,
            host: host.to_owned(),
            heads: HashMap::new(),
            contexts: HashMap::new(),
        }
    }

    /// The store it writes.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Seals up to `limit` of the events that `reader` has, in one transaction
    /// that is on disk when this returns. What was sealed before is skipped, so
    /// the reader may begin anywhere. Segments of a stream must come in the
    /// order of their index, each only after the one before was caught up.
    pub fn seal(&mut self, reader: &mut SpoolReader, limit: usize) -> Result<Sealed, SealError> {
        let header = *reader.header();
        let key = ChainKey {
            host: self.host.clone(),
            boot: header.boot,
            stream: header.name.stream,
        };
        let head = match self.heads.get(&key) {
            Some(head) => *head,
            None => self.store.head(&key)?,
        };
        if header.name.index < head.segment {
            return Ok(Sealed {
                events: 0,
                caught_up: true,
            });
        }
        if header.name.index == head.segment && reader.offset() < head.offset {
            reader.seek(head.offset);
        }
        let (entries, end) = read(reader, limit);
        let Some(last) = entries.last() else {
            return match end {
                End::Damaged(error) => Err(error.into()),
                End::CaughtUp | End::Limit => Ok(Sealed {
                    events: 0,
                    caught_up: true,
                }),
            };
        };
        let next = Head {
            segment: header.name.index,
            offset: last.end,
            ..head
        };
        match self.write(&key, head, next, &entries) {
            Ok(head) => {
                self.heads.insert(key, head);
            }
            Err(error) => {
                // The transaction may have been committed or not: ask again.
                self.heads.remove(&key);
                reader.seek(entries[0].offset);
                return Err(error.into());
            }
        }
        Ok(Sealed {
            events: entries.len() as u64,
            caught_up: matches!(end, End::CaughtUp),
        })
    }

    /// Writes `entries` behind `head` and returns the new head, which has read
    /// the segment as far as `next` says.
    fn write(
        &mut self,
        key: &ChainKey,
        head: Head,
        mut next: Head,
        entries: &[Entry],
    ) -> Result<Head, StoreError> {
        let contexts = self.contexts_of(entries)?;
        let mut random = rand::rng();
        self.store.append(head.chain, |insert| {
            for (Entry { event, .. }, context) in entries.iter().zip(&contexts) {
                let payload = Payload::new(event, context);
                let json = serde_json::to_string(&payload)
                    .map_err(|why| StoreError::Damaged(why.to_string()))?;
                let mut salt = [0; 16];
                random.fill_bytes(&mut salt);
                let header = Header {
                    key,
                    seq: next.next_seq,
                    time_ns: event.time_ns,
                    kind: kind_code(event.kind.name()).expect("every kind has a code"),
                    payload_hash: payload_hash(&salt, json.as_bytes()),
                    previous: next.hash,
                };
                next.hash = header.hash();
                next.next_seq += 1;
                let connection = event.connection.map(|id| id.0);
                insert(NewRow {
                    seq: header.seq,
                    columns: Columns::new(event.time_ns, connection, &payload),
                    payload_hash: header.payload_hash,
                    hash: next.hash,
                    salt,
                    payload: &json,
                })?;
            }
            Ok(next)
        })
    }

    /// What is known of each entry's connection.
    fn contexts_of(&mut self, entries: &[Entry]) -> Result<Vec<Arc<Context>>, StoreError> {
        let nothing = Arc::new(Context::default());
        let mut contexts = Vec::with_capacity(entries.len());
        for Entry { event, .. } in entries {
            let Some(connection) = event.connection.map(|id| id.0) else {
                contexts.push(nothing.clone());
                continue;
            };
            let context = match (Context::begun_by(event), self.contexts.get(&connection)) {
                (Some(begun), _) => Arc::new(begun),
                (None, Some(known)) => known.clone(),
                (None, None) => Arc::new(self.store.context(connection)?.unwrap_or_default()),
            };
            contexts.push(context.clone());
            match event.kind {
                EventKind::Closed { .. } | EventKind::Refused { .. } => {
                    self.contexts.remove(&connection);
                }
                EventKind::Connected { .. }
                | EventKind::Command(_)
                | EventKind::Ended { .. }
                | EventKind::Agent { .. } => {
                    if self.contexts.len() >= CONTEXTS {
                        self.contexts.clear();
                    }
                    self.contexts.insert(connection, context);
                }
            }
        }
        Ok(contexts)
    }
}

/// Why [`read`] stopped.
enum End {
    CaughtUp,
    Limit,
    Damaged(ReadError),
}

/// Up to `limit` entries. An error behind good entries is kept for later: the
/// reader gives it again.
fn read(reader: &mut SpoolReader, limit: usize) -> (Vec<Entry>, End) {
    let mut entries = Vec::new();
    while entries.len() < limit.max(1) {
        match reader.next_event() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, End::CaughtUp),
            Err(error) => return (entries, End::Damaged(error)),
        }
    }
    (entries, End::Limit)
}
