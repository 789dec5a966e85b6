use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use lockgate_audit::{Sealer, Spool, SpoolSettings, Store};
use lockgate_config::Audit;
use lockgate_ipc::SegmentId;
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

mod intake;
mod sealing;
mod shipping;

use intake::Intake;
pub(crate) use intake::Writer;
use sealing::Sealing;
pub(crate) use shipping::ship;

/// How often open segments are looked at.
const FOLLOW: Duration = Duration::from_millis(50);

/// Nice value of the thread that seals while there is room: the commands of
/// clients come first.
const PATIENT: i32 = 19;

/// The record: hands out spool segments, seals what is in them into the store.
///
/// Two threads of its own do it, since they wait for the disk. One hands out
/// segments, at once. The other seals, with whatever processor time nobody else
/// wants; when half of the spool waits for it, the first one helps.
pub(crate) struct Record {
    orders: Sender<Order>,
    numbers: Arc<Mutex<Numbers>>,
}

/// Numbers for operators.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Numbers {
    /// Segments on disk.
    pub(crate) spool_segments: u32,
    /// As many as may be.
    pub(crate) spool_max_segments: u32,
    /// Bytes of them.
    pub(crate) spool_bytes: u64,
    /// Events sealed since the start.
    pub(crate) sealed: u64,
    /// Events in the store.
    pub(crate) stored: u64,
    /// Damaged segments put aside since the start.
    pub(crate) damaged: u64,
    /// What went wrong last; none if the last round went well.
    pub(crate) error: Option<String>,
    /// Events that wait for ClickHouse; none without one.
    pub(crate) unshipped: Option<u64>,
    /// What went wrong last with ClickHouse.
    pub(crate) clickhouse_error: Option<String>,
}

enum Order {
    Segment {
        writer: Writer,
        answer: oneshot::Sender<Result<(SegmentId, OwnedFd), String>>,
    },
    Bounds(SpoolSettings),
    Note(String),
    /// Answered when everything is sealed that is there.
    Finish(oneshot::Sender<()>),
}

