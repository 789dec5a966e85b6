use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Access;

/// One thing a client asks a server to do, as far as a decision needs it.
///
/// Cheap to clone: adapters keep one per prepared statement and judge it again
/// at each execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// What it does. Shared, since many executions have the same accesses.
    pub statement: Arc<Statement>,
    /// SHA-256 of the exact bytes that will run, parameters included. An
    /// approval is for this digest and no other.
    pub digest: [u8; 32],
}

/// What the text of a command does; the same for each execution of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Everything it does. Empty only together with a refusal.
    pub accesses: Vec<Access>,
    /// The text with its literals taken out, safe to store; none where the
    /// text could not be read or may hold a password.
    pub shape: Option<Arc<str>>,
    /// Length of the exact text in bytes.
    pub text_len: u32,
    /// SHA-256 of the exact text without parameters.
    pub text_digest: [u8; 32],
    /// Whether it may change data, so that `fsync-writes` waits for the disk.
    pub writes: bool,
    /// Why nobody may run it, whatever the policy says.
    pub refusal: Option<Refusal>,
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
