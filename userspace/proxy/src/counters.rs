use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_command::{ConnectionId, TargetName, WorkloadName};
use serde::Serialize;

use crate::worker::Intercepted;

/// What `lockgate status` and the metrics endpoint show of the proxy.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    verdicts: Mutex<BTreeMap<(WorkloadName, TargetName), Arc<VerdictCounters>>>,
    sessions: Mutex<HashMap<ConnectionId, Session>>,
    /// Connections handed over by gate.
    pub(crate) accepted: AtomicU64,
    /// Connections that did not become a session.
    pub(crate) refused: AtomicU64,
    /// Commands refused, or events dropped, because the spool had no room.
    pub(crate) spool_full: AtomicU64,
}

/// Verdicts of one workload at one target.
#[derive(Debug, Default)]
pub(crate) struct VerdictCounters {
    /// Permitted.
    pub(crate) allowed: AtomicU64,
    /// Denied and not forwarded.
    pub(crate) denied: AtomicU64,
    /// Denied but forwarded, since the target is only observed.
    pub(crate) observed: AtomicU64,
}

/// One live session, for people.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Session {
    pub(crate) connection: String,
    pub(crate) workload: String,
    pub(crate) target: String,
    pub(crate) client: String,
    pub(crate) tgid: u32,
    pub(crate) uid: u32,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) since_unix_s: u64,
}

impl Session {
    /// `user` and `database` as at the server, empty where there are none.
    pub(crate) fn new(intercepted: &Intercepted, user: String, database: String) -> Self {
        let origin = &intercepted.origin;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            connection: intercepted.connection.to_string(),
            workload: intercepted.workload.to_string(),
            target: intercepted.target.name.to_string(),
            client: origin.client.to_string(),
            tgid: origin.tgid,
            uid: origin.uid,
            user,
            database,
            since_unix_s: since.as_secs(),
        }
    }
}

impl Counters {
    /// The counters of a workload at a target. Kept by a connection, so that
    /// counting takes no lock.
    pub(crate) fn verdicts(
        &self,
        workload: &WorkloadName,
        target: &TargetName,
    ) -> Arc<VerdictCounters> {
        let mut verdicts = lock(&self.verdicts);
        verdicts
            .entry((workload.clone(), target.clone()))
            .or_default()
            .clone()
    }

    /// Lists `session` until it is removed.
    pub(crate) fn session_begins(&self, connection: ConnectionId, session: Session) {
        lock(&self.sessions).insert(connection, session);
    }

    /// Takes a session off the list.
    pub(crate) fn session_ends(&self, connection: ConnectionId) {
        lock(&self.sessions).remove(&connection);
    }

    /// All of it as a JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let verdicts: Vec<_> = lock(&self.verdicts)
            .iter()
            .map(|((workload, target), counters)| {
                serde_json::json!({
                    "workload": workload.as_str(),
                    "target": target.as_str(),
                    "allowed": counters.allowed.load(Relaxed),
                    "denied": counters.denied.load(Relaxed),
                    "observed": counters.observed.load(Relaxed),
                })
            })
            .collect();
        let mut sessions: Vec<Session> = lock(&self.sessions).values().cloned().collect();
        sessions.sort_by(|a, b| a.connection.cmp(&b.connection));
        serde_json::json!({
            "accepted": self.accepted.load(Relaxed),
            "refused": self.refused.load(Relaxed),
            "spool_full": self.spool_full.load(Relaxed),
            "verdicts": verdicts,
            "sessions": sessions,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counters stay usable even if a thread panicked while it counted.
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
