use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Access, Command, Shown};

/// What a protocol adapter is given: it asks before a command leaves and
/// reports when the command has ended.
///
/// The rule of the house is in the order: when [`Judge::judge`] returns, the
/// decision is in the spool already.
pub trait Judge {
    /// Decides `command` and records the decision.
    fn judge(&mut self, command: &Command) -> Ruling;

    /// Records how the command behind `ticket` ended. Each ticket is closed
    /// once; a connection that ends closes what is open with
    /// [`Outcome::Aborted`].
    fn close(&mut self, ticket: Ticket, outcome: &Outcome);
}

/// Names one judged command within its connection, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// A verdict and its ticket.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// For [`Judge::close`].
    pub ticket: Ticket,
    /// What to do.
    pub verdict: Verdict,
    /// The command must not leave before the spool is on disk up to this
    /// position; none where the configured durability does not ask for it.
    pub durable_at: Option<u64>,
}

/// What the policy says of one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Forward it.
    Allow,
    /// Refuse it; the session goes on.
    Deny(Arc<Denial>),
    /// Wait for people. The denial is what a client that cannot wait is told.
    Hold(Arc<Denial>),
    /// Forward it, and mask these outputs in each row of its result: at least
    /// one, each output once, in order. Whoever cannot mask them must not
    /// forward it.
    Mask(Arc<[Shown]>),
}

/// Who said no, to what, and what would be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// One sentence for the client: what was refused and by which policy.
    pub message: String,
    /// What would be allowed, or how to ask.
    pub hint: String,
    /// The policies that decided; empty when nothing permits the access.
    pub policies: Vec<PolicyRef>,
    /// The access that was refused; none for a refusal without policy.
    pub access: Option<Access>,
}

/// A policy by its id and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The `@id` annotation, or `file.cedar#n`, counted from 0.
    pub id: Arc<str>,
    /// File name below the policies folder.
    pub file: Arc<str>,
    /// Line of the policy's first token, from 1.
    pub line: u32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The server did it.
    Done {
        /// Rows returned or changed, where the protocol says so.
        rows: u64,
        /// Bytes of the response.
        bytes: u64,
    },
    /// The server refused or failed.
    Failed {
        /// The server's code: SQLSTATE, exit status.
        code: String,
    },
    /// lockgate refused; the server did not run it.
    Denied,
    /// The connection ended first; whether the server did it is not known.
    Aborted,
}
