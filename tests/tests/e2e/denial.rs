//! A denial is what the server itself would have said: transactions, pipelines
//! and sessions go on from there as they always do.

use lockgate_tests::run;

use crate::stage::Stage;

#[test]
fn a_transaction_is_aborted_as_the_server_aborts_it() {
    let stage = Stage::new();
    let program = r#"
def state(c): return c.info.transaction_status.name
with psycopg.connect(dsn) as c:
    c.execute("select 1")
    for prepare in (False, True):
        try: c.execute("delete from orders", prepare=prepare)
        except psycopg.errors.InsufficientPrivilege as e: print(e.sqlstate, state(c))
        try: c.execute("select 1", prepare=prepare)
        except psycopg.errors.InFailedSqlTransaction as e: print(e.sqlstate, state(c))
        c.rollback()
        print(state(c), c.execute("select count(*) from orders", prepare=prepare).fetchone()[0], state(c))
"#;
    let output = stage.python(&stage.report, program);
    let once = "42501 INERROR\n25P02 INERROR\nIDLE 10 INTRANS\n";
    assert_eq!(output.stdout, once.repeat(2), "{output:?}");
}

#[test]
fn a_savepoint_saves() {
    let stage = Stage::new();
    let program = r#"
with psycopg.connect(dsn) as c:
    c.execute("update orders set qty = 50 where id = 1")
    for prepare in (False, True):
        try:
            with c.transaction(): c.execute("drop table orders", prepare=prepare)
        except psycopg.errors.InsufficientPrivilege: print("denied")
    c.execute("update orders set qty = 51 where id = 2")
"#;
    let output = stage.python(&stage.app, program);
    assert_eq!(output.stdout, "denied\ndenied\n", "{output:?}");
    let quantities = "select string_agg(qty::text, ',' order by id) from orders where id < 3";
    assert_eq!(stage.postgres.admin("shop", quantities).unwrap(), "50,51");
}

#[test]
fn a_pipeline_fails_where_it_was_denied_and_to_its_sync() {
    let stage = Stage::new();
    let program = r#"
with psycopg.connect(dsn, autocommit=True) as c:
    for round in range(3):
        with c.pipeline() as p:
            first = c.execute("select 1")
            p.sync()
            denied = c.execute("delete from orders")
            skipped = c.execute("select 2")
            try: p.sync(); print("no error")
            except psycopg.errors.InsufficientPrivilege as e: print(e.sqlstate)
            last = c.execute("select 3")
            p.sync()
            print(first.fetchone()[0], last.fetchone()[0])
    print(c.execute("select count(*) from orders").fetchone()[0])
"#;
    let output = stage.python(&stage.report, program);
    assert_eq!(
        output.stdout,
        format!("{}10\n", "42501\n1 3\n".repeat(3)),
        "{output:?}"
    );
}

#[test]
fn a_string_of_statements_is_decided_whole() {
    let stage = Stage::new();
    let whole = "insert into orders values (77, 'x', 1); drop table customers; select 1";
    let output = stage.psql(&stage.app, &[whole, "select 'on'"]);
    assert_eq!(output.stdout, "on\n", "{output:?}");
    assert_eq!(
        stage.postgres.count("orders").unwrap(),
        10,
        "not even its first ran"
    );
}

#[test]
fn copy_is_denied_before_a_row_moves() {
    let stage = Stage::new();
    let program = r#"
with psycopg.connect(dsn, autocommit=True) as c:
    try:
        with c.cursor().copy("copy orders from stdin") as copy:
            for i in range(1000, 2000): copy.write_row((i, "x", 1))
        print("copied")
    except psycopg.errors.InsufficientPrivilege as e: print(e.sqlstate)
    print(c.execute("select 'on'").fetchone()[0])
    with c.cursor().copy("copy orders to stdout") as copy: print(len(list(copy.rows())))
"#;
    let output = stage.python(&stage.report, program);
    assert_eq!(output.stdout, "42501\non\n10\n", "{output:?}");
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
}

#[test]
fn what_was_prepared_is_decided_again_when_it_is_bound() {
    let stage = Stage::new();
    // Stays connected while policies change under it.
    let program = r#"
import os, time
with psycopg.connect(dsn, autocommit=True) as c:
    q = "select count(*) from orders where id > %s"
    for _ in range(7): print(c.execute(q, (0,), prepare=True).fetchone()[0])
    print("prepared", flush=True)
    sys.stdin.readline()
    try: print(c.execute(q, (0,), prepare=True).fetchone()[0])
    except psycopg.errors.InsufficientPrivilege as e: print("denied", e.sqlstate)
    print(c.execute("select 1").fetchone()[0])
"#;
    let mut child = stage
        .report
        .command(lockgate_tests::python())
        .args([
            "-c",
            &format!("import psycopg, sys\ndsn = sys.argv[1]\n{program}"),
            &stage.dsn(""),
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(
        lines
            .by_ref()
            .map(Result::unwrap)
            .any(|line| line == "prepared")
    );
    let narrower = "@id(\"only-connects\") permit (principal == Workload::\"report\", \
                    action in Action::\"use\", resource in Target::\"orders-db\");";
    std::fs::write(stage.agent.path("policies/test.cedar"), narrower).unwrap();
    let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(reloaded.ok(), "{reloaded:?}");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n").unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    child.wait().unwrap();
    assert_eq!(rest, ["denied 42501", "1"]);
}

/// The same test is its own client: it runs itself inside the workload.
#[test]
fn tokio_postgres_works_unmodified() {
    if let Ok(dsn) = std::env::var("LOCKGATE_TESTS_DSN") {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(as_a_client(&dsn));
    }
    let stage = Stage::new();
    let mut itself = stage.report.command(std::env::current_exe().unwrap());
    itself.args([
        "--exact",
        "denial::tokio_postgres_works_unmodified",
        "--nocapture",
    ]);
    let output = run(itself.env("LOCKGATE_TESTS_DSN", stage.dsn(""))).unwrap();
    assert!(
        output.ok() && output.stdout.contains("1 passed"),
        "{output:?}"
    );
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
}

async fn as_a_client(dsn: &str) {
    let (mut client, connection) = tokio_postgres::connect(dsn, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let statement = client
        .prepare("select item from orders where id = $1")
        .await
        .unwrap();
    let rows = client.query(&statement, &[&3]).await.unwrap();
    assert_eq!(rows[0].get::<_, String>(0), "item 3");

    let denied = client
        .execute("delete from orders where id = $1", &[&1])
        .await
        .unwrap_err();
    let error = denied
        .as_db_error()
        .expect("an answer of the server's kind");
    assert_eq!(error.code().code(), "42501");
    assert!(error.message().starts_with("lockgate: "), "{error}");
    let denied = client
        .batch_execute("select 1; delete from orders")
        .await
        .unwrap_err();
    assert_eq!(denied.code().unwrap().code(), "42501");

    // Several at a time on one connection, one of them denied.
    let (first, second, third) = tokio::join!(
        client.query(&statement, &[&1]),
        client.execute("delete from orders", &[]),
        client.query(&statement, &[&2]),
    );
    assert_eq!(first.unwrap()[0].get::<_, String>(0), "item 1");
    assert_eq!(second.unwrap_err().code().unwrap().code(), "42501");
    assert_eq!(third.unwrap()[0].get::<_, String>(0), "item 2");

    let transaction = client.transaction().await.unwrap();
    assert!(
        transaction
            .execute("delete from orders", &[])
            .await
            .is_err()
    );
    transaction.rollback().await.unwrap();
    let rows = client
        .query("select count(*) from orders", &[])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<_, i64>(0), 10);
}
