//! What an operator is told by the running agent, and what policies stop.

use std::time::{Duration, Instant};

use lockgate_tests::{Agent, Paused, Postgres, PostgresConfig};
use serde_json::Value;

use crate::stage::{Stage, config};

/// The agent's answer in JSON.
fn explain(stage: &Stage, workload: &str, sql: &str) -> (i32, Value) {
    let output = stage
        .agent
        .lockgate(&[
            "policy",
            "explain",
            "--live",
            "--json",
            "--database",
            "shop",
            "--target",
            "orders-db",
            "--workload",
            workload,
            sql,
        ])
        .unwrap();
    let answer = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.code.unwrap(), answer)
}

fn accesses(answer: &Value) -> Vec<String> {
    let rows = answer["accesses"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.map(|row| {
        format!(
            "{} {} {}",
            text(&row["verb"]),
            text(&row["resource"]),
            text(&row["why"])
        )
    })
    .collect()
}

#[test]
fn an_explanation_goes_by_the_server_s_names() {
    let stage = Stage::new();
    let admin = |sql| stage.postgres.admin("shop", sql).unwrap();
    admin(
        "create schema sales; create table sales.orders(id int); grant usage on schema sales to report_ro",
    );
    let (code, answer) = explain(&stage, "report", "select id from orders");
    assert_eq!((code, &answer["verdict"]), (0, &"allow".into()));
    assert_eq!(answer["names_from"], "server");
    assert_eq!(answer["user"], "report_ro");
    assert_eq!(
        accesses(&answer),
        [
            "connect orders-db permitted",
            "select orders-db/shop/public/orders permitted"
        ]
    );
    // The role's own search path decides what the name means: everything on it,
    // since what was prepared before may mean what is further back.
    admin("alter role report_ro set search_path = sales");
    let (_, answer) = explain(&stage, "report", "select id from orders");
    assert_eq!(answer["search_path"][1], "sales");
    assert_eq!(
        accesses(&answer)[1],
        "select orders-db/shop/sales/orders permitted"
    );
    admin("alter role report_ro set search_path = sales, public");
    let (_, answer) = explain(&stage, "report", "select id from orders");
    assert_eq!(
        accesses(&answer)[1..],
        [
            "select orders-db/shop/sales/orders permitted",
            "select orders-db/shop/public/orders permitted"
        ]
    );
    // A function of the database's is a call, and nothing permits that.
    let (code, answer) = explain(&stage, "report", "select price(id) from sales.orders");
    assert_eq!(code, 1);
    let mut rows = answer["accesses"].as_array().unwrap().iter();
    let call = rows.find(|row| row["verb"] == "call").unwrap();
    assert_eq!(call["why"], "unpermitted", "{answer:#}");
    assert_eq!(
        call["command"],
        "lockgate policy allow report call orders-db/shop/public/price"
    );
    // What the explanation says is what happens.
    let output = stage.psql(&stage.report, &["select price(id) from sales.orders"]);
    assert!(
        output.stderr.contains("no policy permits `call`"),
        "{output:?}"
    );

    let output = stage
        .agent
        .lockgate(&[
            "policy",
            "explain",
            "--workload",
            "app",
            "--target",
            "orders-db",
            "--database",
            "shop",
            "drop table orders",
        ])
        .unwrap();
    assert_eq!(output.code, Some(1));
    let text = &output.stdout;
    assert!(
        text.starts_with("DENIED: `app` may not do this at `orders-db`, database `shop`."),
        "{text}"
    );
    assert!(text.contains("NOT PERMITTED by any policy"), "{text}");
    assert!(
        text.contains("to permit it: lockgate policy allow app drop orders-db/shop/public/orders"),
        "{text}"
    );
    assert!(text.contains("Names are the server's"), "{text}");

    let away = [
        "policy",
        "explain",
        "--live",
        "--workload",
        "app",
        "--target",
        "orders-db",
        "--database",
        "nowhere",
        "select 1",
    ];
    let output = stage.agent.lockgate(&away).unwrap();
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(!output.all().contains("s3cret"), "{output:?}");
}

#[test]
fn a_mistyped_name_in_a_forbid_is_found_at_the_server() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let tags = "tags = [{ columns = \"public.customers.snn\", tag = \"pii\" }]";
    let mut config = config(&postgres, tags);
    config.policies.push_str(
        "@id(\"no-customers\")\n\
         forbid (principal, action, resource in Table::\"orders-db/shop/public/custommers\");\n\
         @id(\"no-orders\")\n\
         forbid (principal, action == Action::\"drop\", resource in Table::\"orders-db/shop/public/orders\");\n",
    );
    let agent = Agent::start(&config).unwrap();
    let plain = agent.lockgate(&["check"]).unwrap();
    assert_eq!(plain.code, Some(0), "it is valid: {plain:?}");
    let looked = agent
        .lockgate(&["check", "--target", "orders-db", "--json"])
        .unwrap();
    assert_eq!(looked.code, Some(1), "{looked:?}");
    let findings: Vec<Value> = looked
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let said = |at: usize| findings[at]["message"].as_str().unwrap().to_owned();
    assert!(
        said(0).contains("schema `public` has no table `custommers`, so that it forbids nothing"),
        "{}",
        said(0)
    );
    assert_eq!(findings[0]["fix"], "did you mean `customers`?");
    let text = std::fs::read_to_string(agent.path("policies/test.cedar")).unwrap();
    let line = findings[0]["line"].as_u64().unwrap() as usize;
    assert!(text.lines().nth(line - 1).unwrap().contains("custommers"));
    assert!(
        said(1).contains("the tag `pii` is on no column"),
        "{}",
        said(1)
    );
    assert_eq!(findings[1]["fix"], "did you mean `ssn`?");
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let line = findings[1]["line"].as_u64().unwrap() as usize;
    assert!(text.lines().nth(line - 1).unwrap().contains("snn"));

    let nowhere = agent
        .lockgate(&["check", "--target", "orders-db", "--database", "shpo"])
        .unwrap();
    assert_eq!(
        nowhere.code,
        Some(0),
        "nothing names that database: {nowhere:?}"
    );
    let unknown = agent.lockgate(&["check", "--target", "orders-bd"]).unwrap();
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("did you mean `orders-db`?"),
        "{unknown:?}"
    );
}

