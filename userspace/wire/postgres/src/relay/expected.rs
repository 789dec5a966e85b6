use bytes::Bytes;

use super::denial::Replaced;

/// A message that was sent to the server, and so an answer that is due.
#[derive(Debug)]
pub(super) enum Expected {
    /// Until ReadyForQuery.
    Query(Running),
    /// Until ParseComplete.
    Parse { name: Bytes, replaced: Option<Replaced> },
    /// Until BindComplete.
    Bind { portal: Bytes, ticket: Option<u64>, replaced: Option<Replaced> },
    /// Until RowDescription or NoData.
    Describe,
    /// Until CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute(Running),
    /// Until CloseComplete.
    Close { statement: bool, name: Bytes },
    /// Until ReadyForQuery.
    Sync,
}

/// A command that is being answered.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) ticket: Option<u64>,
    pub(super) replaced: Option<Replaced>,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Its end has been reported.
    pub(super) ended: bool,
}

impl Expected {
    /// Our own refusal that is due here.
    pub(super) fn replaced(&self) -> Option<&Replaced> {
        match self {
            Self::Query(running) | Self::Execute(running) => running.replaced.as_ref(),
            Self::Parse { replaced, .. } | Self::Bind { replaced, .. } => replaced.as_ref(),
            Self::Describe | Self::Close { .. } | Self::Sync => None,
        }
    }

    /// For messages to people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Query(_) => "Query",
            Self::Parse { .. } => "Parse",
            Self::Bind { .. } => "Bind",
            Self::Describe => "Describe",
            Self::Execute(_) => "Execute",
            Self::Close { .. } => "Close",
            Self::Sync => "Sync",
        }
    }
}
