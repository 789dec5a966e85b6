use std::path::Path;

use lockgate_audit::{Query, SealError, Sealer, SegmentName, Store, StoreError};
use lockgate_command::{Outcome, Verb};
use rusqlite::Connection;

use crate::sample::*;

fn store(dir: &Path) -> Store {
    Store::open(&dir.join("audit.sqlite")).unwrap()
}

/// Seals everything that is in a segment.
fn seal(sealer: &mut Sealer, spool: &TestSpool, name: SegmentName) -> u64 {
    let mut reader = spool.spool.reader(name).unwrap();
    let mut events = 0;
    loop {
        let sealed = sealer.seal(&mut reader, 7).unwrap();
        events += sealed.events;
        if sealed.caught_up {
            return events;
        }
    }
}

/// A sealed session of 20 commands in two segments, and the folder of its store.
fn session() -> (TestSpool, u32) {
    let mut spool = TestSpool::new(64 << 10);
    let stream = spool.spool.new_stream().unwrap();
    let decided = Decided::new(Verb::Select, "orders", "SELECT * FROM orders", true);
    let mut writer = spool.segment(stream, 0);
    writer
        .append(&at(DAY_NS, connected(1, "report", "/usr/bin/psql")))
        .unwrap();
    for ticket in 0..20 {
        if ticket == 10 {
            writer = spool.segment(stream, 1);
        }
        let now = DAY_NS + ticket as i64;
        writer.append(&at(now, decided.event(1, ticket))).unwrap();
        writer
            .append(&at(
                now,
                ended(1, ticket, Outcome::Done { rows: 3, bytes: 99 }),
            ))
            .unwrap();
    }
    writer.append(&at(DAY_NS + 30, closed(1))).unwrap();
    (spool, stream)
}

fn sealed_session() -> (TestSpool, u32) {
    let (spool, stream) = session();
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    let events: u64 = (0..2)
        .map(|index| seal(&mut sealer, &spool, SegmentName { stream, index }))
        .sum();
    assert_eq!(events, 42);
    (spool, stream)
}

#[test]
fn a_segment_read_again_after_a_crash_adds_nothing_twice() {
    let (spool, stream) = session();
    let (first, second) = (
        SegmentName { stream, index: 0 },
        SegmentName { stream, index: 1 },
    );
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    let mut reader = spool.spool.reader(first).unwrap();
    // Ten events are in the store when keeper dies.
    assert_eq!(sealer.seal(&mut reader, 10).unwrap().events, 10);
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    assert_eq!(seal(&mut sealer, &spool, first), 11);
    // It dies again before it removed the segment.
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    assert_eq!(seal(&mut sealer, &spool, first), 0);
    assert_eq!(seal(&mut sealer, &spool, second), 21);
    assert_eq!(seal(&mut sealer, &spool, first), 0);
    let store = store(spool.dir.path());
    assert_eq!(store.events().unwrap(), 42);
    let report = store.verify().unwrap();
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.chains.len(), 1);
    assert_eq!(report.chains[0].events, 42);
    // Commands know their connection, though the sealer forgot it twice.
    let rows = store.search(&Query {
        workload: Some("report".into()),
        ..Query::default()
    });
    assert_eq!(rows.unwrap().len(), 22);
}

#[test]
fn what_stands_before_the_damage_is_sealed_and_the_damage_is_told() {
    let (spool, stream) = session();
    let name = SegmentName { stream, index: 0 };
    let path = spool.dir.path().join(name.to_string());
    let mut content = std::fs::read(&path).unwrap();
    let mut reader = spool.spool.reader(name).unwrap();
    let ends: Vec<u64> = std::iter::from_fn(|| reader.next_event().unwrap())
        .map(|entry| entry.end)
        .collect();
    content[ends[4] as usize + 9] ^= 1;
    std::fs::write(&path, content).unwrap();
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    let mut reader = spool.spool.reader(name).unwrap();
    let sealed = sealer.seal(&mut reader, 100).unwrap();
    assert_eq!((sealed.events, sealed.caught_up), (5, false));
    for _ in 0..2 {
        let error = sealer.seal(&mut reader, 100).unwrap_err();
        assert!(matches!(error, SealError::Read(_)), "{error}");
    }
    assert!(store(spool.dir.path()).verify().unwrap().is_whole());
}

