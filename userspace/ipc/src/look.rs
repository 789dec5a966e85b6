use std::net::SocketAddr;

use lockgate_command::{TargetName, WorkloadName};
use serde::{Deserialize, Serialize};

/// What an operator asks about a database. It goes to keeper over a channel of
/// its own ([`crate::Order::Look`]), so that a slow server delays nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// At which target.
    pub target: TargetName,
    /// Whose credential is used.
    pub workload: WorkloadName,
    /// In which database.
    pub database: String,
    /// Which of the target's servers; the first if there is none, where the
    /// configuration names one.
    pub server: Option<SocketAddr>,
    /// What is wanted.
    pub what: Wanted,
}

/// What [`Look`] is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// The catalogue, and what names mean after login.
    Catalogue,
    /// What the role may do at the server.
    Rights,
}

/// keeper's answer to a [`Look`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Looked {
    /// A JSON object in the descriptor, a memfd.
    Found,
    /// Why not; holds no secret.
    Refused(String),
}
