//! Commands that try to do what their workload may not. The server is asked
//! whether harm was done; its roles are superusers, so that nothing but
//! lockgate stands between.

use std::path::Path;

use lockgate_tests::{Agent, Output, Postgres, PostgresConfig};

use crate::stage::{self, Stage};

/// What these must never print.
const SECRETS: &[&str] = &["123-45-6789", "987-65-4321", "SCRAM-SHA-256$", "root:x:"];

/// Things of the attacker's that lie about.
const TRAPS: &str = r#"
alter role report_ro superuser; alter role app_rw superuser;
create sequence numbers;
create table logbook(x int);
create rule instead as on insert to logbook do instead delete from orders;
create table watched(x int);
create function on_watch() returns trigger language plpgsql as 'begin delete from orders; return new; end';
create trigger watch before insert on watched for each row execute function on_watch();
create view wiping as select wipe();
create domain guarded as int check (wipe() > 0);
create function joined(varchar, varchar) returns text language sql as 'select wipe()::text';
create operator || (leftarg = varchar, rightarg = varchar, function = joined);
create function lower(varchar) returns text language sql as 'select wipe()::text';
create view numbers_of as select id, ssn as number from customers;
create procedure wiping_procedure() language plpgsql as 'begin delete from orders; end';
"#;

/// May read only.
const BY_A_READER: &[&str] = &[
    "delete from orders",
    "/* select */ delete from orders",
    "/* /* nested */ select 1; */ delete from orders",
    "select 1; -- \rdelete from orders",
    "select 1 end; drop table orders",
    "select 1; delete from orders",
    "; delete from orders",
    "commit; delete from orders",
    "select 5 %/* ' */ 2; drop table orders; --'",
    "select E'\\''; delete from orders; --'",
    "select $a$ $b$ $a$; delete from orders; -- $b$",
    "set standard_conforming_strings = off; select '\\'; delete from orders; --'",
    "select set_config('standard_conforming_strings', 'off', false)",
    "set client_encoding = 'SJIS'",
    "delete from U&\"\\006frders\"",
    "delete from \"orders\"",
    "delete from only public.orders",
    "with gone as (delete from orders returning id) select * from gone",
    "explain analyze delete from orders",
    "explain (analyze, buffers) with gone as (delete from orders returning 1) select * from gone",
    "prepare p as delete from orders",
    "execute p",
    "declare c cursor with hold for select wipe()",
    "do $$ begin delete from orders; end $$",
    "call wiping_procedure()",
    "create table copied as select * from orders",
    "create temp table copied as select * from orders",
    "select * into copied from orders",
    "create materialized view copied as select * from orders",
    "merge into orders o using (select 1 as id) s on o.id = s.id when matched then delete",
    "insert into orders values (99, 'x', 1) on conflict do nothing",
    "update orders set qty = 0",
    "truncate orders",
    "drop table orders",
    "alter table orders add column x int",
    "drop owned by owner",
    "select id from orders for update",
    "lock table orders in access exclusive mode",
    "copy orders from stdin",
    "copy orders to program 'touch MARKER'",
    "copy orders to '/tmp/lockgate-never'",
    "copy (select wipe()) to stdout",
    "copy orders from program 'touch MARKER; echo'",
    "select wipe()",
    "select (select max(wipe()) from orders)",
    "select id from orders where wipe() = 1",
    "select id from orders order by wipe()",
    "select id from orders limit wipe()",
    "select count(*) filter (where wipe() = 1) from orders",
    "values (wipe())",
    "select * from wiping",
    "select * from wipe() w",
    "select * from orders o, lateral (select wipe()) l",
    "select 1::guarded",
    "select cast(id as guarded) from orders",
    "select 'a'::varchar || 'b'::varchar",
    "select lower(item::varchar) from orders",
    "select query_to_xml('delete from orders returning 1', true, true, '')",
    "select * from ts_stat('delete from orders returning null::tsvector')",
    "select database_to_xml(true, true, '')",
    "select pg_read_file('/etc/passwd')",
    "select x.pg_read_file from lower('/etc/passwd') x",
    "select pg_ls_dir('/')",
    "select lo_import('/etc/passwd')",
    "select lo_from_bytea(0, 'x')",
    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()",
    "select pg_reload_conf()",
    "select pg_advisory_lock(1)",
    "select nextval('numbers')",
    "select setval('numbers', 1000)",
    "select set_config('role', 'postgres', false)",
    "set role postgres",
    "set session authorization postgres",
    "set session_replication_role = replica",
    "alter role report_ro superuser",
    "create role intruder superuser login",
    "grant owner to report_ro",
    "alter system set log_statement = 'none'",
    "alter database shop set search_path = x",
    "create function mine() returns int language sql as 'select 1'",
    "create extension if not exists dblink",
    "create rule r as on select to logbook do instead select 1",
    "create policy p on orders",
    "create schema mine",
    "create view mine as select 1",
    "comment on table orders is 'x'",
    "vacuum orders",
    "reindex table orders",
    "select * from pg_authid",
    "select passwd from pg_shadow",
    "select query from pg_stat_activity",
    "select most_common_vals from pg_stats where tablename = 'customers'",
    "select * from customers",
    "select c from customers c",
    "select c::text from customers c",
    "table customers",
    "select ssn as x from customers",
    "select upper(ssn), md5(ssn), ssn || '' from customers",
    "select (select ssn from customers limit 1)",
    "with c as (select * from customers) select * from c",
    "select id, name from customers union all select id, ssn from customers",
    "select row_to_json(c) from customers c",
    "select array_agg(ssn) from customers",
    "select string_agg(c::text, ',') from customers c",
    "select id from customers where ssn like '1%'",
    "select id from customers order by ssn",
    "select 1 from customers a join customers b using (ssn)",
    "select 1 from customers a natural join customers b",
    "select ssn::int from customers",
    "select number from numbers_of",
    "copy customers to stdout",
    "copy (select ssn from customers) to stdout",
    "declare c cursor for select ssn from customers",
    "select x.ssn from customers as x",
    "select y.b from customers as y(a, n, b)",
];

