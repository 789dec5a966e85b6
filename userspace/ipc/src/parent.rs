use serde::{Deserialize, Serialize};

/// The three processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// BPF, namespaces, listeners, dialling.
    Gate,
    /// Hostile bytes.
    Proxy,
    /// Secrets, network, record.
    Keeper,
}

impl Role {
    /// As in `lockgate internal ROLE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Proxy => "proxy",
            Self::Keeper => "keeper",
        }
    }
}

/// parent → child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The descriptor is the channel to this peer; it replaces an earlier one.
    Peer(Role),
    /// Check this configuration but do not use it yet; the descriptor is a
    /// memfd with `lockgate_config::Bundle` in JSON. → `Prepared`
    Prepare,
    /// keeper only, before `Prepare`: a memfd with `lockgate_config::Secrets` in JSON.
    Secrets,
    /// Use what was prepared. → `Committed`
    Commit,
    /// Forget what was prepared.
    Abort,
    /// → `Status`
    Status,
    /// keeper only: numbers of the others for the metrics endpoint, as JSON
    /// objects by role. No answer.
    Numbers(String),
    /// Accept nothing new, end when the last connection has. → the process ends
    Drain,
    /// gate only: unpin everything, then end.
    Release,
}

/// child → parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// Started and sandboxed; orders may come.
    Ready,
    /// `Prepare` went well, or why not.
    Prepared(Result<(), String>),
    /// `Commit` is done.
    Committed,
    /// Numbers and live objects, a JSON object.
    Status(String),
    /// Cannot go on; the process ends after this.
    Fatal(String),
}
