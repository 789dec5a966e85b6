use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Access, Resource};

/// One thing a client asks a server to do, as far as a decision needs it.
///
/// Cheap to clone: adapters keep one per prepared statement and judge it again
/// at each execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What it does. Shared, since many executions have the same accesses.
    pub statement: Arc<Statement>,
    /// Of the exact text without parameters.
    pub text: TextId,
    /// SHA-256 of the exact bytes that will run, parameters included. An
    /// approval is for this digest and no other.
    pub digest: [u8; 32],
}

/// Names one text. The text itself is not kept: it may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TextId {
    /// Length in bytes.
    pub len: u32,
    /// SHA-256.
    pub digest: [u8; 32],
}

impl TextId {
    /// That of `text`.
    pub fn of(text: &[u8]) -> Self {
        Self {
            len: u32::try_from(text.len()).unwrap_or(u32::MAX),
            digest: Sha256::digest(text).into(),
        }
    }
}

/// What the text of a command does; the same for each execution of the text,
/// and for texts that differ only in what does not matter for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Everything it does, except to show what `shown` lists. Empty only
    /// together with a refusal.
    pub accesses: Vec<Access>,
    /// Tagged columns whose stored values its result shows unchanged, by
    /// output, so that they can be masked. An output that shows several, such
    /// as that of a UNION, is listed with each.
    pub shown: Vec<Shown>,
    /// How many columns its one result has. Known wherever `shown` is not
    /// empty: a row with another number of columns is not the one that was
    /// decided on.
    pub outputs: Option<u16>,
    /// What it reaches without naming it: the tables of a view, the parts of a
    /// table and what it is a part of, rows that a foreign key takes along. As
    /// at the server, no permit is needed for these; but what a policy forbids
    /// is forbidden by every way.
    pub beneath: Vec<Access>,
    /// The text with its literals taken out, safe to store; none where the
    /// text could not be read or may hold a password.
    pub shape: Option<Arc<str>>,
    /// Whether it may change data, so that `fsync-writes` waits for the disk.
    pub writes: bool,
    /// Why nobody may run it, whatever the policy says.
    pub refusal: Option<Refusal>,
}

/// One column of a command's only result that shows the stored value of a
/// tagged column, unchanged, or NULL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shown {
    /// The result's column, counted from 0.
    pub output: u16,
    /// The tagged column.
    pub column: Resource,
    /// The type of its values as the server calls it, a domain by what it is
    /// of: `int4`. With its schema if it is not built in.
    pub type_name: Arc<str>,
}

/// A command that is refused without asking the policy, because lockgate
/// cannot tell what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The construct or limit, in the field's words: `statement over 65536
    /// bytes`, `FunctionCall message`.
    pub construct: String,
    /// What the client can do instead.
    pub hint: String,
}
