use lockgate_audit::{Query, Row, Sealer, SegmentName, Store};
use lockgate_command::{Outcome, Verb};

use crate::sample::*;

/// Two workloads: one reads and is refused a DELETE, one writes; a stranger is
/// turned away. One event per second.
pub fn events(mut append: impl FnMut(lockgate_audit::Event)) {
    let mut second = 0;
    let mut record = |event: lockgate_audit::Event| {
        append(at(DAY_NS + second * SECOND_NS, event));
        second += 1;
    };
    let select = Decided::new(
        Verb::Select,
        "orders",
        "SELECT * FROM orders WHERE id = $1",
        true,
    );
    let delete = Decided::new(Verb::Delete, "orders", "DELETE FROM orders", false);
    let insert = Decided::new(
        Verb::Insert,
        "invoices",
        "INSERT INTO invoices VALUES ($1)",
        true,
    );
    record(agent("started"));
    record(connected(1, "report", "/usr/bin/psql"));
    record(select.event(1, 0));
    record(ended(
        1,
        0,
        Outcome::Done {
            rows: 12,
            bytes: 340,
        },
    ));
    record(delete.event(1, 1));
    record(ended(1, 1, Outcome::Denied));
    record(connected(2, "billing", "/opt/billing/bin/billing"));
    record(insert.event(2, 0));
    record(ended(
        2,
        0,
        Outcome::Failed {
            code: "23505".into(),
        },
    ));
    record(select.event(2, 1));
    record(closed(1));
    record(refused(3, "no target is at this address: 100%_sure"));
}

fn found(query: Query) -> Vec<Row> {
    let mut spool = TestSpool::new(64 << 10);
    let (stream, mut writer) = spool.writer();
    events(|event| {
        writer.append(&event).unwrap();
    });
    let store = Store::open(&spool.dir.path().join("audit.sqlite")).unwrap();
    let mut sealer = Sealer::new(store, "runner-7");
    let mut reader = spool
        .spool
        .reader(SegmentName { stream, index: 0 })
        .unwrap();
    sealer.seal(&mut reader, 100).unwrap();
    sealer.store().search(&query).unwrap()
}

/// What each row is, in short.
fn short(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .map(|row| {
            let verbs = row.verbs.join("+");
            let workload = row.workload.as_deref().unwrap_or("-");
            format!("{} {workload} {verbs}", row.kind).trim().to_owned()
        })
        .collect()
}

fn search(query: Query) -> Vec<String> {
    short(&found(query))
}

fn some(text: &str) -> Option<String> {
    Some(text.into())
}

#[test]
fn newest_first_and_ends_are_shown_with_their_commands() {
    assert_eq!(
        search(Query::default()),
        [
            "refused unknown",
            "closed report",
            "command billing select",
            "command billing insert",
            "connected billing",
            "command report delete",
            "command report select",
            "connected report",
            "agent -",
        ]
    );
    assert_eq!(
        search(Query {
            limit: Some(2),
            ..Query::default()
        })
        .len(),
        2
    );
}

