use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lockgate_audit::{
    Event, EventKind, SealError, Sealer, SegmentName, Spool, SpoolError, SpoolReader,
    SpoolSettings, SpoolWriter, Store,
};
use lockgate_config::Audit;
use lockgate_ipc::SegmentId;
use serde::Serialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::attested::Generation;

mod shipping;

pub(crate) use shipping::ship;

/// How often open segments are looked at.
const FOLLOW: Duration = Duration::from_millis(50);

/// Events sealed in one transaction.
const SEALED_AT_ONCE: usize = 4096;

/// The record: hands out spool segments, seals what is in them into the store.
/// A thread of its own does it, since it waits for the disk.
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

/// Who writes a stream: a worker of one proxy. A proxy that is started anew is
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) generation: Generation,
    pub(crate) worker: u32,
}

impl Record {
    /// Opens spool and store in `state_dir` and begins to seal what is left
    /// there from before. The receiver is closed if the sealing thread ends:
    /// nothing is recorded then, so keeper must end as well.
    pub(crate) fn start(
        state_dir: &Path,
        host: &str,
        boot: Uuid,
        audit: &Audit,
    ) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        let spool = Spool::open(&state_dir.join("spool"), boot, bounds(audit))?;
        let store = Store::open(&store_path(state_dir))?;
        let (orders, inbox) = channel();
        let numbers = Arc::new(Mutex::new(Numbers::default()));
        let mut sealing = Sealing {
            spool,
            sealer: Sealer::new(store, host),
            readers: HashMap::new(),
            streams: HashMap::new(),
            own: None,
            finishing: None,
            numbers: numbers.clone(),
        };
        let (alive, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("seal".into())
            .spawn(move || {
                let _alive = alive;
                let finishing = sealing.run(&inbox);
                // Spool and store are free for the next keeper before it is said.
                drop(sealing);
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
        let gone = || "the thread that seals the record has ended".to_owned();
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

struct Sealing {
    spool: Spool,
    sealer: Sealer,
    readers: HashMap<SegmentName, SpoolReader>,
    /// Stream and next index of each writer.
    streams: HashMap<Writer, (u32, u32)>,
    /// keeper's own events.
    own: Option<(SpoolWriter, u32, u32)>,
    finishing: Option<oneshot::Sender<()>>,
    numbers: Arc<Mutex<Numbers>>,
}

impl Sealing {
    /// Until keeper ends. Returns who waits for that.
    fn run(&mut self, inbox: &Receiver<Order>) -> Option<oneshot::Sender<()>> {
        loop {
            match inbox.recv_timeout(FOLLOW) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            while let Ok(order) = inbox.try_recv() {
                self.obey(order);
            }
            let result = self.round();
            let error = result.err().map(|why| format!("{why:#}"));
            let mut numbers = lock(&self.numbers);
            if numbers.error != error {
                match &error {
                    Some(error) => tracing::error!(%error, "the record cannot be sealed"),
                    None => tracing::info!("the record is sealed again"),
                }
            }
            numbers.error = error;
            drop(numbers);
            if self.finishing.is_some() {
                return self.finishing.take();
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Segment { writer, answer } => {
                let result = self.create(writer).map_err(|why| why.to_string());
                // A proxy that ended meanwhile leaves an empty segment, which
                // is removed when nobody has it.
                let _ = answer.send(result);
            }
            Order::Bounds(bounds) => self.spool.set_bounds(bounds),
            Order::Note(what) => {
                if let Err(error) = self.note(&what) {
                    tracing::error!(%error, %what, "an event of the agent is not in the record");
                }
            }
            Order::Finish(answer) => {
                self.own = None;
                self.finishing = Some(answer);
            }
        }
    }

    fn create(&mut self, writer: Writer) -> Result<(SegmentId, OwnedFd), SpoolError> {
        let (stream, index) = match self.streams.get(&writer) {
            Some(next) => *next,
            None => (self.spool.new_stream()?, 0),
        };
        let fd = self.spool.create(stream, index)?;
        // Only writers of the newest proxy ask again.
        self.streams
            .retain(|known, _| known.generation == writer.generation);
        self.streams.insert(writer, (stream, index + 1));
        Ok((SegmentId { stream, index }, fd))
    }

    fn note(&mut self, what: &str) -> Result<(), SpoolError> {
        let kind = EventKind::Agent {
            role: "keeper".into(),
            what: what.to_owned(),
        };
        let event = Event::now(None, kind);
        let (stream, next) = match &mut self.own {
            Some((writer, stream, next)) => match writer.append(&event) {
                Err(SpoolError::Full) => (*stream, *next),
                result => return result.map(|_| ()),
            },
            None => (self.spool.new_stream()?, 0),
        };
        let fd = self.spool.create(stream, next)?;
        let mut writer = SpoolWriter::open(fd.into())?;
        writer.append(&event)?;
        self.own = Some((writer, stream, next + 1));
        Ok(())
    }

    /// Seals what there is, and removes segments that are done.
    fn round(&mut self) -> anyhow::Result<()> {
        let mut sealed = 0;
        let mut waiting_stream = None;
        for name in self.spool.segments()? {
            // A later segment of a stream waits for the one before.
            if waiting_stream == Some(name.stream) {
                continue;
            }
            match self.seal(name) {
                Ok((events, done)) => {
                    sealed += events;
                    if done {
                        self.readers.remove(&name);
                        self.spool.remove(name)?;
                    } else {
                        waiting_stream = Some(name.stream);
                    }
                }
                Err(Trouble::Damaged(why)) => {
                    self.readers.remove(&name);
                    let path = self.spool.set_aside(name)?;
                    let what = format!(
                        "a spool segment is damaged ({why}) and was set aside as {}",
                        path.display()
                    );
                    tracing::error!(%what);
                    lock(&self.numbers).damaged += 1;
                    self.note(&what)?;
                }
                Err(Trouble::Later(error)) => return Err(error),
            }
        }
        let fullness = self.spool.fullness()?;
        let stored = match sealed {
            0 => None,
            _ => Some(self.sealer.store().events()?),
        };
        let mut numbers = lock(&self.numbers);
        numbers.sealed += sealed;
        numbers.spool_segments = fullness.segments;
        numbers.spool_max_segments = fullness.max_segments;
        numbers.spool_bytes = fullness.bytes;
        if let Some(stored) = stored {
            numbers.stored = stored;
        }
        Ok(())
    }

    /// How many events were sealed, and whether the segment is done.
    fn seal(&mut self, name: SegmentName) -> Result<(u64, bool), Trouble> {
        let later = |why: SpoolError| Trouble::Later(why.into());
        // Asked before the last read: what is read after a no is all there is.
        let finished = !self.spool.has_writer(name).map_err(later)?;
        if !self.readers.contains_key(&name) {
            let reader = match self.spool.reader(name) {
                Ok(reader) => reader,
                Err(SpoolError::Read(why)) => return Err(Trouble::Damaged(why.to_string())),
                Err(why) => return Err(later(why)),
            };
            self.readers.insert(name, reader);
        }
        let Some(reader) = self.readers.get_mut(&name) else {
            return Ok((0, false));
        };
        let mut events = 0;
        loop {
            match self.sealer.seal(reader, SEALED_AT_ONCE) {
                Ok(sealed) => {
                    events += sealed.events;
                    if sealed.caught_up {
                        break;
                    }
                }
                // What stands before the damage is sealed.
                Err(SealError::Read(why)) => return Err(Trouble::Damaged(why.to_string())),
                Err(SealError::Store(why)) => return Err(Trouble::Later(why.into())),
            }
        }
        if finished {
            reader
                .check_tail()
                .map_err(|why| Trouble::Damaged(why.to_string()))?;
        }
        Ok((events, finished))
    }
}

enum Trouble {
    Damaged(String),
    Later(anyhow::Error),
}