#[test]
fn prepared_roles_have_no_more_than_their_policies() {
    let stage = Stage::new();
    let prepare = || {
        let output = stage
            .agent
            .lockgate(&[
                "target",
                "prepare",
                "orders-db",
                "--database",
                "shop",
                "--json",
            ])
            .unwrap();
        let answer: Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(answer["not_asked"], Value::Null, "{answer:#}");
        (output.code.unwrap(), answer)
    };
    let of = |answer: &Value, user: &str| {
        let findings = answer["findings"].as_array().unwrap().clone();
        let of_it = findings.into_iter().filter(|it| it["user"] == user);
        of_it
            .map(|it| it["message"].as_str().unwrap().to_owned())
            .collect::<Vec<String>>()
    };
    stage
        .postgres
        .admin(
            "shop",
            "grant pg_read_server_files to report_ro; alter role app_rw createdb;
             grant create on schema public to public; create table mine(); alter table mine owner to app_rw",
        )
        .unwrap();
    let (code, answer) = prepare();
    assert_eq!(code, 1);
    let report = of(&answer, "report_ro").join("\n");
    for said in [
        "is a member of pg_read_server_files",
        "may CREATE in schema `public`, as every role may",
        "may DELETE in",
    ] {
        assert!(report.contains(said), "{said}: {report}");
    }
    let app = of(&answer, "app_rw").join("\n");
    for said in [
        "has CREATEDB",
        "owns \"public\".\"mine\"",
        "may TRUNCATE in",
    ] {
        assert!(app.contains(said), "{said}: {app}");
    }
    assert!(!app.contains("may DELETE"), "{app}");

    // Made anew by what is printed, the roles are as they should be.
    stage
        .postgres
        .admin(
            "shop",
            "drop table mine; revoke create on schema public from public;
             drop owned by report_ro, app_rw; drop role report_ro, app_rw",
        )
        .unwrap();
    let sql = answer["sql"].as_str().unwrap();
    let file = stage.agent.path("roles.sql");
    std::fs::write(&file, sql).unwrap();
    let script: String = sql
        .lines()
        .filter(|line| !line.starts_with("\\connect") && !line.contains("CREATE ROLE \"owner\""))
        .map(|line| format!("{line}\n"))
        .collect();
    stage.postgres.admin("shop", &script).unwrap();
    stage
        .postgres
        .admin("shop", "alter role report_ro password 's3cret-report_ro'; alter role app_rw password 's3cret-app_rw'")
        .unwrap();
    let (_, answer) = prepare();
    assert_eq!(of(&answer, "report_ro"), [""; 0]);
    assert_eq!(of(&answer, "app_rw"), [""; 0]);
    let read = stage.psql(&stage.report, &["select count(*) from orders"]);
    assert!(read.ok(), "{read:?}");
    let write = stage.psql(&stage.app, &["delete from orders where id = 1"]);
    assert!(write.ok(), "{write:?}");
    let beyond = stage.postgres.admin(
        "shop",
        "set role report_ro; delete from orders where id = 2",
    );
    assert!(beyond.is_err(), "the second lock holds by itself");

    stage
        .postgres
        .admin("shop", "alter role report_ro superuser")
        .unwrap();
    let (_, answer) = prepare();
    assert_eq!(
        of(&answer, "report_ro"),
        ["is SUPERUSER: nothing at the server holds it"]
    );
}

