use std::borrow::Cow;
use std::path::Path;

use lockgate_command::{Outcome, PolicyRef, Resource, TargetName};
use lockgate_config::{Mode, Protocol};
use lockgate_identity::Origin;
use serde::{Deserialize, Serialize};

use crate::moment::rfc3339;
use crate::{Digest, Event, EventKind};

/// The JSON that is stored, hashed and shipped for each event: the event, with
/// what is known of its connection. Fields that say nothing are absent. The
/// exact bytes are hashed, so what is stored is never written again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payload<'a> {
    /// 1.
    pub version: u8,
    /// RFC 3339, UTC.
    pub time: Cow<'a, str>,
    /// `connected`, `refused`, `command`, `ended`, `closed`, `agent`.
    pub kind: Cow<'a, str>,
    /// 16 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Cow<'a, str>>,
    /// Who calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Cow<'a, str>>,
    /// Where to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Cow<'a, str>>,
    /// Claim: the role the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    /// Claim: the database it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<Cow<'a, str>>,
    /// Claim: what it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<Cow<'a, str>>,
    /// Attested uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Attested path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<Cow<'a, str>>,
    /// Counts the commands of the connection from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<u64>,
    /// `allow`, `deny`, `hold`, `mask`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Cow<'a, str>>,
    /// Whether the verdict took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<bool>,
    /// Whether the command may change data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<bool>,
    /// What the command does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accesses: Vec<AccessRecord<'a>>,
    /// The policies that decided.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub policies: Cow<'a, [PolicyRef]>,
    /// What the client was told, why it was refused, what is masked, or what
    /// happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Cow<'a, str>>,
    /// The command's text without literals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Cow<'a, str>>,
    /// Length of the text in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_bytes: Option<u32>,
    /// SHA-256 of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_sha256: Option<Digest>,
    /// SHA-256 of text and parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// `done`, `failed`, `denied`, `aborted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Cow<'a, str>>,
    /// The server's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// Rows returned or changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Bytes of the response; of a `closed`, what the server sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Of a `closed`: what the client sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// Of a `connected`: `postgres`, `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Of a `connected`: `observe`, `enforce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Of an `agent`: which process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Cow<'a, str>>,
    /// Of a `connected` or `refused`: everything attested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginRecord>,
}

/// One verb on one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessRecord<'a> {
    /// The verb's name.
    pub verb: Cow<'a, str>,
    /// The kind of the object: `table`.
    pub kind: Cow<'a, str>,
    /// The object's Cedar entity id.
    pub object: String,
}

/// [`Origin`] with names that say their units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OriginRecord {
    /// Where the client wanted to connect to.
    pub original: String,
    /// The client's own address.
    pub client: String,
    /// Process id on the host.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Its path.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup: Option<String>,
    /// Cookie of the network namespace.
    pub netns_cookie: u64,
    /// CLOCK_MONOTONIC at fork, nanoseconds.
    pub start_monotonic_ns: u64,
    /// CLOCK_MONOTONIC at execve, nanoseconds.
    pub exec_monotonic_ns: u64,
    /// CLOCK_MONOTONIC at connect, nanoseconds.
    pub connected_monotonic_ns: u64,
    /// Path of the executable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub executable: Option<String>,
    /// Its SHA-256.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub executable_sha256: Option<Digest>,
    /// Parent first.
    pub ancestors: Vec<AncestorRecord>,
    /// Claim: the argument vector.
    pub argv: Vec<String>,
    /// Label: the kernel's comm.
    pub comm: String,
}

/// A process above the connecting one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AncestorRecord {
    /// Process id.
    pub pid: u32,
    /// Path of its executable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub executable: Option<String>,
}

/// What later events of a connection are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Context {
    pub workload: Option<String>,
    pub target: Option<String>,
    pub user: Option<String>,
    pub database: Option<String>,
    pub uid: Option<u32>,
    pub executable: Option<String>,
}

impl Context {
    /// The context that `event` begins, if it begins one.
    pub(crate) fn begun_by(event: &Event) -> Option<Self> {
        match &event.kind {
            EventKind::Connected {
                workload,
                target,
                origin,
                claims,
                ..
            } => Some(Self {
                workload: Some(workload.to_string()),
                target: Some(target.to_string()),
                user: claims.user.clone(),
                database: claims.database.clone(),
                uid: Some(origin.uid),
                executable: executable(origin),
            }),
            EventKind::Refused {
                workload,
                target,
                origin,
                ..
            } => Some(Self {
                workload: Some(workload.to_string()),
                target: target.as_ref().map(TargetName::to_string),
                user: None,
                database: None,
                uid: Some(origin.uid),
                executable: executable(origin),
            }),
            EventKind::Command(_)
            | EventKind::Ended { .. }
            | EventKind::Closed { .. }
            | EventKind::Agent { .. } => None,
        }
    }
}

