use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use lockgate_command::{TargetName, WorkloadName};
use lockgate_wire_postgres::{CancelKey, cancel_request};

use super::error::StartupError;
use super::upstream;
use crate::worker::{Intercepted, Worker};

/// The keys that clients were given, and whose they are. A client never sees
/// the server's key: it could be used from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct CancelKeys {
    sessions: Mutex<HashMap<CancelKey, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    workload: WorkloadName,
    target: TargetName,
    uid: u32,
    upstream: CancelKey,
}

impl CancelKeys {
    /// Registers a key for a session; it holds until the guard is dropped.
    pub(super) fn register(
        self: &Arc<Self>,
        key: CancelKey,
        intercepted: &Intercepted,
        upstream: CancelKey,
    ) -> CancelGuard {
        let entry = Entry {
            workload: intercepted.workload.clone(),
            target: intercepted.target.name.clone(),
            uid: intercepted.origin.uid,
            upstream,
        };
        self.lock().insert(key.clone(), entry);
        CancelGuard {
            keys: self.clone(),
            key,
        }
    }

    /// The server's key behind `key`, if the caller is whose session it is:
    /// the same workload under the same uid, for the same target.
    fn find(&self, key: &CancelKey, caller: &Intercepted) -> Option<CancelKey> {
        let entry = self.lock().get(key).cloned()?;
        let own = entry.workload == caller.workload
            && entry.target == caller.target.name
            && entry.uid == caller.origin.uid;
        own.then_some(entry.upstream)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CancelKey, Entry>> {
        self.sessions
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Takes a key back when its session ends.
#[derive(Debug)]
pub(super) struct CancelGuard {
    keys: Arc<CancelKeys>,
    key: CancelKey,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

/// Sends the server the cancel request that `key` stands for. As at a real
/// server, the client gets no answer either way.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
    key: &CancelKey,
) -> Result<(), StartupError> {
    let Some(upstream_key) = worker.shared.cancel_keys.find(key, intercepted) else {
        return Err(StartupError::ForeignCancel);
    };
    let mut server = upstream::dial(worker, intercepted).await?;
    if intercepted.target.upstream.is_on() {
        server = upstream::start_tls(intercepted, server).await?;
    }
    server
        .output
        .extend_from_slice(&cancel_request(&upstream_key));
    server.flush().await.map_err(StartupError::Server)?;
    // The server closes once it has seen the request; closing first could
    // overtake it (as libpq's PQcancel documents).
    while server.receive().await.map_err(StartupError::Server)? {
        server.input.clear();
    }
    Ok(())
}
