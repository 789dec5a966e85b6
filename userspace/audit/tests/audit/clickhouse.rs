use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use lockgate_audit::{ClickHouse, ClickHouseError, ClickHouseSettings, Sealer, SegmentName, Store};
use lockgate_command::Verb;

use crate::sample::*;
use crate::search::events;
use crate::server::{Fault, Server, Wire};

fn settings(url: String, database: &str) -> ClickHouseSettings {
    ClickHouseSettings {
        url,
        database: database.into(),
        user: None,
        password: None,
    }
}

fn at_port(port: u16, database: &str) -> ClickHouse {
    ClickHouse::new(settings(format!("http://127.0.0.1:{port}"), database)).unwrap()
}

/// A store with the events of the search tests, sealed.
fn store(spool: &mut TestSpool) -> Store {
    let (stream, mut writer) = spool.writer();
    events(|event| {
        writer.append(&event).unwrap();
    });
    let path = spool.dir.path().join("audit.sqlite");
    let mut sealer = Sealer::new(Store::open(&path).unwrap(), "runner-7");
    let mut reader = spool
        .spool
        .reader(SegmentName { stream, index: 0 })
        .unwrap();
    sealer.seal(&mut reader, 100).unwrap();
    Store::open(&path).unwrap()
}

/// As keeper does it: the same batch until it is taken.
async fn ship(store: &mut Store, clickhouse: &ClickHouse, limit: u32) -> usize {
    let mut failures = 0;
    while let Some(batch) = store.next_batch(limit).unwrap() {
        match clickhouse.insert(&batch).await {
            Ok(()) => store.shipped(&batch).unwrap(),
            Err(_) => failures += 1,
        }
        assert!(failures < 20, "ClickHouse never takes the batch");
    }
    failures
}

