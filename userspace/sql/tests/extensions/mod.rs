//! The extensions that are listed, asked of a server that has them.

use lockgate_sql::{Catalogue, extension_lists};

use crate::meaning;
use crate::server::Server;

/// Extensions of Debian's postgresql-contrib that are listed.
const EXTENSIONS: &[&str] = &[
    "citext",
    "hstore",
    "ltree",
    "pg_stat_statements",
    "pg_trgm",
    "pgcrypto",
    "unaccent",
    "uuid-ossp",
];

/// A newer version with a function more fails here, until that is listed.
pub fn every_function_of_a_listed_extension_was_looked_at(server: &Server) {
    server.rows("postgres", "create database extended");
    for name in EXTENSIONS {
        server.rows("extended", &format!("create extension \"{name}\""));
    }
    let functions = server.rows(
        "extended",
        &format!("set search_path = pg_catalog; {}", Catalogue::QUERIES[4]),
    );
    let (mut looked_at, mut not) = (0, Vec::new());
    for row in functions {
        let [_, _, name, extension, version, code, kind] = &row[..] else {
            panic!("{row:?}")
        };
        let text = |column: &Option<String>| column.clone().unwrap_or_default();
        if text(extension) == "plpgsql" || text(kind) == "a" {
            continue;
        }
        match extension_lists(&text(extension), &text(version), &text(code)) {
            true => looked_at += 1,
            false => not.push(format!("{extension:?} {version:?} {name:?}: {code:?}")),
        }
    }
    assert!(not.is_empty(), "not listed:\n{}", not.join("\n"));
    assert!(looked_at > 250, "only {looked_at}");
}

pub fn members_are_known_by_what_they_run(server: &Server) {
    server.rows(
        "extended",
        "create table plain (id uuid default uuid_generate_v4(), name citext, tags hstore, path ltree);
         create table bodies (body text check (similarity(body, 'x') < 1), hash bytea
             generated always as (digest(body, 'sha256')) stored);
         create index on bodies using gin (body gin_trgm_ops);
         create view names as select lower(name) from plain where name = 'x'",
    );
    let catalogue = server.catalogue("extended");
    for (text, expected) in [
        (
            "SELECT replace('a', 'b', 'c'), split_part('a', 'b', 1)",
            "session",
        ),
        (
            "SELECT 'a'::citext = 'A', 'a' LIKE 'b', max('a'::citext)",
            "session",
        ),
        (
            "SELECT 'a=>1'::hstore -> 'a', 'a.b'::ltree @> 'a'",
            "session",
        ),
        (
            "SELECT gen_random_bytes(8), crypt('a', gen_salt('bf'))",
            "session",
        ),
        (
            "SELECT uuid_generate_v4(), similarity('a', 'b'), 'a' % 'b', unaccent('é')",
            "session",
        ),
        (
            "INSERT INTO plain (name) VALUES ('x')",
            "insert public.plain",
        ),
        (
            "INSERT INTO bodies (body) VALUES ('x')",
            "insert public.bodies",
        ),
        ("SELECT * FROM names", "select public.names"),
        ("SELECT NULL::plain", "session"),
        ("SELECT pg_stat_statements_reset()", "system"),
        (
            "SELECT * FROM pg_stat_statements(true)",
            "inspect database shop",
        ),
        (
            "SELECT populate_record(NULL::plain, 'a=>1')",
            "call public.populate_record()",
        ),
    ] {
        assert_eq!(meaning(&catalogue, text), expected, "{text}");
    }

    // What the owner of an extension, who is no superuser, can do to it.
    server.rows(
        "extended",
        "create role owner login; grant create on database extended to owner;
         grant create on schema public to owner; drop extension citext cascade;
         drop extension pg_trgm cascade;
         create schema evil authorization owner",
    );
    server.rows_as(
        "owner",
        "extended",
        "create extension citext; create extension pg_trgm;
         create function evil.look(text) returns text language sql as $$select $1$$;
         alter extension citext add function evil.look(text);
         create aggregate evil.seed(float8) (sfunc = float8pl, stype = float8);
         create aggregate evil.stop(int) (sfunc = pg_catalog.lo_truncate, stype = int);
         alter extension citext add aggregate evil.seed(float8);
         alter extension citext add aggregate evil.stop(int);
         create operator evil.#### (function = evil.look, rightarg = text);
         alter extension citext add operator evil.#### (none, text)",
    );
    let catalogue = server.catalogue("extended");
    for (text, expected) in [
        (
            "SELECT replace('a', 'b', 'c'), similarity('a', 'b')",
            "session",
        ),
        // Members, but of what code?
        ("SELECT look('a')", "call evil.look()"),
        ("SELECT #### 'a'", "call evil.####()"),
        ("SELECT stop(1)", "call evil.stop()"),
        // Of nothing but harmless code of PostgreSQL's own.
        ("SELECT seed(1)", "session"),
    ] {
        assert_eq!(meaning(&catalogue, text), expected, "{text}");
    }
    for refused in [
        "create or replace function public.similarity(text, text) returns float4 language sql as 'select 1.0::float4'",
        "create or replace function public.replace(citext, citext, citext) returns text language sql as 'select evil.look($1)'",
        "create function evil.similarity(text, text) returns float4 language c as '$libdir/pg_trgm', 'similarity'",
    ] {
        assert!(
            server.try_rows_as("owner", "extended", refused).is_none(),
            "{refused}"
        );
    }
    let means = |text: &str| meaning(&server.catalogue("extended"), text);
    // A function of the same name, under the same roof or not.
    server.rows_as(
        "owner",
        "extended",
        "create function evil.similarity(varchar, varchar) returns float4 language sql as 'select 1.0::float4'",
    );
    assert_eq!(
        means("SELECT similarity('a', 'b')"),
        "call evil.similarity()"
    );
    // Functions of citext in SQL look `=` up when they run.
    server.rows_as(
        "owner",
        "extended",
        "create function evil.equal(int, int) returns bool language sql as 'select true';
         create operator evil.= (function = evil.equal, leftarg = int, rightarg = int)",
    );
    let called = means("SELECT regexp_match('a', 'b', 'c')");
    assert!(called.contains("call public.regexp_match()"), "{called}");
    server.rows_as("owner", "extended", "drop operator evil.= (int, int)");
    assert_eq!(means("SELECT regexp_match('a', 'b', 'c')"), "session");
    // A superuser who writes another body is believed to mean it, not known.
    let before = server.fingerprint("extended");
    server.rows(
        "extended",
        "create or replace function public.translate(citext, citext, text) returns text
             language sql immutable strict as 'select evil.look($1)'",
    );
    assert_ne!(before, server.fingerprint("extended"));
    assert_eq!(
        means("SELECT translate('a', 'b', 'c')"),
        "call public.translate()"
    );
    // One that is no member any more is no different from a user's.
    let before = server.fingerprint("extended");
    server.rows(
        "extended",
        "alter extension citext drop function public.strpos(citext, citext)",
    );
    assert_ne!(before, server.fingerprint("extended"));
    assert_eq!(means("SELECT strpos('a', 'b')"), "call public.strpos()");
}