#[test]
fn a_command_says_who_what_and_how_it_ended() {
    let rows = found(Query {
        kind: some("command"),
        ..Query::default()
    });
    let [running, failed, denied, done] = &rows[..] else {
        panic!("{rows:?}")
    };
    assert_eq!(done.time, "2026-11-24T00:00:02.000000000Z");
    assert_eq!(done.connection.as_deref(), Some("0000000000000001"));
    assert_eq!(done.user.as_deref(), Some("report"));
    assert_eq!(done.database.as_deref(), Some("shop"));
    assert_eq!(done.uid, Some(1001));
    assert_eq!(done.executable.as_deref(), Some("/usr/bin/psql"));
    assert_eq!(done.objects, ["orders-db/shop/public/orders"]);
    assert_eq!(done.policies, ["report-reads"]);
    assert_eq!(
        done.shape.as_deref(),
        Some("SELECT * FROM orders WHERE id = $1")
    );
    assert_eq!(
        (done.rows, done.bytes, done.duration_us),
        (Some(12), Some(340), Some(250))
    );
    assert_eq!(done.outcome.as_deref(), Some("done"));
    assert_eq!(denied.verdict.as_deref(), Some("deny"));
    assert_eq!(denied.outcome.as_deref(), Some("denied"));
    assert_eq!(
        denied.message.as_deref(),
        Some("lockgate: no policy permits delete on Table shop.public.orders")
    );
    assert_eq!(
        (failed.outcome.as_deref(), failed.error.as_deref()),
        (Some("failed"), Some("23505"))
    );
    assert_eq!((&running.outcome, running.rows), (&None, None));
    let json = serde_json::to_value(done).unwrap();
    assert_eq!(json["duration_us"], 250);
    assert_eq!(json["verbs"][0], "select");
}

#[test]
fn each_filter_narrows() {
    let report = Query {
        workload: some("report"),
        ..Query::default()
    };
    assert_eq!(search(report).len(), 4);
    assert_eq!(
        search(Query {
            target: some("orders-db"),
            ..Query::default()
        })
        .len(),
        7
    );
    assert_eq!(
        search(Query {
            target: some("other-db"),
            ..Query::default()
        })
        .len(),
        0
    );
    let denied = ["refused unknown", "command report delete"];
    assert_eq!(
        search(Query {
            verdict: some("deny"),
            ..Query::default()
        }),
        denied
    );
    let deletes = Query {
        verb: some("delete"),
        ..Query::default()
    };
    assert_eq!(search(deletes), ["command report delete"]);
    assert_eq!(
        search(Query {
            verb: some("del"),
            ..Query::default()
        })
        .len(),
        0
    );
    assert_eq!(
        search(Query {
            user: some("report"),
            ..Query::default()
        })
        .len(),
        7
    );
    assert_eq!(
        search(Query {
            user: some("1001"),
            ..Query::default()
        })
        .len(),
        7
    );
    assert_eq!(
        search(Query {
            user: some("0"),
            ..Query::default()
        }),
        ["refused unknown"]
    );
    assert_eq!(
        search(Query {
            connection: Some(2),
            ..Query::default()
        })
        .len(),
        3
    );
    let both = Query {
        workload: some("billing"),
        verb: some("select"),
        ..Query::default()
    };
    assert_eq!(search(both), ["command billing select"]);
}

#[test]
fn objects_are_found_by_id_by_what_holds_them_and_by_name() {
    for (object, expected) in [
        ("orders-db/shop/public/orders", 3),
        ("orders-db/shop/public", 4),
        ("orders-db", 4),
        ("orders", 3),
        ("public/invoices", 1),
        ("order", 0),
        ("orders-db/shop/pub", 0),
        ("%", 0),
    ] {
        let query = Query {
            object: some(object),
            ..Query::default()
        };
        assert_eq!(search(query).len(), expected, "{object}");
    }
}

#[test]
fn times_bound_from_and_up_to() {
    let query = Query {
        since_ns: Some(DAY_NS + SECOND_NS),
        until_ns: Some(DAY_NS + 4 * SECOND_NS),
        ..Query::default()
    };
    assert_eq!(search(query), ["command report select", "connected report"]);
}

#[test]
fn text_is_found_as_it_is_written() {
    let text = |text| Query {
        text: some(text),
        ..Query::default()
    };
    assert_eq!(search(text("from ORDERS where")).len(), 2);
    assert_eq!(search(text("no policy permits")), ["command report delete"]);
    assert_eq!(search(text("/opt/billing")).len(), 3);
    assert_eq!(search(text("100%_sure")), ["refused unknown"]);
    assert_eq!(search(text("100%sure")).len(), 0);
    assert_eq!(search(text("'; DROP TABLE events; --")).len(), 0);
}
