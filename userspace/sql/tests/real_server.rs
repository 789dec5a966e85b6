//! What this crate believes of PostgreSQL, asked of PostgreSQL.

mod judge;
mod server;
mod shop;

use lockgate_sql::{
    Catalogue, RelationKind, SearchPath, Tags, function_class, is_operator, is_type, resolve,
};
use server::Server;

/// One server for all, since starting one takes longer than all else.
#[test]
fn a_real_server_agrees() {
    let server = Server::start();
    every_built_in_name_is_known(&server);
    the_catalogue_says_what_runs_code(&server);
    the_fingerprint_follows_every_change(&server);
    names_resolve_as_the_server_resolves_them(&server);
    clients_need_no_right_but_to_connect(&server);
    judge::the_server_confirms_what_is_shown(&server);
}

fn every_built_in_name_is_known(server: &Server) {
    let unknown = |query: &str, known: fn(&str) -> bool| {
        let rows = server.rows("postgres", query);
        assert!(rows.len() > 50, "{query}");
        let names = rows
            .into_iter()
            .map(|mut row| row.remove(0).expect("a name"));
        assert_eq!(
            names.filter(|name| !known(name)).collect::<Vec<_>>(),
            [""; 0],
            "{query}"
        );
    };
    unknown("select distinct proname from pg_proc", |name| {
        function_class(name).is_some()
    });
    unknown("select distinct oprname from pg_operator", is_operator);
    unknown("select distinct typname from pg_type", is_type);
}

const OBJECTS: &str = r#"
create schema audit;
create table plain (id int primary key, label text default lower('X') check (length(label) > 0));
create table customers (id int primary key, name text, ssn text);
create function code() returns int language sql as 'select 1';
create function code(int) returns bool language sql as 'select true';
create function on_change() returns trigger language plpgsql as 'begin return new; end';
create operator === (function = int4eq, leftarg = int4, rightarg = int4);
create view plain_view as select id from plain;
create view column_view as select ssn as x from customers;
create view row_view as select to_json(c) from customers c;
create view count_view as select count(*) from customers;
create view code_view as select code() from plain;
create view view_over_code as select * from code_view;
create view operator_view as select id from plain where id === 1;
create materialized view stored as select name from customers;
create table triggered (id int); create trigger t before insert on triggered for each row execute function on_change();
create table ruled (id int); create rule r as on insert to ruled do also notify x;
create table defaulted (id int default code());
create table checked (id int check (code(id)));
create table indexed (id int);
create function fixed(int) returns int immutable language sql as 'select $1';
create index on indexed (fixed(id));
create table secured (id int); create policy p on secured using (code(id)); alter table secured enable row level security;
create domain coded as int check (code(value));
create domain plain_domain as int check (value > 0);
create type mood as enum ('a', 'b');
create type pair as (a int, b coded);
create type plain_pair as (a int, b mood);
create table domained (id coded);
create table parent (id int, ssn text);
create table child () inherits (parent);
create trigger t before insert on child for each row execute function on_change();
create sequence counter;
create function to_mood(int) returns mood language sql as $$select 'a'::mood$$;
create type other_mood as enum ('a');
create function to_other(int) returns other_mood language sql as $$select 'a'::other_mood$$;
create cast (int as other_mood) with function to_other(int);
create collation german from "C";
create temp table hidden (id int);
"#;