impl Record {
    /// Opens spool and store in `state_dir` and begins to seal what is left
    /// there from before. The receiver is closed if one of the threads ends:
    /// nothing is recorded then, so keeper must end as well.
    pub(crate) fn start(
        state_dir: &Path,
        host: &str,
        boot: Uuid,
        audit: &Audit,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let spool = Spool::open(&state_dir.join("spool"), boot, bounds(audit))?;
        let store = Store::open(&store_path(state_dir))?;
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        let shared = Arc::new(Shared {
            intake: Mutex::new(Intake::new(spool)),
            sealing: Mutex::new(Sealing::new(Sealer::new(store, host))),
            numbers: numbers.clone(),
            pressing: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        let sealing = shared.clone();
        let sealer = std::thread::Builder::new()
            .name("seal".into())
            .spawn(move || sealing.seal_patiently())?;
        let (orders, inbox) = channel();
        let (alive, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("record".into())
            .spawn(move || {
                let _alive = alive;
                let finishing = shared.take_orders(&inbox, sealer);
                // Spool and store are free for the next keeper before it is said.
                drop(shared);
                if let Some(finishing) = finishing {
                    // Who waits may have been ended.
                    let _ = finishing.send(());
                }
            })?;
        Ok((Self { orders, numbers }, ended))
    }

    /// A fresh segment for `writer`.
    pub(crate) async fn segment(&self, writer: Writer) -> Result<(SegmentId, OwnedFd), String> {
        let (answer, waits) = oneshot::channel();
        let gone = || "the thread that keeps the record has ended".to_owned();
        self.orders
            .send(Order::Segment { writer, answer })
            .map_err(|_| gone())?;
        waits.await.map_err(|_| gone())?
    }

    /// Follows a changed configuration.
    pub(crate) fn adopt(&self, audit: &Audit) {
        // Without the thread nothing is recorded, so nothing is permitted.
        let _ = self.orders.send(Order::Bounds(bounds(audit)));
    }

    /// Records something about the agent itself.
    pub(crate) fn note(&self, what: String) {
        let _ = self.orders.send(Order::Note(what));
    }

    /// Returns when everything is sealed that is there, keeper's own events
    /// too. Nothing is recorded after that.
    pub(crate) async fn finish(&self) {
        let (answer, waits) = oneshot::channel();
        // Without the thread there is nothing to wait for.
        if self.orders.send(Order::Finish(answer)).is_ok() {
            let _ = waits.await;
        }
    }

    /// How it stands.
    pub(crate) fn numbers(&self) -> Numbers {
        lock(&self.numbers).clone()
    }

    /// For the task that ships.
    pub(crate) fn shared_numbers(&self) -> Arc<Mutex<Numbers>> {
        self.numbers.clone()
    }
}

/// Where the store is.
pub(crate) fn store_path(state_dir: &Path) -> PathBuf {
    state_dir.join("audit.sqlite")
}

fn bounds(audit: &Audit) -> SpoolSettings {
    SpoolSettings {
        segment_bytes: u64::from(audit.segment_mib) << 20,
        max_segments: audit.max_segments,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

struct Shared {
    intake: Mutex<Intake>,
    /// Held while something is sealed. Whoever holds it may lock `intake`, for
    /// a moment; never the other way round.
    sealing: Mutex<Sealing>,
    numbers: Arc<Mutex<Numbers>>,
    /// The patient thread is to leave `sealing` to the other one.
    pressing: AtomicBool,
    ending: AtomicBool,
}

impl Shared {
    /// Seals until keeper ends.
    fn seal_patiently(&self) {
        // The first argument of setpriority(2) is the calling thread's.
        if let Err(error) = rustix::process::setpriority_process(None, PATIENT) {
            tracing::warn!(%error, "sealing competes with the commands of clients");
        }
        while !self.ending.load(Ordering::Acquire) {
            if self.pressing.load(Ordering::Acquire) || !self.seal(true) {
                std::thread::sleep(FOLLOW);
            }
        }
    }

    /// Until keeper ends, or the other thread does. Returns who waits for that.
    fn take_orders(
        &self,
        inbox: &Receiver<Order>,
        sealer: JoinHandle<()>,
    ) -> Option<oneshot::Sender<()>> {
        let finishing = loop {
            match inbox.recv_timeout(FOLLOW) {
                Ok(Order::Finish(answer)) => break Some(answer),
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
            }
            // A spool that cannot be asked says why in the next round.
            let pressing = lock(&self.intake).is_pressing().unwrap_or(true);
            self.pressing.store(pressing, Ordering::Release);
            if pressing {
                self.seal(true);
            }
            if sealer.is_finished() {
                break None;
            }
        };
        self.ending.store(true, Ordering::Release);
        // It may have panicked; then it has ended all the same.
        let _ = sealer.join();
        if finishing.is_some() {
            lock(&self.intake).close();
            self.seal(false);
        }
        finishing
    }

    fn obey(&self, order: Order) {
        match order {
            Order::Segment { writer, answer } => {
                let result = lock(&self.intake).create(writer);
                // A proxy that ended meanwhile leaves an empty segment, which
                // is removed when nobody has it.
                let _ = answer.send(result.map_err(|why| why.to_string()));
            }
            Order::Bounds(bounds) => lock(&self.intake).spool.set_bounds(bounds),
            Order::Note(what) => {
                if let Err(error) = lock(&self.intake).note(&what) {
                    tracing::error!(%error, %what, "an event of the agent is not in the record");
                }
            }
            // Ends the loop that obeys.
            Order::Finish(_) => {}
        }
    }

    /// One round, or one step of it: whether there is more.
    fn seal(&self, step_only: bool) -> bool {
        let result = lock(&self.sealing).round(&self.intake, step_only);
        let mut numbers = lock(&self.numbers);
        let mut more = false;
        let error = match result {
            Ok(round) => {
                more = round.more;
                numbers.sealed += round.sealed;
                numbers.damaged += round.damaged;
                numbers.spool_segments = round.fullness.segments;
                numbers.spool_max_segments = round.fullness.max_segments;
                numbers.spool_bytes = round.fullness.bytes;
                if let Some(stored) = round.stored {
                    numbers.stored = stored;
                }
                None
            }
            Err(why) => Some(format!("{why:#}")),
        };
        if numbers.error != error {
            match &error {
                Some(error) => tracing::error!(%error, "the record cannot be sealed"),
                None => tracing::info!("the record is sealed again"),
            }
        }
        numbers.error = error;
        more
    }
}