/// May read and write.
const BY_A_WRITER: &[&str] = &[
    "insert into logbook values (1)",
    "insert into watched values (1)",
    "drop table orders",
    "truncate orders",
    "insert into customers values (3, 'Eve', 'x') returning *",
    "update customers set name = ssn",
    "insert into orders select id + 500, ssn, 1 from customers",
    "update orders set item = (select string_agg(ssn, ',') from customers)",
    "insert into orders values (1, 'x', 1) on conflict (id) do update set item = (select max(ssn) from customers)",
    "delete from customers returning ssn",
    "delete from customers where ssn = '123-45-6789'",
    "create index on orders ((wipe()))",
    "alter table orders alter qty set default wipe()",
];

fn stage() -> Stage {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    postgres.admin("shop", TRAPS).unwrap();
    postgres.admin("shop", "analyze").unwrap();
    let tags = "tags = [{ columns = \"public.customers.ssn\", tag = \"pii\" }]";
    let agent = Agent::start(&stage::config(&postgres, tags)).unwrap();
    Stage::over(agent, postgres)
}

/// What an attack could have changed, in one line.
fn state(postgres: &Postgres) -> String {
    postgres
        .admin(
            "shop",
            "select (select string_agg(o::text, ',' order by id) from orders o),
                (select string_agg(c::text, ',' order by id) from customers c),
                (select count(*) from pg_class), (select count(*) from pg_proc),
                (select string_agg(a::text, ',' order by oid) from pg_authid a),
                (select count(*) from pg_largeobject_metadata), (select count(*) from pg_rules),
                (select count(*) from pg_description), (select last_value from numbers),
                (select count(*) from pg_db_role_setting), (select count(*) from pg_extension),
                (select count(*) from pg_namespace where nspname !~ 'temp'), (select count(*) from pg_policy)",
        )
        .unwrap()
}