fn the_catalogue_says_what_runs_code(server: &Server) {
    server.rows("postgres", "create database shop");
    server.rows("shop", OBJECTS);
    let catalogue = server.catalogue("shop");
    let of = |name: &str| {
        catalogue
            .relation("public", name)
            .unwrap_or_else(|| panic!("{name}"))
    };
    for (name, read, write) in [
        ("plain", false, false),
        ("plain_view", false, false),
        ("code_view", true, false),
        ("view_over_code", false, false),
        ("operator_view", true, false),
        ("triggered", false, true),
        ("ruled", false, true),
        ("defaulted", false, true),
        ("checked", false, true),
        ("indexed", false, true),
        ("secured", true, true),
        ("domained", false, true),
        ("child", false, true),
        ("parent", false, true),
    ] {
        assert_eq!(
            (of(name).code_on_read, of(name).code_on_write),
            (read, write),
            "{name}"
        );
    }
    assert_eq!(of("stored").kind, RelationKind::MaterializedView);
    assert_eq!(of("counter").kind, RelationKind::Sequence);
    assert!(catalogue.relation("pg_catalog", "pg_class").is_some());
    assert_eq!(catalogue.named("hidden").count(), 0);
    assert!(catalogue.has_schema("audit"));
    let columns: Vec<&str> = of("customers")
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(columns, ["id", "name", "ssn"]);

    let bytes = serde_json::to_vec(&catalogue).expect("a catalogue can be sent");
    let catalogue: Catalogue = serde_json::from_slice(&bytes).expect("and received");

    let analyser = shop::analyser();
    for (text, expected) in [
        (
            "SELECT 1 FROM view_over_code",
            "opaque public.view_over_code, select public.view_over_code",
        ),
        (
            "SELECT x FROM column_view",
            "select public.column_view, view public.customers.ssn",
        ),
        (
            "SELECT 1 FROM row_view",
            "select public.row_view, view public.customers.ssn",
        ),
        ("SELECT 1 FROM count_view", "select public.count_view"),
        ("SELECT name FROM stored", "select public.stored"),
        (
            "SELECT ssn FROM child",
            "select public.child, shows 0: public.parent.ssn",
        ),
        ("SELECT id FROM child", "select public.child"),
        (
            "INSERT INTO parent (id) VALUES (1)",
            "insert public.parent, opaque public.parent",
        ),
        ("SELECT code()", "call public.code()"),
        ("SELECT 1 === 2", "call public.===()"),
        (
            "SELECT 'a'::mood, 1::plain_domain, NULL::plain_pair, NULL::plain",
            "session",
        ),
        ("SELECT 1::coded", "opaque schema public"),
        ("SELECT NULL::pair", "opaque schema public"),
        ("SELECT NULL::domained", "opaque schema public"),
        ("SELECT 'a'::other_mood", "opaque schema public"),
        ("SELECT 'a' COLLATE german", "opaque schema public"),
        ("SELECT nextval('counter')", "use_sequence public.counter"),
        ("SELECT id FROM hidden", "select ?.hidden"),
    ] {
        let tags = Tags::new(&[tag("public.customers.ssn"), tag("public.parent.ssn")]);
        let analysis = shop::analyse(&analyser, text);
        let resolved = resolve(
            &analysis,
            &catalogue,
            &shop::session(shop::usual_path()),
            &tags,
        );
        assert_eq!(shop::words(&resolved), expected, "{text}");
    }
}

fn tag(columns: &str) -> lockgate_config::Tag {
    lockgate_config::Tag {
        columns: columns.into(),
        tag: "pii".into(),
        mask: None,
    }
}

fn the_fingerprint_follows_every_change(server: &Server) {
    let mut before = server.fingerprint("shop");
    assert_eq!(before, server.fingerprint("shop"), "nothing changed");
    server.rows(
        "shop",
        "insert into plain (id) values (1); create temp table passing (id int)",
    );
    assert_eq!(
        before,
        server.fingerprint("shop"),
        "rows and temporary tables do not count"
    );
    for change in [
        "create table fresh (id int)",
        "alter table fresh add column name text",
        "alter table fresh rename column name to label",
        "alter table fresh rename to fresher",
        "create view fresh_view as select id from fresher",
        "create or replace view fresh_view as select id from plain",
        "create function fresh() returns int language sql as 'select 1'",
        "alter function fresh() rename to fresh2",
        "drop function fresh2()",
        "create trigger t before insert on fresher for each row execute function on_change()",
        "drop trigger t on fresher",
        "create type fresh_type as enum ('a')",
        "create operator ==== (function = int4eq, leftarg = int4, rightarg = int4)",
        "alter table fresher alter column id set default 1",
        "alter table fresher add check (id > 0)",
        "create policy p on fresher using (true)",
        "create table fresh_child () inherits (fresher)",
        "alter table fresh_child no inherit fresher",
        "create schema fresh_schema",
        "alter table fresher set schema fresh_schema",
        "create collation fresh from \"C\"",
        "create cast (int as fresh_type) with inout",
        "drop schema fresh_schema cascade",
    ] {
        server.rows("shop", change);
        let after = server.fingerprint("shop");
        assert_ne!(before, after, "{change}");
        before = after;
    }
}

