//! What a statement does beyond its words: rows that foreign keys change, code
//! that an extension brings along. The server is asked what happened.

use std::time::{Duration, Instant};

use lockgate_tests::{Agent, Postgres, PostgresConfig};

use crate::stage::{self, Stage};

const OBJECTS: &str = r#"
alter role app_rw superuser;
create extension citext; create extension "uuid-ossp"; create extension pg_trgm;
create table makers (id int primary key);
create table parts (id int primary key, maker int references makers on delete cascade);
insert into makers values (1); insert into parts values (1, 1);
create table notes (id uuid default uuid_generate_v4(), body citext check (similarity(body, 'x') < 1));
create schema evil;
create function evil.look(citext) returns citext language plpgsql as
    'begin delete from public.orders; return $1; end';
create function evil.first(citext, citext) returns citext language sql as 'select evil.look($1)';
create function evil.equal(int, int) returns bool language plpgsql as
    'begin delete from public.orders; return true; end';
create aggregate evil.last_of(citext) (sfunc = evil.first, stype = citext);
alter extension citext add function evil.look(citext);
alter extension citext add aggregate evil.last_of(citext);
"#;

/// `app` may read all, write to `makers` and `notes`, and call nothing.
const POLICIES: &str = r#"
permit (principal == Workload::"app", action in [Action::"use", Action::"read"], resource in Target::"orders-db");
permit (principal == Workload::"app", action in Action::"write", resource in Table::"orders-db/shop/public/makers");
permit (principal == Workload::"app", action in Action::"write", resource in Table::"orders-db/shop/public/notes");
"#;

fn stage() -> Stage {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    postgres.admin("shop", OBJECTS).unwrap();
    let mut config = stage::config(&postgres, "");
    config.policies = POLICIES.into();
    let agent = Agent::start(&config).unwrap();
    Stage::over(agent, postgres)
}

#[test]
fn rows_that_a_foreign_key_deletes_are_asked_for_too() {
    let stage = stage();
    let output = stage.psql(&stage.app, &["delete from makers"]);
    assert!(output.stderr.contains("lockgate"), "{output:?}");
    assert!(
        output.stderr.contains("parts"),
        "it says which rows: {output:?}"
    );
    assert_eq!(stage.postgres.count("makers").unwrap(), 1);
    assert_eq!(stage.postgres.count("parts").unwrap(), 1);
    // Without such rows it is a plain delete.
    let output = stage.psql(&stage.app, &["delete from notes"]);
    assert!(output.ok(), "{output:?}");
}

#[test]
fn a_listed_extension_needs_no_right_and_what_hides_in_it_does() {
    let stage = stage();
    for harmless in [
        "select regexp_match(body, 'a', 'c') from notes",
        "insert into notes (body) values ('a')",
        "select replace(body, 'a', 'b'), similarity(body, 'a'), body = 'A' from notes",
        "select uuid_generate_v4(), 'a'::citext, 'a' % 'b', max(body) from notes",
    ] {
        let output = stage.psql(&stage.app, &[harmless]);
        assert!(output.ok(), "{harmless}: {output:?}");
    }
    assert_eq!(stage.postgres.count("notes").unwrap(), 1);
    // citext's functions in SQL look `=` up when they run. The catalogue is read
    // every five seconds.
    let operator = "create operator evil.= (function = evil.equal, leftarg = int, rightarg = int)";
    stage.postgres.admin("shop", operator).unwrap();
    let begun = Instant::now();
    while stage.psql(&stage.app, &["select 1 = 1"]).ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the operator stays unknown"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    for attack in [
        "set search_path = evil, pg_catalog, public; select public.regexp_match('abc'::public.citext, 'b', 'c')",
        "select evil.look('a')",
        "set search_path = evil, public; select look('a')",
        "select evil.last_of(body) from notes",
        "select x.look from (select 'a'::citext) x",
        "insert into notes (body) values (evil.look('a'))",
    ] {
        let output = stage.psql(&stage.app, &[attack]);
        assert!(output.stderr.contains("lockgate"), "{attack}: {output:?}");
        assert_eq!(stage.postgres.count("orders").unwrap(), 10, "{attack}");
    }
}
