use std::process::ExitCode;

/// Exit codes that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Yes, fine.
    Yes = 0,
    /// No: a check found something, a policy would deny.
    No = 1,
    /// Usage or configuration.
    Usage = 2,
    /// The agent or a server cannot be reached.
    Away = 3,
}

/// The agent cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct AgentAway(pub(crate) String);

impl Exit {
    /// What an error exits with.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<AgentAway>() {
            Some(_) => Self::Away,
            None => Self::Usage,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