/// Random tables in random schemas under random search paths, temporary ones
/// aside: `to_regclass` and this crate must mean the same one.
fn names_resolve_as_the_server_resolves_them(server: &Server) {
    server.rows("postgres", "create database names");
    let mut random = Random(1);
    let mut make = String::new();
    for schema in ["a", "b", "\"C\""] {
        make += &format!("create schema {schema};");
    }
    for schema in ["public", "a", "b", "\"C\""] {
        for table in ["t", "u", "\"V\"", "pg_class", "pg_am"] {
            if random.below(2) == 0 {
                make += &format!("create table {schema}.{table} (id int);");
            }
        }
    }
    server.rows("names", &make);
    let catalogue = server.catalogue("names");
    let analyser = shop::analyser();
    let (mut script, mut asked) = (String::new(), Vec::new());
    for _ in 0..200 {
        let parts = [
            "a",
            "b",
            "\"C\"",
            "public",
            "pg_catalog",
            "missing",
            "\"$user\"",
        ];
        let path: Vec<&str> = (0..1 + random.below(4))
            .map(|_| parts[random.below(7)])
            .collect();
        let table = ["t", "u", "\"V\"", "V", "pg_class", "pg_am", "nothing"][random.below(7)];
        script += &format!(
            "set search_path = {}; select array_to_string(current_schemas(true), ','), \
             (select n.nspname || '.' || c.relname from pg_catalog.pg_class c \
              join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
              where c.oid = pg_catalog.to_regclass('{table}')) as found;",
            path.join(", ")
        );
        asked.push(table);
    }
    let mut found = 0;
    let rows = server.rows("names", &script);
    assert_eq!(rows.len(), asked.len());
    for (table, row) in asked.into_iter().zip(rows) {
        let path = row[0]
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect();
        let analysis = shop::analyse(&analyser, &format!("SELECT 1 FROM {table}"));
        let session = shop::session(SearchPath::Known(path));
        let resolved = resolve(&analysis, &catalogue, &session, &Tags::default());
        let [access] = &resolved.statement.accesses[..] else {
            panic!("{resolved:?}")
        };
        let [_, schema, name] = access.resource.path() else {
            panic!("{access}")
        };
        let ours = (schema != "?").then(|| format!("{schema}.{name}"));
        found += usize::from(ours.is_some());
        assert_eq!(ours, row[1], "{table} in {:?}", session.search_path);
    }
    assert!(found > 50, "only {found} of the names were of any table");
}

/// A small generator, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }
}

/// What psql's `\d` and its kin and pg_dump send besides reading the tables
/// they were asked for.
fn clients_need_no_right_but_to_connect(server: &Server) {
    for command in [
        "\\d",
        "\\d+",
        "\\d plain",
        "\\d+ customers",
        "\\d+ column_view",
        "\\d+ secured",
        "\\d+ child",
        "\\d+ ruled",
        "\\dt+",
        "\\dv",
        "\\dm",
        "\\ds",
        "\\di+",
        "\\df",
        "\\df+",
        "\\dn+",
        "\\du",
        "\\l",
        "\\dT+",
        "\\dD",
        "\\do",
        "\\dC",
        "\\dO",
        "\\dp",
        "\\dx",
        "\\dd",
        "\\da",
        "\\dy",
        "\\dF",
        "\\db",
        "\\dL",
        "\\dconfig",
        "\\sf fixed",
        "\\sv plain_view",
        "\\conninfo",
        "\\encoding",
    ] {
        let status = server
            .client("psql")
            .args(["-XAtq", "-d", "shop", "-c", command])
            .output();
        assert!(status.expect("psql runs").status.success(), "{command}");
    }
    // A superuser's dump reads subscriptions with their passwords.
    server.rows("shop", "create role dumper login in role pg_read_all_data");
    let mut dump = server.client("pg_dump");
    let dump = dump
        .env("PGUSER", "dumper")
        .args(["--schema-only", "shop"])
        .output();
    assert!(dump.expect("pg_dump runs").status.success());

    let (analyser, catalogue) = (shop::analyser(), server.catalogue("shop"));
    for (program, at_least) in [("psql", 100), ("pg_dump", 50)] {
        let statements = server.statements_of(program);
        assert!(
            statements.len() > at_least,
            "{program} sent {}",
            statements.len()
        );
        for text in statements {
            // What the tests themselves sent; and of a dump, its locks and
            // its SQL-level EXECUTE, which nobody looks behind.
            let of_tests = text.contains("set search_path = pg_catalog;")
                || text.contains("current_schemas(true)")
                || text.to_lowercase().starts_with("create ")
                || text.to_lowercase().starts_with("alter ")
                || text.to_lowercase().starts_with("drop ")
                || text.starts_with("insert into plain")
                || text == OBJECTS;
            if of_tests || text.starts_with("LOCK TABLE ") || text.starts_with("EXECUTE ") {
                continue;
            }
            let analysis = shop::analyse(&analyser, &text);
            let session = shop::session(shop::usual_path());
            let resolved = resolve(&analysis, &catalogue, &session, &Tags::default());
            let others: Vec<_> = resolved
                .statement
                .accesses
                .iter()
                .filter(|access| access.verb.group() != "use")
                .collect();
            assert!(
                others.is_empty() && resolved.statement.refusal.is_none(),
                "{program}: {}\n{text}",
                shop::words(&resolved)
            );
        }
    }
}
