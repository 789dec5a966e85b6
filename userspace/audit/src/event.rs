use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use lockgate_command::{
    Access, Command, ConnectionId, Denial, Outcome, PolicyRef, Shown, TargetName, Ticket, Verb,
    Verdict, WorkloadName,
};
use lockgate_config::{Mode, Protocol};
use lockgate_identity::Origin;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// One thing that happened. `'a` lets the hot path describe a command without
/// copying it; what is read back owns everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event<'a> {
    /// When, in nanoseconds since the Unix epoch, UTC.
    pub time_ns: i64,
    /// Within which connection; none for events of the agent itself.
    pub connection: Option<ConnectionId>,
    /// What.
    pub kind: EventKind<'a>,
}

/// What happened. The order of variants and fields is part of record version
/// 1: it may not change, and fields may not be added. A new variant comes last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EventKind<'a> {
    /// A client is connected and its target known. Written before `connect` is
    /// decided, so that a refusal has its facts.
    Connected {
        /// Who calls.
        workload: WorkloadName,
        /// Where to.
        target: TargetName,
        /// How its commands are read.
        protocol: Protocol,
        /// Whether verdicts are enforced.
        mode: Mode,
        /// What the kernel attested.
        origin: Box<Origin>,
        /// What the client says of itself.
        claims: Claims,
    },
    /// A client did not get a session.
    Refused {
        /// Who called.
        workload: WorkloadName,
        /// Where to, as far as it was found.
        target: Option<TargetName>,
        /// What the kernel attested.
        origin: Box<Origin>,
        /// Why, for people.
        reason: String,
    },
    /// A command was decided. In the spool before the command leaves.
    Command(CommandEvent<'a>),
    /// A decided command has ended.
    Ended {
        /// Of the [`EventKind::Command`].
        ticket: Ticket,
        /// How.
        outcome: Outcome,
        /// Since the decision, in microseconds.
        duration_us: u64,
    },
    /// The connection has ended.
    Closed {
        /// Who ended it and why, for people.
        reason: String,
        /// Bytes received from the client.
        client_bytes: u64,
        /// Bytes received from the server.
        server_bytes: u64,
        /// Since it was accepted, in microseconds.
        duration_us: u64,
    },
    /// The agent itself did something: started, stopped, took a configuration,
    /// found a damaged segment.
    Agent {
        /// `gate`, `proxy`, `keeper`, `parent`.
        role: String,
        /// One sentence.
        what: String,
    },
}

/// A decided command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandEvent<'a> {
    /// Names the command within its connection.
    pub ticket: Ticket,
    /// What was decided.
    pub verdict: VerdictKind,
    /// Whether the verdict took effect; in `observe` it does not.
    pub enforced: bool,
    /// Whether the command may change data.
    pub writes: bool,
    /// Everything it does; also `view` of each tagged column that its result
    /// shows, masked or not.
    pub accesses: Cow<'a, [Access]>,
    /// The policies that decided.
    pub policies: Cow<'a, [PolicyRef]>,
    /// What the client was told, or what is masked; none if allowed.
    pub message: Option<Cow<'a, str>>,
    /// The text without its literals; none where it may hold a secret.
    pub shape: Option<Cow<'a, str>>,
    /// Length of the text in bytes.
    pub text_len: u32,
    /// SHA-256 of the text.
    pub text_digest: Digest,
    /// SHA-256 of text and parameters.
    pub digest: Digest,
}

/// [`Verdict`] without its reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// Forwarded.
    Allow,
    /// Refused.
    Deny,
    /// Waits for people.
    Hold,
    /// Forwarded, and columns of its result are masked.
    Mask,
}

/// What a client says of itself. Recorded, and never decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The role it asked for.
    pub user: Option<String>,
    /// The database it asked for.
    pub database: Option<String>,
    /// What it calls itself: application_name.
    pub application: Option<String>,
}

impl<'a> Event<'a> {
    /// `kind`, now.
    pub fn now(connection: Option<ConnectionId>, kind: EventKind<'a>) -> Self {
        Self {
            time_ns: now_ns(),
            connection,
            kind,
        }
    }

    /// The decision on a command, now. Copies nothing where no tagged column
    /// is shown.
    pub fn command(
        connection: ConnectionId,
        ticket: Ticket,
        command: &'a Command,
        verdict: &'a Verdict,
        policies: &'a [PolicyRef],
        enforced: bool,
    ) -> Self {
        let statement = &*command.statement;
        let (verdict, message) = match verdict {
            Verdict::Allow => (VerdictKind::Allow, None),
            Verdict::Deny(denial) => (VerdictKind::Deny, Some(told(denial))),
            Verdict::Hold(denial) => (VerdictKind::Hold, Some(told(denial))),
            Verdict::Mask(columns) => (VerdictKind::Mask, Some(Cow::Owned(masked(columns)))),
        };
        let accesses = match &statement.shown[..] {
            [] => Cow::Borrowed(&statement.accesses[..]),
            shown => Cow::Owned(with_shown(&statement.accesses, shown)),
        };
        let kind = EventKind::Command(CommandEvent {
            ticket,
            verdict,
            enforced,
            writes: statement.writes,
            accesses,
            policies: Cow::Borrowed(policies),
            message,
            shape: statement.shape.as_deref().map(Cow::Borrowed),
            text_len: command.text.len,
            text_digest: Digest(command.text.digest),
            digest: Digest(command.digest),
        });
        Self::now(Some(connection), kind)
    }
}

fn told(denial: &Denial) -> Cow<'_, str> {
    Cow::Borrowed(&denial.message)
}

/// The columns in words: the record's columns have no other place for them.
fn masked(columns: &[Shown]) -> String {
    let mut text = String::from("masked:");
    for (index, Shown { output, column, .. }) in columns.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!(
            "{comma} output {} ({column})",
            u32::from(*output) + 1
        ));
    }
    text
}

fn with_shown(accesses: &[Access], shown: &[Shown]) -> Vec<Access> {
    let mut all = accesses.to_vec();
    for Shown { column, .. } in shown {
        let view = Access::new(Verb::View, column.clone());
        if !all.contains(&view) {
            all.push(view);
        }
    }
    all
}

impl EventKind<'_> {
    /// As in the store's column `kind`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Refused { .. } => "refused",
            Self::Command(_) => "command",
            Self::Ended { .. } => "ended",
            Self::Closed { .. } => "closed",
            Self::Agent { .. } => "agent",
        }
    }
}

impl VerdictKind {
    /// As in policies and in the store's column `verdict`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
            Self::Mask => "mask",
        }
    }
}

fn now_ns() -> i64 {
    // A clock before 1970 or after 2262 is recorded as those limits.
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(_) => 0,
    }
}
