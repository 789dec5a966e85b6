use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockgate_audit::{ClickHouse, ClickHouseSettings, Store};
use tokio::sync::watch;

use super::{Numbers, lock, store_path};
use crate::gate::{Gate, HttpConnector};

/// Events shipped in one batch.
const BATCH: u32 = 50_000;

/// Between two attempts to ship, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often the store is asked for what is new.
const LOOK: Duration = Duration::from_millis(500);

/// Ships the record to ClickHouse until `settings` says another place or none.
/// Never blocks a command: it reads from the store what is sealed already.
pub(crate) async fn ship(
    state_dir: PathBuf,
    gate: Gate,
    numbers: Arc<Mutex<Numbers>>,
    mut settings: watch::Receiver<Option<ClickHouseSettings>>,
) {
    loop {
        let current = settings.borrow_and_update().clone();
        let Some(current) = current else {
            lock(&numbers).unshipped = None;
            if settings.changed().await.is_err() {
                return;
            }
            continue;
        };
        let connector = HttpConnector(gate.clone());
        let shipping = async {
            let server = ClickHouse::over(connector, current).map_err(anyhow::Error::from)?;
            ship_to(&state_dir, &server, &numbers).await
        };
        tokio::select! {
            result = shipping => {
                if let Err(error) = result {
                    tracing::error!(%error, "nothing is shipped to ClickHouse until the configuration changes");
                    lock(&numbers).clickhouse_error = Some(error.to_string());
                }
                if settings.changed().await.is_err() {
                    return;
                }
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn ship_to(
    state_dir: &Path,
    server: &ClickHouse,
    numbers: &Mutex<Numbers>,
) -> anyhow::Result<()> {
    let path = store_path(state_dir);
    let store = Arc::new(Mutex::new(
        tokio::task::spawn_blocking(move || Store::open(&path)).await??,
    ));
    let mut migrated = false;
    let mut retry = RETRY.0;
    loop {
        let shipped = async {
            if !migrated {
                server.migrate().await?;
                migrated = true;
            }
            let taken = store.clone();
            let next = tokio::task::spawn_blocking(move || {
                let mut store = lock(&taken);
                let unshipped = store.unshipped()?;
                Ok::<_, anyhow::Error>((store.next_batch(BATCH)?, unshipped))
            });
            let (batch, unshipped) = next.await??;
            lock(numbers).unshipped = Some(unshipped);
            let Some(batch) = batch else { return Ok(false) };
            server.insert(&batch).await?;
            let taken = store.clone();
            tokio::task::spawn_blocking(move || lock(&taken).shipped(&batch)).await??;
            Ok::<_, anyhow::Error>(true)
        };
        match shipped.await {
            Ok(more) => {
                lock(numbers).clickhouse_error = None;
                retry = RETRY.0;
                if !more {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, retry_s = retry.as_secs(), "ClickHouse");
                lock(numbers).clickhouse_error = Some(error.to_string());
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}
