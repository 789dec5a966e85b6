//! The forms that lie on disks: they may not change.

use std::borrow::Cow;

use lockgate_audit::{
    Claims, CommandEvent, Digest, Event, EventKind, SegmentName, SpoolReader, VerdictKind,
};
use lockgate_command::{
    Access, ConnectionId, Outcome, PolicyRef, Resource, ResourceKind, Ticket, Verb, WorkloadName,
};
use lockgate_config::{Mode, Protocol};

use crate::sample::{TestSpool, origin};

/// A segment of record version 1, without the zeros at its end.
const SEGMENT: &str = include_str!("segment-v1.hex");

/// The verbs of version 1's first segments in the order of their numbers; those
/// that came later have higher ones.
const VERBS: &str = "connect session describe select listen view filter insert update delete lock \
    use_sequence notify truncate create alter drop maintain call code grant role system program \
    inspect opaque execute";

fn events() -> Vec<Event<'static>> {
    let verbs = VERBS.split(' ').map(|name| name.parse::<Verb>().unwrap());
    let kinds = [
        Resource::target(),
        Resource::new(ResourceKind::Database, ["d"]),
        Resource::new(ResourceKind::Schema, ["d", "s"]),
        Resource::new(ResourceKind::Table, ["d", "s", "t"]),
        Resource::new(ResourceKind::Column, ["d", "s", "t", "c"]),
        Resource::new(ResourceKind::Function, ["d", "s", "f"]),
    ];
    let mut accesses: Vec<Access> = verbs
        .map(|verb| Access::new(verb, Resource::target()))
        .collect();
    accesses.extend(kinds.map(|resource| Access::new(Verb::Select, resource)));
    let command = |ticket, verdict, message: Option<&'static str>| {
        EventKind::Command(CommandEvent {
            ticket: Ticket(ticket),
            verdict,
            enforced: true,
            writes: false,
            accesses: accesses.clone().into(),
            policies: vec![PolicyRef {
                id: "p".into(),
                file: "f.cedar".into(),
                line: 7,
            }]
            .into(),
            message: message.map(Cow::Borrowed),
            shape: Some("SELECT $1".into()),
            text_len: 9,
            text_digest: Digest([0x11; 32]),
            digest: Digest([0x22; 32]),
        })
    };
    let ended = |ticket, outcome| EventKind::Ended {
        ticket: Ticket(ticket),
        outcome,
        duration_us: 1_000_000,
    };
    let connected = |protocol, mode| EventKind::Connected {
        workload: "w".into(),
        target: "t".into(),
        protocol,
        mode,
        origin: Box::new(origin("/usr/bin/psql", 1001)),
        claims: Claims {
            user: Some("u".into()),
            database: None,
            application: Some("a".into()),
        },
    };
    let kinds = [
        connected(Protocol::Postgres, Mode::Observe),
        connected(Protocol::Tcp, Mode::Enforce),
        EventKind::Refused {
            workload: WorkloadName::unknown(),
            target: None,
            origin: Box::new(origin("/bin/nc", 0)),
            reason: "no".into(),
        },
        command(0, VerdictKind::Allow, None),
        command(1, VerdictKind::Deny, Some("no")),
        command(2, VerdictKind::Hold, Some("wait")),
        ended(
            0,
            Outcome::Done {
                rows: 1,
                bytes: 300,
            },
        ),
        ended(1, Outcome::Denied),
        ended(
            2,
            Outcome::Failed {
                code: "23505".into(),
            },
        ),
        ended(3, Outcome::Aborted),
        EventKind::Closed {
            reason: "end".into(),
            client_bytes: 1,
            server_bytes: 2,
            duration_us: 3,
        },
        EventKind::Agent {
            role: "keeper".into(),
            what: "started".into(),
        },
        command(
            3,
            VerdictKind::Mask,
            Some("masked: output 1 (Column d.s.t.c)"),
        ),
    ];
    let event = |(number, kind): (i64, _)| Event {
        time_ns: 1_795_478_400_000_000_000 + number,
        connection: (number % 2 == 0).then_some(ConnectionId(0x1234_5678_9abc_def0)),
        kind,
    };
    (0..).zip(kinds).map(event).collect()
}

#[test]
fn a_segment_of_version_1_is_written_and_read_as_ever() {
    let mut spool = TestSpool::new(8192);
    let (stream, mut writer) = spool.writer();
    for event in events() {
        writer.append(&event).unwrap();
    }
    let path = spool
        .dir
        .path()
        .join(SegmentName { stream, index: 0 }.to_string());
    let mut written = std::fs::read(&path).unwrap();
    written.truncate(writer.position() as usize);
    let written: String = written.iter().map(|byte| format!("{byte:02x}")).collect();
    let frozen: String = SEGMENT.split_whitespace().collect();
    assert_eq!(
        written, frozen,
        "record version 1 or the segment changed its form; give the new form a new version"
    );

    let frozen: Vec<u8> = (0..frozen.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&frozen[at..at + 2], 16).unwrap())
        .collect();
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &frozen, 0).unwrap();
    file.set_len(8192).unwrap();
    let mut reader = SpoolReader::open(file).unwrap();
    for event in events() {
        assert_eq!(reader.next_event().unwrap().unwrap().event, event);
    }
    assert!(reader.next_event().unwrap().is_none());
}
