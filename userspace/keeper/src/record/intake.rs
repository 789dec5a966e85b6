use std::collections::HashMap;
use std::os::fd::OwnedFd;

use lockgate_audit::{Event, EventKind, Spool, SpoolError, SpoolWriter};
use lockgate_ipc::SegmentId;

use crate::attested::Generation;

/// Who writes a stream: a worker of one proxy. A proxy that is started anew is
/// another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) generation: Generation,
    pub(crate) worker: u32,
}

/// The spool: what events come into. Never held for longer than a few calls of
/// the file system, since proxies wait for it.
pub(super) struct Intake {
    pub(super) spool: Spool,
    /// Stream and next index of each writer.
    streams: HashMap<Writer, (u32, u32)>,
    /// keeper's own events.
    own: Option<(SpoolWriter, u32, u32)>,
}

impl Intake {
    pub(super) fn new(spool: Spool) -> Self {
        Self {
            spool,
            streams: HashMap::new(),
            own: None,
        }
    }

    /// The next segment of `writer`.
    pub(super) fn create(&mut self, writer: Writer) -> Result<(SegmentId, OwnedFd), SpoolError> {
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

    /// Records something about the agent itself.
    pub(super) fn note(&mut self, what: &str) -> Result<(), SpoolError> {
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

    /// keeper itself has nothing more to say.
    pub(super) fn close(&mut self) {
        self.own = None;
    }

    /// Whether what waits to be sealed takes so much of the spool that sealing
    /// cannot wait for others any longer.
    pub(super) fn is_pressing(&self) -> Result<bool, SpoolError> {
        let fullness = self.spool.fullness()?;
        Ok(fullness.segments.saturating_mul(2) > fullness.max_segments)
    }
}
