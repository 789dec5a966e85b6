use clickhouse::Row;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::{ChainKey, ShippedRow};

/// A row of the table `events`, in its columns' order and types.
#[derive(Row, Serialize)]
pub(super) struct EventRow<'a> {
    /// DateTime64(9): nanoseconds since the epoch.
    time: i64,
    host: &'a str,
    #[serde(with = "clickhouse::serde::uuid")]
    boot: Uuid,
    stream: u32,
    seq: u64,
    kind: &'a str,
    connection: Option<u64>,
    ticket: Option<u64>,
    workload: &'a str,
    target: &'a str,
    user: &'a str,
    database: &'a str,
    uid: Option<u32>,
    executable: &'a str,
    verdict: &'a str,
    enforced: Option<bool>,
    writes: Option<bool>,
    verbs: &'a [String],
    objects: &'a [String],
    policies: &'a [String],
    shape: &'a str,
    message: &'a str,
    outcome: &'a str,
    error: &'a str,
    rows: Option<u64>,
    bytes: Option<u64>,
    duration_us: Option<u64>,
    payload_hash: [u8; 32],
    hash: [u8; 32],
    #[serde(serialize_with = "binary")]
    salt: &'a [u8],
    payload: &'a str,
}

impl<'a> EventRow<'a> {
    pub(super) fn new(key: &'a ChainKey, row: &'a ShippedRow) -> Self {
        Self {
            time: row.time_ns,
            host: &key.host,
            boot: key.boot,
            stream: key.stream,
            seq: row.seq,
            kind: &row.kind,
            connection: row.connection,
            ticket: row.ticket,
            workload: &row.workload,
            target: &row.target,
            user: &row.user,
            database: &row.database,
            uid: row.uid,
            executable: &row.executable,
            verdict: &row.verdict,
            enforced: row.enforced,
            writes: row.writes,
            verbs: &row.verbs,
            objects: &row.objects,
            policies: &row.policies,
            shape: &row.shape,
            message: &row.message,
            outcome: &row.outcome,
            error: &row.error,
            rows: row.rows,
            bytes: row.bytes,
            duration_us: row.duration_us,
            payload_hash: row.payload_hash.0,
            hash: row.hash.0,
            salt: row.salt.as_ref().map_or(&[], |salt| salt),
            payload: &row.payload,
        }
    }
}

/// A String column takes any bytes.
fn binary<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}
