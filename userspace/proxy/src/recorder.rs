use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use lockgate_audit::{Event, EventKind, SpoolError, SpoolWriter};
use lockgate_command::{ConnectionId, TargetName, WorkloadName};
use lockgate_config::{Audit, Durability, WhenFull};
use lockgate_identity::Origin;
use lockgate_ipc::{Dialogue, Reply, SegmentId};

use crate::links::KeeperError;
use crate::stream::Side;
use crate::worker::Shared;

mod group_commit;
use group_commit::GroupCommit;

/// Why an event is not in the spool.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Every segment is full and keeper gave no other.
    #[error("the audit spool is full, and `audit.when_full` is `strict`: {0}")]
    Full(KeeperError),
    /// The segment cannot be written.
    #[error("the audit spool cannot be written: {0}")]
    Spool(#[from] SpoolError),
    /// The disk did not take it.
    #[error("the audit spool cannot be synced: {0}")]
    Sync(std::io::Error),
}

/// A thread's stream of events. An event is appended by the connection's own
/// thread to memory that it shares with keeper; nothing is sent.
pub(crate) struct Recorder {
    worker: u32,
    shared: Arc<Shared>,
    commit: GroupCommit,
    state: RefCell<State>,
    refilling: Cell<bool>,
    fetching: tokio::sync::Mutex<()>,
}

struct State {
    current: Option<Segment>,
    spare: Option<Segment>,
    /// Bytes appended to the segments before the current one.
    before: u64,
    durability: Durability,
    when_full: WhenFull,
    last_refusal: KeeperError,
}

struct Segment {
    id: SegmentId,
    writer: SpoolWriter,
}