#[tokio::test]
async fn each_event_is_there_once_with_every_column() {
    let server = Server::start().await;
    let clickhouse = at_port(server.port, "lockgate");
    clickhouse.migrate().await.unwrap();
    let mut spool = TestSpool::new(64 << 10);
    let mut store = store(&mut spool);
    assert_eq!(store.unshipped().unwrap(), 12);
    assert_eq!(ship(&mut store, &clickhouse, 5).await, 0);
    assert_eq!(store.unshipped().unwrap(), 0);
    let ask = async |sql| server.ask("lockgate", sql).await;
    assert_eq!(
        ask("SELECT count(), uniqExact(seq), max(seq) FROM events").await,
        "12\t12\t11\n"
    );
    let row = ask(
        "SELECT time, host, connection, ticket, workload, target, user, database,
            uid, executable, verdict, enforced, writes, verbs, objects, policies, shape, message,
            outcome, rows, bytes, duration_us
         FROM commands WHERE ticket = 0 AND workload = 'report'",
    )
    .await;
    assert_eq!(
        row,
        "2026-11-24 00:00:02.000000000\trunner-7\t1\t0\t\
         report\torders-db\treport\tshop\t1001\t/usr/bin/psql\tallow\ttrue\tfalse\t['select']\t\
         ['orders-db/shop/public/orders']\t['report-reads']\t\
         SELECT * FROM orders WHERE id = $1\t\tdone\t12\t340\t250\n"
    );
    // The chain can be checked there alone: every payload hashes to its header.
    let wrong = ask("SELECT count() FROM events
         WHERE payload_hash != SHA256(concat('lockgate-audit-payload', char(1), salt, payload))")
    .await;
    assert_eq!(wrong, "0\n");
    let hashes = ask("SELECT uniqExact(hash) FROM events").await;
    assert_eq!(hashes, "12\n");
}

#[tokio::test]
async fn a_batch_is_taken_once_however_often_and_however_badly_it_is_sent() {
    let server = Server::start().await;
    at_port(server.port, "lockgate").migrate().await.unwrap();
    let mut expected = 0;
    for fault in [Fault::FailAfter, Fault::CloseAfter, Fault::CloseBefore] {
        let wire = Wire::start(server.port, fault, 3).await;
        let clickhouse = at_port(wire.port, "lockgate");
        let mut spool = TestSpool::new(64 << 10);
        // Another host each time: these are other events.
        let (stream, mut writer) = spool.writer();
        events(|event| {
            writer.append(&event).unwrap();
        });
        let path = spool.dir.path().join("audit.sqlite");
        let mut sealer = Sealer::new(Store::open(&path).unwrap(), &format!("{fault:?}"));
        let mut reader = spool
            .spool
            .reader(SegmentName { stream, index: 0 })
            .unwrap();
        sealer.seal(&mut reader, 100).unwrap();
        let failures = ship(sealer.store(), &clickhouse, 5).await;
        assert!(failures >= 1, "{fault:?} was not felt");
        // Three batches, and what was sent again.
        assert_eq!(wire.inserts.load(SeqCst), 3 + failures);
        expected += 12;
        let counts = server.ask("lockgate", "SELECT count() FROM events").await;
        assert_eq!(counts, format!("{expected}\n"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_batch_made_before_a_crash_is_the_same_after_it() {
    let server = Server::start().await;
    let clickhouse = at_port(server.port, "lockgate");
    clickhouse.migrate().await.unwrap();
    let mut spool = TestSpool::new(64 << 10);
    let mut first = store(&mut spool);
    let batch = first.next_batch(5).unwrap().unwrap();
    clickhouse.insert(&batch).await.unwrap();
    // keeper dies before it noted that, and comes back with another limit.
    drop(first);
    let mut second = Store::open(&spool.dir.path().join("audit.sqlite")).unwrap();
    let again = second.next_batch(1000).unwrap().unwrap();
    assert_eq!(again, batch);
    assert_eq!(again.token(), format!("runner-7/{BOOT}/0/0-4"));
    ship(&mut second, &clickhouse, 1000).await;
    assert_eq!(
        server.ask("lockgate", "SELECT count() FROM events").await,
        "12\n"
    );
}

#[tokio::test]
async fn the_views_show_each_event_once_where_the_server_forgot_the_token() {
    let server = Server::start().await;
    let clickhouse = at_port(server.port, "lockgate");
    clickhouse.migrate().await.unwrap();
    let mut spool = TestSpool::new(64 << 10);
    let mut store = store(&mut spool);
    ship(&mut store, &clickhouse, 1000).await;
    server
        .ask("lockgate", "INSERT INTO events SELECT * FROM events")
        .await;
    let counts = "SELECT (SELECT count() FROM events), (SELECT count() FROM events_latest),
        (SELECT count() FROM commands)";
    assert_eq!(server.ask("lockgate", counts).await, "24\t12\t4\n");
}

#[tokio::test]
async fn a_server_that_is_away_or_restarted_loses_nothing() {
    let mut server = Server::start().await;
    let clickhouse = at_port(server.port, "lockgate");
    clickhouse.migrate().await.unwrap();
    let mut spool = TestSpool::new(64 << 10);
    let mut store = store(&mut spool);
    let batch = store.next_batch(5).unwrap().unwrap();
    clickhouse.insert(&batch).await.unwrap();
    server.restart().await;
    // The token outlives the server's death.
    clickhouse.insert(&batch).await.unwrap();
    store.shipped(&batch).unwrap();
    ship(&mut store, &clickhouse, 5).await;
    assert_eq!(
        server.ask("lockgate", "SELECT count() FROM events").await,
        "12\n"
    );
    let port = server.port;
    server.stop().await;
    let started = Instant::now();
    let away = at_port(port, "lockgate").insert(&batch).await.unwrap_err();
    assert!(matches!(away, ClickHouseError::Away(_)), "{away:?}");
    assert!(away.to_string().contains("refused"), "{away}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let clickhouse = at_port(silent.local_addr().unwrap().port(), "lockgate")
        .with_patience(Duration::from_millis(300));
    let started = Instant::now();
    let slow = clickhouse.migrate().await.unwrap_err();
    assert!(matches!(slow, ClickHouseError::Slow { .. }), "{slow:?}");
    let mut spool = TestSpool::new(64 << 10);
    let batch = store(&mut spool).next_batch(5).unwrap().unwrap();
    let slow = clickhouse.insert(&batch).await.unwrap_err();
    assert!(matches!(slow, ClickHouseError::Slow { .. }), "{slow:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn migrating_is_repeatable_concurrent_and_refuses_a_later_version() {
    let server = Server::start().await;
    let (left, right) = (at_port(server.port, "fleet"), at_port(server.port, "fleet"));
    let (one, two) = tokio::join!(left.migrate(), right.migrate());
    one.unwrap();
    two.unwrap();
    left.migrate().await.unwrap();
    let ask = async |sql| server.ask("fleet", sql).await;
    assert_eq!(ask("SELECT max(version) FROM lockgate_schema").await, "1\n");
    let window = ask(
        "SELECT create_table_query LIKE '%non_replicated_deduplication_window = 10000%'
        FROM system.tables WHERE database = 'fleet' AND name = 'events'",
    );
    assert_eq!(window.await, "1\n");
    ask("INSERT INTO lockgate_schema (version) VALUES (7)").await;
    let newer = left.migrate().await.unwrap_err();
    assert!(
        matches!(newer, ClickHouseError::Newer { found: 7, known: 1 }),
        "{newer:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_said_and_never_shown() {
    let server = Server::start().await;
    let settings = ClickHouseSettings {
        user: Some("default".into()),
        password: Some("hunter2".into()),
        ..settings(server.url(), "lockgate")
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
    let clickhouse = ClickHouse::new(settings).unwrap();
    let refused = clickhouse.migrate().await.unwrap_err();
    assert!(
        matches!(refused, ClickHouseError::Refused(_)),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("Authentication"), "{refused}");
    assert!(!format!("{clickhouse:?} {refused:?}").contains("hunter2"));
}

#[test]
fn a_database_name_cannot_carry_a_statement() {
    for name in ["", "a b", "a;DROP", "a`b", "ä"] {
        let made = ClickHouse::new(settings("http://127.0.0.1:1".into(), name));
        assert!(matches!(made, Err(ClickHouseError::Name(_))), "{name}");
    }
}

/// The questions of docs/audit.md, as they stand there.
#[tokio::test]
async fn the_documented_questions_have_the_right_answers() {
    let server = Server::start().await;
    let clickhouse = at_port(server.port, "lockgate");
    clickhouse.migrate().await.unwrap();
    let mut spool = TestSpool::new(64 << 10);
    let mut store = store(&mut spool);
    ship(&mut store, &clickhouse, 1000).await;
    // A second day, with a program that was not seen before.
    let (stream, mut writer) = spool.writer();
    let day = 24 * 3600 * SECOND_NS;
    let select = Decided::new(Verb::Select, "orders", "SELECT * FROM orders", true);
    writer
        .append(&at(DAY_NS + day, connected(9, "report", "/tmp/x")))
        .unwrap();
    writer
        .append(&at(DAY_NS + day + 1, select.event(9, 0)))
        .unwrap();
    let masked = Decided::masked();
    writer
        .append(&at(DAY_NS + day + 2, masked.event(9, 1)))
        .unwrap();
    let mut sealer = Sealer::new(store, "runner-7");
    let mut reader = spool
        .spool
        .reader(SegmentName { stream, index: 0 })
        .unwrap();
    sealer.seal(&mut reader, 100).unwrap();
    ship(sealer.store(), &clickhouse, 1000).await;

    let docs = include_str!("../../../../docs/audit.md");
    let questions: Vec<&str> = docs
        .split("```sql\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let answers = [
        // By user: billing's insert and select, report's two selects, its DELETE.
        "billing\treport\tallow\t2\t0\nreport\treport\tallow\t2\t12\nreport\treport\tdeny\t1\t0\n\
         report\treport\tmask\t1\t0\n",
        // By resource: the denied DELETE touched nothing.
        "billing\tselect\t1\t2026-11-24 00:00:09.000000000\n\
         report\tselect\t2\t2026-11-25 00:00:00.000000001\n",
        // By time: the first day only.
        "2026-11-24 00:00:00\t4\t1\t250\n",
        // Tagged columns that were shown.
        "2026-11-25 00:00:00.000000002\treport\tmask\t\
         masked: output 2 (Column shop.public.customers.ssn)\n",
        // Refused DELETEs.
        "2026-11-24 00:00:04.000000000\treport\t/usr/bin/psql\tDELETE FROM orders\t\
         lockgate: no policy permits delete on Table shop.public.orders\n",
        // Programs first seen on the second day.
        "report\t/tmp/x\t2026-11-25 00:00:00.000000000\n",
    ];
    assert_eq!(questions.len(), answers.len(), "{questions:#?}");
    for (question, answer) in questions.iter().zip(answers) {
        assert_eq!(server.ask("lockgate", question).await, answer, "{question}");
    }
}
