//! Events as a proxy would record them.

use std::path::PathBuf;
use std::sync::Arc;

use lockgate_audit::{Claims, Event, EventKind, Spool, SpoolSettings, SpoolWriter};
use lockgate_command::{
    Access, Command, ConnectionId, Denial, Outcome, PolicyRef, Resource, ResourceKind, Shown,
    Statement, TextId, Ticket, Verb, Verdict, WorkloadName,
};
use lockgate_config::{Mode, Protocol};
use lockgate_identity::{Ancestor, ExecKey, Executable, Origin};
use uuid::Uuid;

pub const BOOT: Uuid = Uuid::from_u128(0xb007);
/// 2026-11-24T00:00:00Z
pub const DAY_NS: i64 = 1_795_478_400_000_000_000;
pub const SECOND_NS: i64 = 1_000_000_000;

/// A spool in a folder of its own, which goes with it.
pub struct TestSpool {
    pub spool: Spool,
    pub dir: tempfile::TempDir,
}

impl TestSpool {
    pub fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            segment_bytes,
            max_segments: 64,
        };
        let spool = Spool::open(dir.path(), BOOT, settings).unwrap();
        Self { spool, dir }
    }

    /// A new stream's first segment.
    pub fn writer(&mut self) -> (u32, SpoolWriter) {
        let stream = self.spool.new_stream().unwrap();
        (stream, self.segment(stream, 0))
    }

    pub fn segment(&mut self, stream: u32, index: u32) -> SpoolWriter {
        SpoolWriter::open(self.spool.create(stream, index).unwrap().into()).unwrap()
    }
}

pub fn origin(executable: &str, uid: u32) -> Origin {
    Origin {
        original: "10.0.3.14:5432".parse().unwrap(),
        client: "10.0.3.1:40001".parse().unwrap(),
        tgid: 4242,
        tid: 4243,
        uid,
        gid: uid,
        cgroup_id: 77,
        cgroup: Some("/system.slice/nightly-report.service".into()),
        netns_cookie: 1,
        connected_ns: 5_000_000,
        exec: ExecKey {
            tgid: 4242,
            start_ns: 1,
            exec_ns: 2,
        },
        executable: Some(Executable {
            path: executable.into(),
            sha256: Some([0xab; 32]),
        }),
        ancestors: vec![Ancestor {
            tgid: 1,
            executable: Some(PathBuf::from("/sbin/init")),
        }],
        argv: vec!["psql".into(), "-c".into()],
        comm: "psql".into(),
    }
}

pub fn connected(connection: u64, workload: &str, executable: &str) -> Event<'static> {
    Event::now(
        Some(ConnectionId(connection)),
        EventKind::Connected {
            workload: workload.into(),
            target: "orders-db".into(),
            protocol: Protocol::Postgres,
            mode: Mode::Enforce,
            origin: Box::new(origin(executable, 1001)),
            claims: Claims {
                user: Some("report".into()),
                database: Some("shop".into()),
                application: Some("psql".into()),
            },
        },
    )
}

pub fn refused(connection: u64, reason: &str) -> Event<'static> {
    Event::now(
        Some(ConnectionId(connection)),
        EventKind::Refused {
            workload: WorkloadName::unknown(),
            target: None,
            origin: Box::new(origin("/usr/bin/nc", 0)),
            reason: reason.into(),
        },
    )
}

pub fn ended(connection: u64, ticket: u64, outcome: Outcome) -> Event<'static> {
    Event::now(
        Some(ConnectionId(connection)),
        EventKind::Ended {
            ticket: Ticket(ticket),
            outcome,
            duration_us: 250,
        },
    )
}

pub fn closed(connection: u64) -> Event<'static> {
    Event::now(
        Some(ConnectionId(connection)),
        EventKind::Closed {
            reason: "client ended".into(),
            client_bytes: 10,
            server_bytes: 20,
            duration_us: 30,
        },
    )
}

pub fn agent(what: &str) -> Event<'static> {
    Event::now(
        None,
        EventKind::Agent {
            role: "keeper".into(),
            what: what.into(),
        },
    )
}

/// A statement with its decision, so that an event can borrow them.
pub struct Decided {
    pub command: Command,
    pub verdict: Verdict,
    pub policies: Vec<PolicyRef>,
}

pub fn table(name: &str) -> Resource {
    Resource::new(ResourceKind::Table, ["shop", "public", name])
}

impl Decided {
    pub fn new(verb: Verb, name: &str, shape: &str, allowed: bool) -> Self {
        let policies = vec![PolicyRef {
            id: "report-reads".into(),
            file: "report.cedar".into(),
            line: 3,
        }];
        let access = Access::new(verb, table(name));
        let verdict = match allowed {
            true => Verdict::Allow,
            false => Verdict::Deny(Arc::new(Denial {
                message: format!("lockgate: no policy permits {access}"),
                hint: "ask".into(),
                policies: policies.clone(),
                access: Some(access.clone()),
            })),
        };
        let statement = Statement {
            accesses: vec![access],
            shown: Vec::new(),
            outputs: None,
            beneath: Vec::new(),
            shape: Some(shape.into()),
            writes: verb != Verb::Select,
            refusal: None,
        };
        Self {
            command: Command {
                statement: Arc::new(statement),
                text: TextId {
                    len: shape.len() as u32,
                    digest: [1; 32],
                },
                digest: [2; 32],
            },
            verdict,
            policies,
        }
    }

    /// A SELECT that is allowed, and shows one column masked.
    pub fn masked() -> Self {
        let mut masked = Self::new(
            Verb::Select,
            "customers",
            "SELECT id, ssn FROM customers",
            true,
        );
        let path = ["shop", "public", "customers", "ssn"];
        let shown = Shown {
            output: 1,
            column: Resource::new(ResourceKind::Column, path),
            type_name: "text".into(),
        };
        let statement = Arc::make_mut(&mut masked.command.statement);
        statement.shown = vec![shown.clone()];
        statement.outputs = Some(2);
        masked.verdict = Verdict::Mask(Arc::new([shown]));
        masked
    }

    pub fn event(&self, connection: u64, ticket: u64) -> Event<'_> {
        Event::command(
            ConnectionId(connection),
            Ticket(ticket),
            &self.command,
            &self.verdict,
            &self.policies,
            true,
        )
    }
}

/// `event` at `time_ns`.
pub fn at(time_ns: i64, mut event: Event<'_>) -> Event<'_> {
    event.time_ns = time_ns;
    event
}
