//! What this crate believes of PostgreSQL, asked of PostgreSQL.

mod code;
mod conversions;
mod extensions;
mod judge;
mod second;
mod server;
mod shop;

use lockgate_sql::{Catalogue, SearchPath, Tags, function_class, is_operator, is_type, resolve};
use server::Server;

/// One server for most, since starting one takes longer than all else.
#[test]
fn a_real_server_agrees() {
    let server = Server::start();
    every_built_in_name_is_known(&server);
    code::the_catalogue_says_what_runs_code(&server);
    the_fingerprint_follows_every_change(&server);
    names_resolve_as_the_server_resolves_them(&server);
    clients_need_no_right_but_to_connect(&server);
    judge::the_server_confirms_what_is_shown(&server);
    every_command_is_in_the_document(&server);
}

#[test]
fn what_makes_values_unasked_is_opaque() {
    conversions::what_makes_values_unasked_is_opaque(&Server::start());
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

/// The list of psql is that of the documentation's reference.
fn every_command_is_in_the_document(server: &Server) {
    let help = server
        .client("psql")
        .args(["-XAtq", "-d", "postgres", "-c", "\\h"])
        .output()
        .expect("psql runs");
    // The longest leaves one space only.
    let help = String::from_utf8(help.stdout)
        .expect("UTF-8")
        .replace("CONFIGURATION ", "CONFIGURATION  ");
    // Columns of names, two spaces or more between them.
    let commands: Vec<&str> = help
        .lines()
        .skip(1)
        .flat_map(|line| line.split("  "))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    assert!(commands.len() > 180, "{commands:?}");
    let document = include_str!("../../../docs/statements.md");
    let missing: Vec<_> = commands
        .into_iter()
        // TABLE and WITH are parts of SELECT.
        .filter(|name| !matches!(*name, "TABLE" | "WITH"))
        .filter(|name| !document.contains(&format!("| [{name}](")))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn foreign_keys_are_followed() {
    let server = Server::start();
    server.rows("postgres", "create database keys");
    server.rows(
        "keys",
        "create table maker (id int primary key, name text unique);
         create table part (id int primary key references maker on delete cascade);
         create table price (part int references part on delete cascade on update cascade);
         create table note (maker text references maker (name) on delete set null on update set default);
         create table log (maker int references maker);
         create table price_list (id int primary key) partition by range (id);
         create table price_list_1 partition of price_list for values from (1) to (9);
         create table offer (list int references price_list on delete cascade)",
    );
    let catalogue = server.catalogue("keys");
    for (text, expected) in [
        (
            "DELETE FROM maker",
            "delete public.maker, delete public.part, delete public.price, delete_all public.maker, update public.note",
        ),
        (
            "UPDATE maker SET id = 1",
            "update public.maker, update_all public.maker",
        ),
        (
            "UPDATE maker SET name = 'x'",
            "update public.maker, update public.note, update_all public.maker",
        ),
        (
            "UPDATE part SET id = 1",
            "update public.part, update public.price, update_all public.part",
        ),
        (
            "DELETE FROM price_list",
            "delete public.offer, delete public.price_list, delete_all public.price_list",
        ),
        (
            "DELETE FROM price_list_1",
            "delete public.offer, delete public.price_list_1, delete_all public.price_list_1",
        ),
        (
            "DELETE FROM log",
            "delete public.log, delete_all public.log",
        ),
    ] {
        assert_eq!(meaning(&catalogue, text), expected, "{text}");
    }
    // The server agrees about the first.
    server.rows(
        "keys",
        "insert into maker values (1, 'a'); insert into part values (1);
         insert into price values (1); insert into note values ('a'); delete from maker",
    );
    let left = server.rows(
        "keys",
        "select count(*), (select count(*) from price), (select count(*) from note where maker is null) from part",
    );
    assert_eq!(
        left[0],
        [Some("0".into()), Some("0".into()), Some("1".into())]
    );
}

fn meaning(catalogue: &Catalogue, text: &str) -> String {
    let analysis = shop::analyse(&shop::analyser(), text);
    let session = shop::session(shop::usual_path());
    shop::words(&resolve(&analysis, catalogue, &session, &Tags::default()))
}

#[test]
fn extensions_are_known_by_what_they_run() {
    let server = Server::start();
    extensions::every_function_of_a_listed_extension_was_looked_at(&server);
    extensions::members_are_known_by_what_they_run(&server);
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
        "create event trigger e on ddl_command_end execute function on_event()",
        "drop event trigger e",
        "create operator class fresh_class for type text using btree as function 1 text_order(text, text)",
        "create statistics fresh_statistics on (fixed(id)), id from indexed",
        "drop schema fresh_schema cascade",
    ] {
        server.rows("shop", change);
        let after = server.fingerprint("shop");
        assert_ne!(before, after, "{change}");
        before = after;
    }
}

/// Random tables in random schemas under random search paths, temporary ones
/// aside: what `to_regclass` means is what this crate does, besides what is
/// behind it on the path, which a prepared statement may still mean.
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
    let (mut found, mut several) = (0, 0);
    let rows = server.rows("names", &script);
    assert_eq!(rows.len(), asked.len());
    for (table, row) in asked.into_iter().zip(rows) {
        let path: Vec<String> = row[0]
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect();
        let analysis = shop::analyse(&analyser, &format!("SELECT 1 FROM {table}"));
        let session = shop::session(SearchPath::Known(path.clone()));
        let resolved = resolve(&analysis, &catalogue, &session, &Tags::default());
        let accesses = resolved.statement.accesses.iter();
        let ours: Vec<String> = accesses
            .map(|access| match access.resource.path() {
                [_, schema, name] => format!("{schema}.{name}"),
                _ => panic!("{access}"),
            })
            .collect();
        match &row[1] {
            Some(meant) => {
                found += 1;
                several += usize::from(ours.len() > 1);
                assert_eq!(&ours[0], meant, "{table} in {path:?}");
                let mut behind = ours.iter().map(|name| name.split_once('.').unwrap().0);
                assert!(behind.all(|schema| path.iter().any(|on| on == schema)));
            }
            None => assert!(ours.len() == 1 && ours[0].starts_with("?."), "{ours:?}"),
        }
    }
    assert!(
        several > 10,
        "only {several} of the names were of two tables"
    );
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

    server.rows("postgres", "create database bench");
    for arguments in [
        &["-i", "-q"][..],
        &["-t", "3"],
        &["-t", "3", "-S"],
        &["-t", "3", "-N"],
    ] {
        let mut pgbench = server.client("pgbench");
        let output = pgbench.args(arguments).arg("bench").output();
        assert!(
            output.expect("pgbench runs").status.success(),
            "{arguments:?}"
        );
    }
    let mut explanations = second::Explanations::read();
    let (analyser, catalogue) = (shop::analyser(), server.catalogue("shop"));
    for program in ["psql", "pg_dump", "pgbench"] {
        for text in server.statements_of(program) {
            explanations.take(&analyser, &text);
        }
    }
    assert!(
        explanations.unexplained.is_empty(),
        "{}",
        explanations.unexplained.join("\n")
    );
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
                || text == code::OBJECTS;
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