impl Recorder {
    /// A stream without a segment; [`Recorder::ready`] fetches one.
    pub(crate) fn new(
        worker: u32,
        shared: Arc<Shared>,
        audit: &Audit,
    ) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            worker,
            shared,
            commit: GroupCommit::start(worker)?,
            state: RefCell::new(State {
                current: None,
                spare: None,
                before: 0,
                durability: audit.durability,
                when_full: audit.when_full,
                last_refusal: KeeperError::Away,
            }),
            refilling: Cell::new(false),
            fetching: tokio::sync::Mutex::new(()),
        }))
    }

    /// Follows a changed configuration.
    pub(crate) fn adopt(&self, audit: &Audit) {
        let mut state = self.state.borrow_mut();
        state.durability = audit.durability;
        state.when_full = audit.when_full;
    }

    /// Returns once there is room for events, or why there is none.
    pub(crate) async fn ready(self: &Rc<Self>) -> Result<(), RecordError> {
        if self.state.borrow().current.is_some() {
            return Ok(());
        }
        // One at a time: segments of a stream are written in the order in which
        // keeper numbers them.
        let _fetching = self.fetching.lock().await;
        if self.begin_spare() {
            self.refill();
            return Ok(());
        }
        match self.fetch().await {
            Ok(segment) => {
                self.begin(&mut self.state.borrow_mut(), segment);
                self.refill();
                Ok(())
            }
            Err(why) => match self.state.borrow().when_full {
                WhenFull::BestEffort => Ok(()),
                WhenFull::Strict => Err(RecordError::Full(why)),
            },
        }
    }

    /// Whether there is a current segment, if need be the spare one.
    fn begin_spare(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if state.current.is_none()
            && let Some(spare) = state.spare.take()
        {
            self.begin(&mut state, spare);
        }
        state.current.is_some()
    }

    /// Appends an event. The position is for [`Recorder::durable`].
    pub(crate) fn record(self: &Rc<Self>, event: &Event) -> Result<u64, RecordError> {
        let mut state = self.state.borrow_mut();
        let result = self.append(&mut state, event);
        let when_full = state.when_full;
        drop(state);
        match result {
            Err(error) => {
                self.shared.counters.spool_full.fetch_add(1, Relaxed);
                self.refill();
                match when_full {
                    WhenFull::BestEffort => Ok(0),
                    WhenFull::Strict => Err(error),
                }
            }
            ok => ok,
        }
    }

    fn append(self: &Rc<Self>, state: &mut State, event: &Event) -> Result<u64, RecordError> {
        loop {
            let full = RecordError::Full(state.last_refusal.clone());
            let Some(segment) = &mut state.current else {
                let Some(spare) = state.spare.take() else {
                    return Err(full);
                };
                self.begin(state, spare);
                continue;
            };
            match segment.writer.append(event) {
                Ok(position) => {
                    let position = state.before + position;
                    self.commit.wrote(position);
                    return Ok(position);
                }
                Err(SpoolError::Full) => {
                    // Only when there is another: a smaller event may still fit.
                    let Some(spare) = state.spare.take() else {
                        return Err(full);
                    };
                    self.roll(state, spare);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn begin(&self, state: &mut State, segment: Segment) {
        self.commit.opened(segment.writer.sync());
        state.current = Some(segment);
    }

    fn roll(self: &Rc<Self>, state: &mut State, spare: Segment) {
        if let Some(full) = state.current.take() {
            state.before += full.writer.position();
            let (this, segment) = (self.clone(), full.id);
            tokio::task::spawn_local(async move {
                this.shared
                    .keeper
                    .tell(Dialogue::SegmentFull { segment })
                    .await;
            });
        }
        self.begin(state, spare);
        self.fetch_spare();
    }

    /// Fetches a spare segment in the background, if there is none.
    pub(crate) fn refill(self: &Rc<Self>) {
        if self.state.borrow().spare.is_none() {
            self.fetch_spare();
        }
    }

    /// Apart from [`Recorder::refill`], because who rolls holds the state.
    fn fetch_spare(self: &Rc<Self>) {
        if self.refilling.replace(true) {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let _fetching = this.fetching.lock().await;
            if this.state.borrow().spare.is_some() {
                this.refilling.set(false);
                return;
            }
            let fetched = this.fetch().await;
            let mut state = this.state.borrow_mut();
            match fetched {
                Ok(segment) => state.spare = Some(segment),
                Err(why) => {
                    tracing::warn!(%why, "no spare spool segment");
                    state.last_refusal = why;
                }
            }
            this.refilling.set(false);
        });
    }

    async fn fetch(&self) -> Result<Segment, KeeperError> {
        let ask = Dialogue::Segment {
            worker: self.worker,
        };
        let (id, fd): (SegmentId, OwnedFd) = match self.shared.keeper.ask(ask).await? {
            (Reply::Segment { segment }, Some(fd)) => (segment, fd),
            _ => return Err(KeeperError::Unexpected),
        };
        let writer =
            SpoolWriter::open(fd.into()).map_err(|why| KeeperError::Refused(why.to_string()))?;
        Ok(Segment { id, writer })
    }

    /// The position to wait for before a command may leave, by the configured
    /// durability.
    pub(crate) fn must_be_durable(&self, position: u64, writes: bool) -> Option<u64> {
        match self.state.borrow().durability {
            Durability::Write => None,
            Durability::FsyncWrites => writes.then_some(position),
            Durability::Fsync => Some(position),
        }
    }

    /// Returns when everything up to `position` is on disk.
    pub(crate) async fn durable(&self, position: u64) -> Result<(), RecordError> {
        self.commit.wait(position).await.map_err(RecordError::Sync)
    }

    /// Records that a connection did not become a session. Where that cannot be
    /// recorded there is nothing left to refuse; the log has it.
    pub(crate) async fn refused(
        self: &Rc<Self>,
        connection: ConnectionId,
        workload: &WorkloadName,
        target: Option<&TargetName>,
        origin: &Origin,
        reason: &str,
    ) {
        let event = Event::now(
            Some(connection),
            EventKind::Refused {
                workload: workload.clone(),
                target: target.cloned(),
                origin: Box::new(origin.clone()),
                reason: reason.to_owned(),
            },
        );
        let result = match self.ready().await {
            Ok(()) => self.record(&event).map(|_| ()),
            Err(why) => Err(why),
        };
        if let Err(why) = result {
            tracing::error!(%connection, %why, "a refused connection is not in the record");
        }
    }

    /// Records the end of a session.
    pub(crate) fn closed(
        self: &Rc<Self>,
        connection: ConnectionId,
        reason: &str,
        client: &Side,
        server: &Side,
        started: Instant,
    ) {
        let event = Event::now(
            Some(connection),
            EventKind::Closed {
                reason: reason.to_owned(),
                client_bytes: client.received,
                server_bytes: server.received,
                duration_us: started.elapsed().as_micros() as u64,
            },
        );
        if let Err(why) = self.record(&event) {
            tracing::error!(%connection, %why, "the end of a connection is not in the record");
        }
    }
}