fn attack(stage: &Stage, who: &str, attacks: &[&str]) {
    let workload = if who == "report" {
        &stage.report
    } else {
        &stage.app
    };
    let marker = stage.agent.path("marker");
    let before = state(&stage.postgres);
    let mut got_through = Vec::new();
    for attack in attacks {
        let sql = attack.replace("MARKER", &marker.display().to_string());
        for protocol in ["simple", "extended"] {
            let output = if protocol == "simple" {
                stage.psql(workload, &[&sql])
            } else {
                let program = format!(
                    "with psycopg.connect(dsn, autocommit=True) as c: print(c.execute({sql:?}, prepare=True).fetchall())"
                );
                stage.python(workload, &program)
            };
            let why = judge(stage, &output, &before, &marker);
            println!(
                "{:<8} {protocol:<8} {attack}",
                if why.is_some() { "HARMED" } else { "stopped" }
            );
            if let Some(why) = why {
                got_through.push(format!("{protocol}: {attack}: {why}: {output:?}"));
            }
        }
    }
    assert!(got_through.is_empty(), "{}", got_through.join("\n"));
}

/// Why an attack counts as one that got through.
fn judge(stage: &Stage, output: &Output, before: &str, marker: &Path) -> Option<&'static str> {
    if state(&stage.postgres) != before {
        return Some("the server has changed");
    }
    if marker.exists() {
        return Some("a program ran");
    }
    if SECRETS.iter().any(|secret| output.all().contains(secret)) {
        return Some("a secret was shown");
    }
    // The server's own refusal would mean that it was asked.
    (!output.stderr.contains("lockgate")).then_some("it was not lockgate that refused")
}

#[test]
fn a_reader_changes_nothing_and_sees_no_secret() {
    attack(&stage(), "report", BY_A_READER);
}

#[test]
fn a_writer_writes_where_it_may_and_launders_nothing() {
    attack(&stage(), "app", BY_A_WRITER);
}

#[test]
fn settings_of_the_startup_do_not_change_how_text_is_read() {
    let stage = stage();
    let before = state(&stage.postgres);
    let sql = "select '\\'; delete from orders; --'";
    for options in [
        "options='-c standard_conforming_strings=off'",
        "options='--standard_conforming_strings=off'",
        "client_encoding=SJIS",
        "options='-c role=owner'",
        "options='-c search_path=pg_temp'",
        "options='-c session_replication_role=replica'",
        "replication=database",
    ] {
        let output = stage
            .report
            .psql(&stage.dsn(options), &[sql, "delete from orders"])
            .unwrap();
        println!("{options}: {}", output.all());
        assert_eq!(state(&stage.postgres), before, "{options}: {output:?}");
        let role = stage
            .report
            .psql(&stage.dsn(options), &["select current_user"])
            .unwrap();
        assert!(!role.stdout.contains("owner"), "{options}: {role:?}");
    }
}

#[test]
fn a_text_that_is_too_large_is_refused_unread() {
    let stage = stage();
    let program = "
with psycopg.connect(dsn, autocommit=True) as c:
    for size in (70_000, 9_000_000):
        try: c.execute(' ' * size + 'delete from orders'); print('ran')
        except psycopg.Error as e: print(e.sqlstate, str(e)[:60])
    print(c.execute('select count(*) from orders').fetchone()[0])";
    let output = stage.python(&stage.report, program);
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
    assert!(
        output.stdout.lines().all(|line| line != "ran"),
        "{output:?}"
    );
    assert!(
        output.stdout.ends_with("10\n"),
        "the session goes on: {output:?}"
    );
}

#[test]
fn what_everybody_needs_is_not_refused() {
    let stage = stage();
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
        "discard all",
    ];
    for command in commands {
        let output = stage.psql(&stage.report, &[command]);
        assert!(output.ok(), "{command}: {output:?}");
    }
    // What psql itself asks the server.
    let mut psql = stage.report.command("psql");
    psql.args([
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        &stage.dsn(""),
        "-c",
        "\\d orders",
        "-c",
        "\\dt",
        "-c",
        "\\df",
        "-c",
        "\\l",
    ]);
    let output = lockgate_tests::run(&mut psql).unwrap();
    assert!(
        output.ok() && output.stdout.contains("orders_pkey"),
        "{output:?}"
    );
}