impl<'a> Payload<'a> {
    /// `event`, within a connection of which `context` is known.
    pub(crate) fn new(event: &'a Event<'_>, context: &'a Context) -> Self {
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        let mut payload = Self {
            version: 1,
            time: rfc3339(event.time_ns).into(),
            kind: event.kind.name().into(),
            connection: event.connection.map(|id| id.to_string().into()),
            workload: text(&context.workload),
            target: text(&context.target),
            user: text(&context.user),
            database: text(&context.database),
            uid: context.uid,
            executable: text(&context.executable),
            ..Self::default()
        };
        payload.fill(event, context);
        payload
    }

    fn fill(&mut self, event: &'a Event<'_>, context: &'a Context) {
        match &event.kind {
            EventKind::Connected {
                workload: _,
                target: _,
                protocol,
                mode,
                origin,
                claims,
            } => {
                self.protocol = Some(*protocol);
                self.mode = Some(*mode);
                self.application = claims.application.as_deref().map(Cow::Borrowed);
                self.origin = Some(OriginRecord::from(&**origin));
            }
            EventKind::Refused {
                workload: _,
                target: _,
                origin,
                reason,
            } => {
                self.verdict = Some("deny".into());
                self.message = Some(reason.as_str().into());
                self.origin = Some(OriginRecord::from(&**origin));
            }
            EventKind::Command(command) => {
                let target = TargetName::from(context.target.as_deref().unwrap_or("?"));
                self.ticket = Some(command.ticket.0);
                self.verdict = Some(command.verdict.as_str().into());
                self.enforced = Some(command.enforced);
                self.writes = Some(command.writes);
                self.accesses = command
                    .accesses
                    .iter()
                    .map(|access| AccessRecord {
                        verb: access.verb.as_str().into(),
                        kind: kind_of(&access.resource).into(),
                        object: access.resource.entity_id(&target),
                    })
                    .collect();
                self.policies = Cow::Borrowed(&command.policies);
                self.message = command.message.as_deref().map(Cow::Borrowed);
                self.shape = command.shape.as_deref().map(Cow::Borrowed);
                self.text_bytes = Some(command.text_len);
                self.text_sha256 = Some(command.text_digest);
                self.sha256 = Some(command.digest);
            }
            EventKind::Ended {
                ticket,
                outcome,
                duration_us,
            } => {
                self.ticket = Some(ticket.0);
                self.duration_us = Some(*duration_us);
                self.outcome = Some(
                    match outcome {
                        Outcome::Done { rows, bytes } => {
                            self.rows = Some(*rows);
                            self.response_bytes = Some(*bytes);
                            "done"
                        }
                        Outcome::Failed { code } => {
                            self.error = Some(code.as_str().into());
                            "failed"
                        }
                        Outcome::Denied => "denied",
                        Outcome::Aborted => "aborted",
                    }
                    .into(),
                );
            }
            EventKind::Closed {
                reason,
                client_bytes,
                server_bytes,
                duration_us,
            } => {
                self.message = Some(reason.as_str().into());
                self.request_bytes = Some(*client_bytes);
                self.response_bytes = Some(*server_bytes);
                self.duration_us = Some(*duration_us);
            }
            EventKind::Agent { role, what } => {
                self.role = Some(role.as_str().into());
                self.message = Some(what.as_str().into());
            }
        }
    }
}

fn kind_of(resource: &Resource) -> &'static str {
    use lockgate_command::ResourceKind::*;
    match resource.kind() {
        Target => "target",
        Database => "database",
        Schema => "schema",
        Table => "table",
        Column => "column",
        Function => "function",
    }
}

fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn executable(origin: &Origin) -> Option<String> {
    origin
        .executable
        .as_ref()
        .map(|executable| lossy(&executable.path))
}

impl From<&Origin> for OriginRecord {
    fn from(origin: &Origin) -> Self {
        Self {
            original: origin.original.to_string(),
            client: origin.client.to_string(),
            pid: origin.tgid,
            tid: origin.tid,
            uid: origin.uid,
            gid: origin.gid,
            cgroup_id: origin.cgroup_id,
            cgroup: origin.cgroup.clone(),
            netns_cookie: origin.netns_cookie,
            start_monotonic_ns: origin.exec.start_ns,
            exec_monotonic_ns: origin.exec.exec_ns,
            connected_monotonic_ns: origin.connected_ns,
            executable: executable(origin),
            executable_sha256: origin
                .executable
                .as_ref()
                .and_then(|executable| executable.sha256)
                .map(Digest),
            ancestors: origin
                .ancestors
                .iter()
                .map(|ancestor| AncestorRecord {
                    pid: ancestor.tgid,
                    executable: ancestor.executable.as_deref().map(lossy),
                })
                .collect(),
            argv: origin.argv.clone(),
            comm: origin.comm.clone(),
        }
    }
}
