use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;

use lockgate_audit::{Fullness, SealError, Sealer, SegmentName, SpoolError, SpoolReader};

use super::intake::Intake;
use super::lock;

/// Events sealed in one transaction.
const AT_ONCE: usize = 4096;

/// From the spool into the store.
pub(super) struct Sealing {
    sealer: Sealer,
    readers: HashMap<SegmentName, SpoolReader>,
}

/// What one round did.
pub(super) struct Round {
    /// Events that are in the store now and were not before.
    pub(super) sealed: u64,
    /// Segments that were put aside since they are damaged.
    pub(super) damaged: u64,
    /// Events in the store, if any was added.
    pub(super) stored: Option<u64>,
    /// Whether a stream has more than one step took.
    pub(super) more: bool,
    /// Of the spool, afterwards.
    pub(super) fullness: Fullness,
}

/// What became of one segment.
enum Segment {
    /// Its writer has gone and everything is sealed.
    Done,
    /// More may come.
    Open,
    /// More is there already.
    More,
    /// What stands before the damage is sealed.
    Damaged(String),
}

impl Sealing {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            readers: HashMap::new(),
        }
    }

    /// Seals what there is, or with `step_only` one step of each stream at most,
    /// and removes segments that are done.
    pub(super) fn round(
        &mut self,
        intake: &Mutex<Intake>,
        step_only: bool,
    ) -> anyhow::Result<Round> {
        let (mut sealed, mut damaged, mut more) = (0, 0, false);
        let mut waiting_stream = None;
        let segments = lock(intake).spool.segments()?;
        for name in segments {
            // A later segment of a stream waits for the one before.
            if waiting_stream == Some(name.stream) {
                continue;
            }
            let (events, segment) = self.segment(intake, name, step_only)?;
            sealed += events;
            match segment {
                Segment::Open => waiting_stream = Some(name.stream),
                Segment::More => {
                    more = true;
                    waiting_stream = Some(name.stream);
                }
                Segment::Done => {
                    self.readers.remove(&name);
                    lock(intake).spool.remove(name)?;
                }
                Segment::Damaged(why) => {
                    self.readers.remove(&name);
                    let mut intake = lock(intake);
                    let path = intake.spool.set_aside(name)?;
                    let what = format!(
                        "a spool segment is damaged ({why}) and was set aside as {}",
                        path.display()
                    );
                    tracing::error!(%what);
                    damaged += 1;
                    intake.note(&what)?;
                }
            }
        }
        Ok(Round {
            sealed,
            damaged,
            stored: match sealed {
                0 => None,
                _ => Some(self.sealer.store().events()?),
            },
            more,
            fullness: lock(intake).spool.fullness()?,
        })
    }

    /// Seals one segment; how many events that were, and what became of it.
    fn segment(
        &mut self,
        intake: &Mutex<Intake>,
        name: SegmentName,
        step_only: bool,
    ) -> anyhow::Result<(u64, Segment)> {
        // Asked before the last read: what is read after a no is all there is.
        let finished = !lock(intake).spool.has_writer(name)?;
        let reader = match self.readers.entry(name) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => match lock(intake).spool.reader(name) {
                Ok(reader) => unknown.insert(reader),
                Err(SpoolError::Read(why)) => return Ok((0, Segment::Damaged(why.to_string()))),
                Err(why) => return Err(why.into()),
            },
        };
        let mut events = 0;
        loop {
            match self.sealer.seal(reader, AT_ONCE) {
                Ok(sealed) => {
                    events += sealed.events;
                    if sealed.caught_up {
                        break;
                    }
                    if step_only {
                        return Ok((events, Segment::More));
                    }
                }
                Err(SealError::Read(why)) => {
                    return Ok((events, Segment::Damaged(why.to_string())));
                }
                Err(SealError::Store(why)) => return Err(why.into()),
            }
        }
        if !finished {
            return Ok((events, Segment::Open));
        }
        Ok(match reader.check_tail() {
            Ok(()) => (events, Segment::Done),
            Err(why) => (events, Segment::Damaged(why.to_string())),
        })
    }
}
