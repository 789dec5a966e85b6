//! What a session begins with, what it goes on with when the policy or the
//! database changes, and what nobody may be refused.

use std::time::{Duration, Instant};

use lockgate_tests::{PostgresConfig, Wire, query};

use super::state::secret_in;
use crate::stage::{self, Stage};

fn session(stage: &Stage, parameters: &[(&str, &str)]) -> (Wire, lockgate_tests::Answer) {
    let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
    let answer = wire.start(parameters).unwrap();
    (wire, answer)
}

#[test]
fn settings_of_the_startup_are_decided_as_set_is() {
    let stage = Stage::new();
    let admin = |sql: &str| stage.postgres.admin("shop", sql).unwrap();
    admin("alter role report_ro superuser");
    admin("create schema other; create table other.orders as select 'Ty8-Bn5-Lc1' as item");
    // Text that deletes where a backslash escapes, and a statement that shows
    // whose names and rights hold.
    let trick = "select '\\''; delete from public.orders; --'";
    let look = "select current_user, item from orders limit 1";
    let run = |parameters: &[(&str, &str)]| {
        let usual = [("user", "whoever"), ("database", "shop")];
        let (mut wire, mut answer) = session(&stage, &[&usual, parameters].concat());
        for sql in [trick, look, "delete from orders"] {
            if !answer.closed {
                answer.take(wire.ask(&query(sql)).unwrap());
            }
        }
        answer
    };
    let named = |parameters: &[(&str, &str)], name: &str| {
        let answer = run(parameters);
        let seen = String::from_utf8_lossy(&answer.bytes()).into_owned();
        assert_eq!(stage.postgres.count("orders").unwrap(), 10, "{name}");
        assert!(
            !seen.contains("owner\0") && secret_in(seen.as_bytes()).is_none(),
            "{name}: {seen}"
        );
        println!(
            "held        startup  {name}  -- {}",
            answer.errors().join("; ")
        );
    };
    for options in [
        "-c standard_conforming_strings=off",
        "-cstandard_conforming_strings=off",
        "--standard_conforming_strings=off",
        "--standard-conforming-strings=off",
        "-c STANDARD_CONFORMING_STRINGS=off",
        "-c backslash_quote=on -c standard_conforming_strings\\=off",
        "-c role=owner",
        "-c session_authorization=owner",
        "-c search_path=pg_temp",
        "-c session_replication_role=replica",
        "-c client_encoding=SJIS",
        "-O -c allow_system_table_mods=on",
        "-c row_security=off --session_preload_libraries=x",
    ] {
        named(&[("options", options)], options);
    }
    for (name, value) in [
        ("standard_conforming_strings", "off"),
        ("Standard_Conforming_Strings", "off"),
        ("client_encoding", "SJIS"),
        ("CLIENT_ENCODING", "BIG5"),
        ("role", "owner"),
        ("session_authorization", "owner"),
        ("replication", "database"),
        ("replication", "true"),
        ("replication", "TRUE"),
        ("session_replication_role", "replica"),
        ("lc_messages\"; delete from orders; --", "C"),
        ("application_name", "'; delete from orders; --"),
    ] {
        named(&[(name, value)], &format!("{name}={value}"));
    }
    // A search path is everybody's; then names are looked for everywhere.
    let policies = format!(
        "{}\nforbid (principal, action, resource in Schema::\"orders-db/shop/other\");",
        stage::POLICIES
    );
    reload(&stage, &policies);
    named(&[("search_path", "other")], "search_path");
    named(
        &[("options", "-c search_path=other")],
        "search_path in options",
    );
    // The role's own settings do not outlive what lockgate sets.
    admin("alter role report_ro set standard_conforming_strings = off");
    admin("alter role report_ro set search_path = other");
    for parameters in [&[][..], &[("options", "-c work_mem=1MB")]] {
        named(parameters, "settings of the role");
    }
    let (mut wire, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
    for reset in ["reset all", "discard all", "reset search_path"] {
        let answer = wire
            .ask(&[query(reset), query(trick), query(look)].concat())
            .unwrap();
        let more = [wire.until_ready().unwrap(), wire.until_ready().unwrap()];
        assert!(answer.errors().is_empty(), "{reset}: {answer:?}");
        assert_eq!(stage.postgres.count("orders").unwrap(), 10, "{reset}");
        assert!(secret_in(&more[1].bytes()).is_none(), "{reset}: {more:?}");
        println!(
            "held        startup  {reset}  -- {}",
            more[1].errors().join("; ")
        );
    }
    drop(wire);
    // All of it can do harm: the server by itself would have obeyed.
    let socket = stage.postgres.socket().join(".s.PGSQL.5432");
    let mut wire = Wire::direct(&socket).unwrap();
    wire.start(&[("user", "report_ro"), ("database", "shop")])
        .unwrap();
    let seen = wire.ask(&query(look)).unwrap();
    assert!(secret_in(&seen.bytes()).is_some(), "{seen:?}");
    wire.ask(&query(trick)).unwrap();
    assert_eq!(stage.postgres.count("orders").unwrap(), 0);
}

fn reload(stage: &Stage, policies: &str) {
    std::fs::write(stage.agent.path("policies/test.cedar"), policies).unwrap();
    let output = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(output.ok(), "{output:?}");
}

const EMPTY: &str =
    "@id(\"all-may-talk\")\npermit (principal, action in Action::\"use\", resource);";

/// Whatever was opened while it was permitted is not read on afterwards.
#[test]
fn a_cursor_does_not_outlive_its_permission() {
    use lockgate_tests::{bind, execute, parse, sync};
    let stage = Stage::new();
    let mut sessions = Vec::new();
    for opened in [
        vec![query(
            "declare c cursor with hold for select item from orders",
        )],
        vec![query("begin; declare c cursor for select item from orders")],
        vec![
            query("begin"),
            [parse("", "select item from orders"), bind("c", ""), sync()].concat(),
        ],
    ] {
        let (mut wire, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
        for messages in opened {
            assert!(wire.ask(&messages).unwrap().errors().is_empty());
        }
        let first = wire.ask(&query("fetch 1 from c")).unwrap();
        assert_eq!(first.of(b'D').len(), 1, "permitted: {first:?}");
        sessions.push(wire);
    }
    reload(&stage, EMPTY);
    for (number, wire) in sessions.iter_mut().enumerate() {
        for fetch in [
            query("fetch 1 from c"),
            query("fetch all from c"),
            [
                parse("", "fetch 1 from c"),
                bind("", ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
            [execute("c", 1), sync()].concat(),
        ] {
            let answer = wire.ask(&fetch).unwrap();
            assert!(answer.of(b'D').is_empty(), "{number}: {answer:?}");
            assert!(!answer.errors().is_empty(), "{number}");
        }
    }
    println!("held        session  FETCH, Execute after the policy has changed");
    reload(&stage, stage::POLICIES);
    let (mut wire, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
    wire.ask(&query(
        "declare c cursor with hold for select item from orders",
    ))
    .unwrap();
    reload(
        &stage,
        &format!("{}\n// The same, once more.", stage::POLICIES),
    );
    let answer = wire.ask(&query("fetch all from c")).unwrap();
    assert_eq!(answer.of(b'D').len(), 10, "still permitted: {answer:?}");
}

/// `$user` in the search path is a schema that may come later; an event trigger
/// may, too, and is run by whoever defines something.
#[test]
fn what_comes_into_the_database_later_counts() {
    let stage = Stage::new();
    let policies = format!(
        "{}
         forbid (principal, action, resource in Schema::\"orders-db/shop/report_ro\");
         permit (principal == Workload::\"report\", action in Action::\"schema\", resource);",
        stage::POLICIES
    );
    reload(&stage, &policies);
    let (mut wire, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
    let (look, define) = (
        query("select item from orders"),
        query("create table public.mine()"),
    );
    assert_eq!(wire.ask(&look).unwrap().of(b'D').len(), 10);
    stage
        .postgres
        .admin(
            "shop",
            "alter role report_ro superuser;
             create schema report_ro authorization report_ro;
             create table report_ro.orders as select 'Ty8-Bn5-Lc1' as item;
             create function on_ddl() returns event_trigger language plpgsql as 'begin delete from public.orders; end';
             create event trigger on_ddl on ddl_command_end execute function on_ddl()",
        )
        .unwrap();
    let (mut other, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
    // A catalogue is at most five seconds old.
    std::thread::sleep(Duration::from_secs(6));
    for wire in [&mut wire, &mut other] {
        let answer = wire.ask(&look).unwrap();
        assert!(secret_in(&answer.bytes()).is_none(), "{answer:?}");
        assert!(answer.errors()[0].contains("report_ro"), "{answer:?}");
        let answer = wire.ask(&define).unwrap();
        assert!(answer.errors()[0].contains("opaque"), "{answer:?}");
    }
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
    println!("held        session  a schema named like the user, made after the login");
    println!("held        session  an event trigger, made after the login");
    let mut direct = Wire::direct(&stage.postgres.socket().join(".s.PGSQL.5432")).unwrap();
    direct
        .start(&[("user", "report_ro"), ("database", "shop")])
        .unwrap();
    let seen = direct.ask(&look).unwrap();
    assert!(secret_in(&seen.bytes()).is_some(), "{seen:?}");
    direct.ask(&define).unwrap();
    assert_eq!(stage.postgres.count("public.orders").unwrap(), 0);
}

/// A server in LATIN1 keeps 63 characters of a name, of which UTF8 would need
/// more bytes: what is one name here are two there.
#[test]
fn names_are_not_read_otherwise_than_a_server_in_latin1_does() {
    let stage = Stage::new();
    let (short, long) = ("é".repeat(31), "é".repeat(40));
    stage
        .postgres
        .admin(
            "postgres",
            "create database latin encoding 'LATIN1' locale 'C' template template0",
        )
        .unwrap();
    let make = format!(
        "create table \"{short}\"(secret text); create table \"{long}\"(secret text);
         insert into \"{long}\" values ('Ty8-Bn5-Lc1'); grant select on \"{short}\", \"{long}\" to report_ro;
         create table plain(word text); insert into plain values ('é'); grant select on plain to report_ro"
    );
    let socket = stage.postgres.socket().join(".s.PGSQL.5432");
    let mut direct = Wire::direct(&socket).unwrap();
    let utf8 = [
        ("user", "postgres"),
        ("database", "latin"),
        ("client_encoding", "UTF8"),
    ];
    direct.start(&utf8).unwrap();
    let made = direct.ask(&query(&make)).unwrap();
    assert!(made.errors().is_empty(), "{made:?}");
    let policies = format!(
        "{}\nforbid (principal, action, resource in Table::\"orders-db/latin/public/{long}\");",
        stage::POLICIES
    );
    reload(&stage, &policies);
    let (mut wire, answer) = session(
        &stage,
        &[
            ("user", "x"),
            ("database", "latin"),
            ("client_encoding", "UTF8"),
        ],
    );
    assert!(!answer.closed, "{answer:?}");
    let escaped = format!("U&\"{}\"", "\\00e9".repeat(40));
    for name in [format!("\"{long}\""), long.clone(), escaped] {
        let sql = format!("select * from {name}");
        let answer = wire.ask(&query(&sql)).unwrap();
        assert!(secret_in(&answer.bytes()).is_none(), "{answer:?}");
        println!(
            "held        session  {sql} in LATIN1  -- {}",
            answer.errors().join("; ")
        );
    }
    let answer = wire
        .ask(&query("select word from plain where word = 'é'"))
        .unwrap();
    assert_eq!(
        answer.of(b'D').len(),
        1,
        "values may be what they like: {answer:?}"
    );
    let seen = direct
        .ask(&query(&format!("select * from \"{long}\"")))
        .unwrap();
    assert!(secret_in(&seen.bytes()).is_some(), "{seen:?}");
}

#[test]
fn a_text_that_is_too_large_is_refused_unread_and_the_session_goes_on() {
    let stage = Stage::new();
    let (mut wire, _) = session(&stage, &[("user", "x"), ("database", "shop")]);
    let sql = format!("{}delete from orders", " ".repeat(70_000));
    let answer = wire.ask(&query(&sql)).unwrap();
    assert!(answer.errors()[0].contains("lockgate"), "{answer:?}");
    assert!(wire.ask(&query("select 1")).unwrap().errors().is_empty());
    let sql = format!("{}delete from orders", " ".repeat(9_000_000));
    let started = Instant::now();
    wire.send(&query(&sql));
    let answer = wire.until_ready().unwrap();
    assert!(answer.errors()[0].contains("lockgate"), "{answer:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
}

#[test]
fn what_everybody_needs_is_not_refused() {
    let stage = Stage::with(
        "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]",
        &PostgresConfig::default(),
    );
    let commands = [
        "",
        "select 1",
        "select version()",
        "select current_user, current_database(), now()",
        "show server_version",
        "set application_name = 'x'",
        "set statement_timeout = '5s'",
        "begin; select count(*) from orders; commit",
        "select * from orders where item like 'item%' and qty between 1 and 3 order by id limit 2",
        "select upper(item), coalesce(qty, 0), now() from orders",
        "select id, name from customers",
        "select count(*) from customer_names",
        "explain select * from orders",
        "select table_name from information_schema.tables where table_schema = 'public' limit 1",
        "begin; declare c cursor for select * from orders; fetch all from c; commit",
        "discard all",
    ];
    for command in commands {
        let output = stage.psql(&stage.report, &[command]);
        assert!(output.ok(), "{command}: {output:?}");
    }
    // What psql itself asks the server.
    let mut psql = stage.report.command("psql");
    psql.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &stage.dsn("")]);
    for command in ["\\d orders", "\\dt", "\\df", "\\l"] {
        psql.args(["-c", command]);
    }
    let output = lockgate_tests::run(&mut psql).unwrap();
    assert!(
        output.ok() && output.stdout.contains("orders_pkey"),
        "{output:?}"
    );
}

/// What a session began with comes back by RESET and ROLLBACK, and the server
/// says so only after it has read the next text.
#[test]
fn an_encoding_that_comes_back_unheard_hides_no_statement() {
    let stage = Stage::new();
    let before = stage.postgres.count("orders").unwrap();
    // In SJIS 83 5C is one letter, so that the quote behind it ends the string.
    let hidden = b"select E'\xe3\x82\x83\\' ; delete from orders; --'\0";
    let trick = lockgate_tests::message(b'Q', hidden);
    let sjis = [
        ("user", "postgres"),
        ("database", "shop"),
        ("client_encoding", "SJIS"),
    ];
    for (begin, back) in [
        ("select 1", "reset all"),
        ("begin", "rollback"),
        ("select 1", "discard all"),
    ] {
        let (mut wire, answer) = session(&stage, &sjis);
        assert!(!answer.closed, "{answer:?}");
        for sql in [begin, "set client_encoding to 'UTF8'"] {
            wire.ask(&query(sql)).unwrap();
        }
        wire.send(&[query(back), trick.clone()].concat());
        let first = wire.until_ready().unwrap();
        let second = wire.until_ready().unwrap();
        assert_eq!(stage.postgres.count("orders").unwrap(), before, "{back}");
        println!(
            "held        session  {back}, then a text in SJIS  -- {}",
            [first.errors(), second.errors()].concat().join("; ")
        );
    }
    let mut direct = Wire::direct(&stage.postgres.socket().join(".s.PGSQL.5432")).unwrap();
    direct.start(&sjis).unwrap();
    direct.ask(&trick).unwrap();
    assert_eq!(stage.postgres.count("orders").unwrap(), 0, "the control");
}