#[test]
fn each_stream_has_a_chain_of_its_own() {
    let mut spool = TestSpool::new(64 << 10);
    let mut sealer = Sealer::new(store(spool.dir.path()), "runner-7");
    for _ in 0..3 {
        let (stream, mut writer) = spool.writer();
        writer.append(&agent("started")).unwrap();
        writer.append(&agent("stopped")).unwrap();
        assert_eq!(
            seal(&mut sealer, &spool, SegmentName { stream, index: 0 }),
            2
        );
    }
    let report = sealer.store().verify().unwrap();
    assert!(report.is_whole());
    let events: Vec<_> = report
        .chains
        .iter()
        .map(|chain| (chain.stream, chain.events))
        .collect();
    assert_eq!(events, [(0, 2), (1, 2), (2, 2)]);
}

/// What somebody with the file and a SQLite shell can do, and what is found.
#[test]
fn every_edit_of_the_store_is_found() {
    let edits = [
        (
            "UPDATE events SET time_ns = time_ns + 1 WHERE id & 0xffffffff = 5",
            "its hash",
        ),
        (
            "UPDATE events SET kind = 'agent' WHERE id & 0xffffffff = 5",
            "its hash",
        ),
        (
            "UPDATE events SET payload_hash = zeroblob(32) WHERE id & 0xffffffff = 5",
            "its hash",
        ),
        (
            "UPDATE events SET hash = zeroblob(32) WHERE id & 0xffffffff = 5",
            "its hash",
        ),
        (
            "UPDATE events SET payload = replace(payload, 'report', 'nobody') WHERE id & 0xffffffff = 5",
            "its payload was changed",
        ),
        (
            "UPDATE events SET salt = zeroblob(16) WHERE id & 0xffffffff = 5",
            "payload was changed",
        ),
        (
            "UPDATE events SET payload = NULL WHERE id & 0xffffffff = 5",
            "the other not",
        ),
        (
            "UPDATE events SET payload = NULL, salt = NULL WHERE id & 0xffffffff = 5",
            "columns",
        ),
        (
            "UPDATE events SET workload = 'nobody' WHERE id & 0xffffffff = 5",
            "column `workload`",
        ),
        (
            "UPDATE events SET verdict = NULL WHERE id & 0xffffffff = 5",
            "column `verdict`",
        ),
        (
            "UPDATE events SET objects = '[]' WHERE id & 0xffffffff = 5",
            "column `objects`",
        ),
        (
            "UPDATE events SET connection = 2 WHERE id & 0xffffffff = 5",
            "column `connection`",
        ),
        ("DELETE FROM events WHERE id & 0xffffffff = 5", "missing"),
        ("DELETE FROM events WHERE id & 0xffffffff = 0", "missing"),
        (
            "DELETE FROM events WHERE id & 0xffffffff = 41",
            "42 events, 41",
        ),
        (
            "DELETE FROM events WHERE id & 0xffffffff > 5",
            "42 events, 6",
        ),
        (
            "DELETE FROM events WHERE id & 0xffffffff = 41; UPDATE chains SET next_seq = 41",
            "head is another",
        ),
        (
            "UPDATE events SET id = -1 WHERE id & 0xffffffff = 5;
             UPDATE events SET id = (1 << 40) | 5 WHERE id = ((1 << 40) | 7);
             UPDATE events SET id = (1 << 40) | 7 WHERE id = -1",
            "its hash",
        ),
        (
            "INSERT INTO events SELECT id + 1000, time_ns, kind, connection, ticket, workload,
                target, user, database, uid, executable, verdict, enforced, writes, verbs, objects,
                policies, shape, message, outcome, error, rows, bytes, duration_us, payload_hash,
                hash, salt, payload FROM events WHERE id & 0xffffffff = 5",
            "missing",
        ),
        ("UPDATE chains SET host = 'other'", "its hash"),
        ("UPDATE chains SET boot = zeroblob(16)", "its hash"),
        ("UPDATE chains SET stream = 99", "its hash"),
    ];
    let (spool, _) = sealed_session();
    let path = spool.dir.path().join("audit.sqlite");
    for (edit, expected) in edits {
        let copy = spool.dir.path().join("edited.sqlite");
        let _ = std::fs::remove_file(&copy);
        let target = copy.to_str().unwrap();
        Connection::open(&path)
            .unwrap()
            .execute("VACUUM INTO ?1", [target])
            .unwrap();
        Connection::open(&copy)
            .unwrap()
            .execute_batch(edit)
            .unwrap();
        let report = Store::open_read_only(&copy).unwrap().verify().unwrap();
        let what = report.chains[0]
            .fault
            .as_ref()
            .map(|fault| fault.what.as_str());
        assert!(
            what.is_some_and(|what| what.contains(expected)),
            "{edit}: {what:?}"
        );
        assert!(!report.is_whole());
    }
    // And a chain whose own row is gone.
    Connection::open(&path)
        .unwrap()
        .execute_batch("DELETE FROM chains")
        .unwrap();
    let report = Store::open_read_only(&path).unwrap().verify().unwrap();
    assert_eq!(report.orphans, 42);
    assert!(!report.is_whole());
}