#[test]
fn a_forgotten_where_leaves_the_rows_alone() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let agent = Agent::prepare(&config(&postgres, "")).unwrap();
    let installed = agent
        .lockgate(&[
            "policy",
            "pack",
            "install",
            "no-accidents",
            "--workload",
            "app",
            "--target",
            "orders-db",
        ])
        .unwrap();
    assert!(installed.ok(), "{installed:?}");
    let mut agent = agent;
    agent.launch().unwrap();
    let stage = Stage::over(agent, postgres);
    let rows = || {
        stage
            .postgres
            .admin("shop", "select count(*), sum(qty) from orders")
            .unwrap()
    };
    let before = rows();
    for sql in [
        "delete from orders",
        "delete from orders where true",
        "delete from orders where id = 1 or 'a' = 'a'",
        "update orders set qty = 0",
        "with gone as (delete from orders returning id) select count(*) from gone",
        "merge into orders using (select 1) one on true when matched then delete",
        "prepare p as delete from orders",
        "truncate orders",
    ] {
        let output = stage.psql(&stage.app, &[sql]);
        assert!(!output.ok(), "{sql}: {output:?}");
        assert!(
            output.stderr.contains("forbidden to `app` by"),
            "{sql}: {output:?}"
        );
        assert_eq!(rows(), before, "{sql}");
    }
    // The same text but for its literals is another question.
    let program = "
with psycopg.connect(dsn, autocommit=True) as c:
    for sql in ['delete from orders where id = 1 or 1 = 2', 'delete from orders where id = 2 or 1 = 1']:
        try: print(c.execute(sql).rowcount)
        except psycopg.Error as e: print(e.sqlstate)
    print(c.execute('delete from orders where id = %s', [3]).rowcount)
    try: c.execute('delete from orders where %s', [True])
    except psycopg.Error as e: print(e.sqlstate)
";
    let output = stage.python(&stage.app, program);
    assert_eq!(output.stdout, "1\n42501\n1\n42501\n", "{output:?}");
    assert_eq!(stage.postgres.count("orders").unwrap(), 8);
    let events = stage.agent.events(&["--verb", "delete_all"], 1).unwrap();
    assert!(
        events.iter().all(|event| event["verdict"] == "deny"),
        "{events:#?}"
    );
}

/// A stranger changes what a name means; how long is the old meaning used? The
/// proxy takes a catalogue that is five seconds old, keeper one of a second.
#[test]
fn a_stranger_s_change_is_seen_within_six_seconds() {
    let stage = Stage::with(
        "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]",
        &PostgresConfig::default(),
    );
    let admin = |sql| stage.postgres.admin("shop", sql).unwrap();
    admin("create view list as select id, name from customers; grant select on list to report_ro");
    let program = "
import time
with psycopg.connect(dsn, autocommit=True) as c:
    c.execute('select * from list').fetchall()
    print('ready', flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    while time.monotonic() - begun < 20:
        try: row = c.execute('select * from list').fetchone()
        except psycopg.errors.InsufficientPrivilege: break
        time.sleep(0.05)
    print(time.monotonic() - begun, flush=True)
";
    let mut session = Paused::start(&stage.report, program, &stage.dsn("")).unwrap();
    assert_eq!(session.line().unwrap(), "ready");
    admin("create or replace view list as select id, name, ssn from customers");
    let begun = Instant::now();
    session.go_on().unwrap();
    let took: f64 = session.line().unwrap().parse().unwrap();
    println!("a changed view was used as it was for {took:.2} s");
    assert!(
        took <= 6.5,
        "{took} s; a poll and a query come on top of six"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
}
