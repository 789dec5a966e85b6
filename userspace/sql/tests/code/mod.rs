//! What runs code that users made, without that a statement names it.

use lockgate_sql::{Catalogue, RelationKind, Tags, resolve};

use crate::server::Server;
use crate::{meaning, shop, tag};

pub const OBJECTS: &str = r#"
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
create type unit as enum ('a');
create function from_unit(unit) returns int language sql as $$select 1$$;
create cast (unit as int) with function from_unit(unit) as implicit;
create table units (u unit);
create function difference(float8, float8) returns float8 immutable language sql as $$select 1.0::float8$$;
create type spread as range (subtype = float8, subtype_diff = difference);
create function circle_less(circle, circle) returns bool language sql as 'select true';
create function circle_order(circle, circle) returns int language sql as 'select 0';
create operator <~ (leftarg = circle, rightarg = circle, function = circle_less);
create operator class circle_class default for type circle using btree as operator 1 <~, function 1 circle_order(circle, circle);
create table documents (id int, body circle);
create table more_documents (id int, bodies circle[]);
create view document_names as select id from documents;
create function text_order(text, text) returns int immutable language sql as 'select 0';
create table sorted (id text); create operator class text_class for type text using btree as function 1 text_order(text, text);
create index on sorted (id text_class);
create table measured (id int); create statistics measures on (fixed(id)), id from measured;
create table paired (id pair);
create table owners (id int primary key);
create table noted (id int references owners);
create temp table hidden (id int);
"#;

pub fn the_catalogue_says_what_runs_code(server: &Server) {
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
        ("documents", true, true),
        ("more_documents", true, true),
        ("paired", true, true),
        ("sorted", false, true),
        ("measured", false, true),
        ("owners", false, false),
        ("child", false, true),
        ("parent", false, true),
        ("units", true, true),
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
        ("SELECT 'a'::unit", "opaque schema public"),
        ("SELECT '[1,2]'::spread", "opaque schema public"),
        (
            "SELECT 1 + u FROM units",
            "opaque public.units, select public.units",
        ),
        ("SELECT id FROM hidden", "select ?.hidden"),
        (
            "SELECT id FROM document_names",
            "opaque public.document_names, select public.document_names",
        ),
        (
            "ALTER TABLE checked ADD COLUMN more int",
            "alter public.checked, opaque public.checked",
        ),
        (
            "ALTER TABLE triggered ADD COLUMN more int",
            "alter public.triggered",
        ),
        (
            "CREATE INDEX ON documents (body)",
            "create public.documents, opaque public.documents",
        ),
        ("CREATE INDEX ON checked (id)", "create public.checked"),
        (
            "ANALYZE measured",
            "maintain public.measured, opaque public.measured",
        ),
        (
            "ALTER DOMAIN coded VALIDATE CONSTRAINT x",
            "alter schema public, opaque schema public",
        ),
        (
            "ALTER DOMAIN plain_domain VALIDATE CONSTRAINT x",
            "alter schema public",
        ),
        ("SELECT '<(0,0),1>'::circle", "opaque schema pg_catalog"),
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

    for (text, expected) in [
        ("SELECT id FROM child", "select public.parent"),
        ("SELECT id FROM parent", "select public.child"),
        ("SELECT name FROM stored", "select public.customers"),
        ("SELECT id FROM owners", ""),
        ("TRUNCATE owners CASCADE", "truncate public.noted"),
        ("SELECT * FROM row_view, customers", ""),
    ] {
        let analysis = shop::analyse(&analyser, text);
        let session = shop::session(shop::usual_path());
        let resolved = resolve(&analysis, &catalogue, &session, &Tags::default());
        let beneath: Vec<String> = resolved.statement.beneath.iter().map(shop::word).collect();
        assert_eq!(beneath.join(", "), expected, "{text}");
    }

    server.rows(
        "shop",
        "create function on_event() returns event_trigger language plpgsql as 'begin end';
         create event trigger e on ddl_command_end execute function on_event()",
    );
    let catalogue = server.catalogue("shop");
    for (text, expected) in [
        (
            "CREATE TABLE made (id int)",
            "create public.made, opaque database shop",
        ),
        ("INSERT INTO plain VALUES (1)", "insert public.plain"),
    ] {
        assert_eq!(meaning(&catalogue, text), expected, "{text}");
    }
    server.rows("shop", "drop event trigger e");

    server.rows("postgres", "create database far");
    server.rows(
        "far",
        "create foreign data wrapper nothing; create server far foreign data wrapper nothing;
         create foreign table distant (id int) server far;
         create view distant_view as select * from distant",
    );
    let catalogue = server.catalogue("far");
    for name in ["distant", "distant_view"] {
        assert_eq!(
            meaning(&catalogue, &format!("SELECT id FROM {name}")),
            format!("opaque public.{name}, select public.{name}")
        );
    }
}
