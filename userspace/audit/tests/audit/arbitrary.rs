//! Whatever an event may hold survives the spool; whatever a file may hold does
//! not harm its reader.

use std::borrow::Cow;
use std::os::unix::fs::FileExt;

use lockgate_audit::{
    Claims, CommandEvent, Digest, Event, EventKind, SegmentName, SpoolReader, VerdictKind,
};
use lockgate_command::{
    Access, ConnectionId, Outcome, PolicyRef, Resource, ResourceKind, Ticket, Verb,
};
use lockgate_config::{Mode, Protocol};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::sample::{TestSpool, origin};

fn access() -> impl Strategy<Value = Access> {
    let verb = prop::sample::select(Verb::ALL);
    let resource = prop_oneof![
        Just(Resource::target()),
        ".{0,20}".prop_map(|name| Resource::new(ResourceKind::Database, [name])),
        (".{0,9}", ".{0,9}", ".{0,9}")
            .prop_map(|(a, b, c)| Resource::new(ResourceKind::Table, [a, b, c])),
    ];
    (verb, resource).prop_map(|(verb, resource)| Access::new(verb, resource))
}

fn policy() -> impl Strategy<Value = PolicyRef> {
    (".{0,20}", any::<u32>()).prop_map(|(id, line)| PolicyRef {
        id: id.as_str().into(),
        file: "a.cedar".into(),
        line,
    })
}

fn command() -> impl Strategy<Value = EventKind<'static>> {
    let verdict = prop_oneof![
        Just(VerdictKind::Allow),
        Just(VerdictKind::Deny),
        Just(VerdictKind::Hold),
        Just(VerdictKind::Mask)
    ];
    (
        (any::<u64>(), verdict, any::<bool>(), any::<bool>()),
        (vec(access(), 0..5), vec(policy(), 0..3)),
        (option::of(".{0,40}"), option::of(".{0,400}")),
        (any::<u32>(), any::<[u8; 32]>(), any::<[u8; 32]>()),
    )
        .prop_map(|(facts, decided, texts, digests)| {
            EventKind::Command(CommandEvent {
                ticket: Ticket(facts.0),
                verdict: facts.1,
                enforced: facts.2,
                writes: facts.3,
                accesses: decided.0.into(),
                policies: decided.1.into(),
                message: texts.0.map(Cow::Owned),
                shape: texts.1.map(Cow::Owned),
                text_len: digests.0,
                text_digest: Digest(digests.1),
                digest: Digest(digests.2),
            })
        })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(rows, bytes)| Outcome::Done { rows, bytes }),
        ".{0,5}".prop_map(|code| Outcome::Failed { code }),
        Just(Outcome::Denied),
        Just(Outcome::Aborted),
    ]
}

fn kind() -> impl Strategy<Value = EventKind<'static>> {
    let connected = (".{0,9}", ".{0,9}", option::of(".{0,9}"), any::<u32>()).prop_map(
        |(workload, target, user, uid)| EventKind::Connected {
            workload: workload.into(),
            target: target.into(),
            protocol: Protocol::Tcp,
            mode: Mode::Observe,
            origin: Box::new(origin("/usr/bin/psql", uid)),
            claims: Claims {
                user,
                database: None,
                application: None,
            },
        },
    );
    let refused =
        (".{0,9}", option::of(".{0,9}"), ".{0,40}").prop_map(|(workload, target, reason)| {
            EventKind::Refused {
                workload: workload.into(),
                target: target.map(Into::into),
                origin: Box::new(origin("/bin/nc", 0)),
                reason,
            }
        });
    let ended =
        (any::<u64>(), outcome(), any::<u64>()).prop_map(|(ticket, outcome, duration_us)| {
            EventKind::Ended {
                ticket: Ticket(ticket),
                outcome,
                duration_us,
            }
        });
    let closed =
        (".{0,9}", any::<(u64, u64, u64)>()).prop_map(|(reason, numbers)| EventKind::Closed {
            reason,
            client_bytes: numbers.0,
            server_bytes: numbers.1,
            duration_us: numbers.2,
        });
    let agent = (".{0,9}", ".{0,40}").prop_map(|(role, what)| EventKind::Agent { role, what });
    prop_oneof![connected, refused, command(), ended, closed, agent]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    (any::<i64>(), option::of(any::<u64>()), kind()).prop_map(|(time_ns, connection, kind)| Event {
        time_ns,
        connection: connection.map(ConnectionId),
        kind,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_event_is_read_as_it_was_written(events in vec(event(), 1..20)) {
        let mut spool = TestSpool::new(256 * 1024);
        let (stream, mut writer) = spool.writer();
        for event in &events {
            writer.append(event).unwrap();
        }
        let mut reader = spool.spool.reader(SegmentName { stream, index: 0 }).unwrap();
        let mut read = Vec::new();
        while let Some(entry) = reader.next_event().unwrap() {
            read.push(entry.event);
        }
        prop_assert_eq!(read, events);
        reader.check_tail().unwrap();
    }

    /// The reader of keeper's side meets what a taken proxy wrote: any bytes
    /// behind a good header. It must end, and give no more events than were
    /// honestly there.
    #[test]
    fn a_reader_survives_any_bytes(
        garbage in vec(any::<u8>(), 0..4096),
        good in 0usize..3,
        length in option::of(any::<u32>()),
    ) {
        let mut spool = TestSpool::new(8192);
        let (stream, mut writer) = spool.writer();
        for _ in 0..good {
            writer.append(&crate::sample::agent("started")).unwrap();
        }
        let at = writer.position();
        let name = SegmentName { stream, index: 0 };
        let path = spool.dir.path().join(name.to_string());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        file.write_all_at(&garbage, at).unwrap();
        if let Some(length) = length {
            file.write_all_at(&length.to_le_bytes(), at).unwrap();
        }
        let mut reader = SpoolReader::open(file).unwrap();
        let mut read = 0;
        while let Ok(Some(_)) = reader.next_event() {
            read += 1;
        }
        prop_assert_eq!(read, good);
        let untouched = garbage.iter().all(|&byte| byte == 0) && length.unwrap_or(0) == 0;
        let clean = matches!(reader.next_event(), Ok(None)) && reader.check_tail().is_ok();
        prop_assert_eq!(clean, untouched);
    }

    #[test]
    fn no_file_is_taken_for_a_segment(bytes in vec(any::<u8>(), 0..256)) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        prop_assert!(SpoolReader::open(file).is_err());
    }
}
