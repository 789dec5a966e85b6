use bytes::Bytes;

use super::denial::Replaced;
use super::masking::Masked;

/// A message that was sent to the server, and so an answer that is due.
#[derive(Debug)]
pub(super) enum Expected {
    /// Until ReadyForQuery.
    Query(Running),
    /// Until ParseComplete.
    Parse { name: Bytes, number: u64 },
    /// Until BindComplete.
    Bind {
        portal: Bytes,
        number: u64,
        ticket: u64,
    },
    /// A denied Parse or Bind; until its error.
    Refused(Box<Replaced>),
    /// Until RowDescription or NoData.
    Describe,
    /// Until CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute {
        portal: Bytes,
        running: Running,
        /// Whether the portal's rows may have to be masked: it is not answered by
        /// a portal of which that is not known.
        may_be_masked: bool,
    },
    /// Until CloseComplete.
    Close { statement: bool, name: Bytes },
    /// Until ReadyForQuery.
    Sync,
    /// A question of lockgate's own, until its second ReadyForQuery.
    Question {
        /// So far; none if it failed.
        rows: Option<Vec<Vec<Option<String>>>>,
        /// The answer is there; what it went by is being closed.
        closing: bool,
    },
    /// CopyDone or CopyFail that was sent before the COPY it ends was
    /// answered. It has no answer of its own, and none at all means that the
    /// server read over it.
    CopyEnd,
}

/// A command that is being answered.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// Of a Query. An Execute has its Bind's.
    pub(super) ticket: Option<u64>,
    pub(super) replaced: Option<Box<Replaced>>,
    /// How its rows are shown. Of an Execute, from its first row on.
    pub(super) masked: Option<Box<Masked>>,
    /// By the command tags.
    pub(super) rows: u64,
    /// DataRow messages: PortalSuspended has no tag.
    pub(super) shown: u64,
    pub(super) bytes: u64,
    /// There was an answer that ReadyForQuery can follow.
    pub(super) answered: bool,
    /// Its end has been reported.
    pub(super) ended: bool,
    /// The server takes COPY data for it.
    pub(super) copying: bool,
}

impl Expected {
    /// Our own refusal that is due here.
    pub(super) fn replaced(&self) -> Option<&Replaced> {
        match self {
            Self::Query(running) | Self::Execute { running, .. } => running.replaced.as_deref(),
            Self::Refused(replaced) => Some(replaced),
            Self::Parse { .. }
            | Self::Bind { .. }
            | Self::Describe
            | Self::Close { .. }
            | Self::Sync
            | Self::Question { .. }
            | Self::CopyEnd => None,
        }
    }

    /// The command that is being answered here.
    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match self {
            Self::Query(running) | Self::Execute { running, .. } => Some(running),
            _ => None,
        }
    }

    /// For messages to people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Query(_) => "Query",
            Self::Parse { .. } => "Parse",
            Self::Bind { .. } => "Bind",
            Self::Refused(_) => "message",
            Self::Describe => "Describe",
            Self::Execute { .. } => "Execute",
            Self::Close { .. } => "Close",
            Self::Sync => "Sync",
            Self::Question { .. } => "lockgate's own question",
            Self::CopyEnd => "CopyDone",
        }
    }
}