#[test]
fn erasing_payloads_leaves_the_chain_whole_and_nothing_to_read() {
    let (spool, _) = sealed_session();
    let mut store = store(spool.dir.path());
    let before = store.verify().unwrap();
    assert_eq!(store.erase_before(DAY_NS + 10).unwrap(), 21);
    let after = store.verify().unwrap();
    assert!(after.is_whole(), "{after:?}");
    assert_eq!((after.chains[0].erased, before.chains[0].erased), (21, 0));
    assert_eq!(after.chains[0].head, before.chains[0].head);
    let rows = store
        .search(&Query {
            limit: Some(1000),
            ..Query::default()
        })
        .unwrap();
    assert_eq!(rows.iter().filter(|row| row.erased).count(), 11);
    drop(store);
    // All of it: no trace in the files either.
    let mut store = self::store(spool.dir.path());
    store.erase_before(i64::MAX).unwrap();
    drop(store);
    let content = std::fs::read(spool.dir.path().join("audit.sqlite")).unwrap();
    let found = content
        .windows(20)
        .any(|bytes| bytes == b"SELECT * FROM orders");
    assert!(!found, "the erased statement is still in the file");
}

#[test]
fn a_store_of_a_later_version_is_refused_and_a_missing_one_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.sqlite");
    let missing = Store::open_read_only(&path).unwrap_err();
    assert!(matches!(missing, StoreError::Missing(_)), "{missing}");
    assert!(!path.exists(), "looking made a file");
    drop(Store::open(&path).unwrap());
    drop(Store::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    for error in [
        Store::open(&path).unwrap_err(),
        Store::open_read_only(&path).unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Newer { found: 7, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_store_is_searched_while_it_is_written() {
    let (spool, stream) = session();
    let path = spool.dir.path().join("audit.sqlite");
    let mut sealer = Sealer::new(Store::open(&path).unwrap(), "runner-7");
    let reader = Store::open_read_only(&path).unwrap();
    let all = Query {
        limit: Some(1000),
        ..Query::default()
    };
    assert_eq!(reader.search(&all).unwrap().len(), 0);
    let mut segment = spool
        .spool
        .reader(SegmentName { stream, index: 0 })
        .unwrap();
    sealer.seal(&mut segment, 1).unwrap();
    assert_eq!(reader.search(&all).unwrap().len(), 1);
    sealer.seal(&mut segment, 100).unwrap();
    assert_eq!(reader.search(&all).unwrap().len(), 11);
    assert!(reader.verify().unwrap().is_whole());
}
