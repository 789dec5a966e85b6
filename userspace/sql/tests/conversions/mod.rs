//! Values of a column's type that a query makes without naming it. The server
//! counts how often the check of a domain runs: wherever it does, `opaque` is
//! asked for, and wherever none is, it does not.

use lockgate_sql::{Tags, resolve};

use crate::server::Server;
use crate::shop;

const OBJECTS: &str = "
create sequence checks;
create function counted(anyelement) returns bool language plpgsql
    as 'begin perform nextval(''checks''); return true; end';
create domain number as int check (counted(value));
create domain smaller as number;
create domain word as text check (counted(value));
create domain through as int check (value::number is not null);
create type mixed as (n number);
create table kept (id int, n number, s smaller, w word, j jsonb default '{}');
create table lists (n number, ns number[], m mixed);
insert into kept select g, g, g, 'w' || g from generate_series(1, 9) g;
insert into lists select g, array[g, g], row(g)::mixed from generate_series(1, 9) g;
create table more (n number);
insert into more select n from kept;
create view kept_view as select n, w from kept where n > 3;
create view counting as select id::number is null as one from kept;
create view counting_through as select id::through is null as one from kept;
create domain given as int default length(counted(1)::text);
create table filled (g given, id int);
create table plain (id int, twice int);
create table drawn (id int default 1::number, twice int);
create function halved(int) returns int language plpgsql immutable
    as 'begin perform nextval(''checks''); return $1 / 2; end';
create table parts (id int) partition by range (halved(id));
create table part partition of parts for values from (0) to (9);
";

/// Nothing is made here but values of types that are PostgreSQL's own.
const MAKES_NONE: &[&str] = &[
    "SELECT * FROM kept",
    "SELECT k.* FROM kept k",
    "TABLE kept",
    "SELECT n, w FROM kept ORDER BY n, w LIMIT 3",
    "SELECT DISTINCT n, s FROM kept",
    "SELECT n FROM kept WHERE n = '1'",
    "SELECT n FROM kept WHERE s <> 1 AND w = 'w1'",
    "SELECT n FROM kept WHERE n IN ('1', '2')",
    "SELECT n FROM kept WHERE w IN ('w1', 'w2') OR n IN (1)",
    "SELECT n FROM kept WHERE n = ANY ('{1,2}')",
    "SELECT n FROM kept WHERE n BETWEEN '1' AND '3'",
    "SELECT n FROM kept WHERE w LIKE 'w%' AND w ~ '1$' AND w NOT ILIKE 'x'",
    "SELECT n FROM kept WHERE n IS NOT NULL AND n IS DISTINCT FROM '4'",
    "SELECT coalesce(n, '1'), coalesce(w, 'x'), nullif(n, '1'), greatest(n, '1') FROM kept",
    "SELECT CASE n WHEN '1' THEN n ELSE '2' END, CASE WHEN true THEN w ELSE 'x' END FROM kept",
    "SELECT n FROM kept UNION SELECT '5'",
    "SELECT n, w FROM kept EXCEPT SELECT '5', 'x'",
    "SELECT n + 1, n * '2', -n, n % 2 FROM kept",
    "SELECT count(*), count(n), sum(n), min(w), max(s), avg(n) FROM kept GROUP BY n HAVING max(n) > '0'",
    "SELECT upper(w), length(w), substring(w, 1, 1), n::text, n::bigint FROM kept",
    "SELECT a.n FROM kept a JOIN kept b ON a.n = b.id",
    "SELECT n FROM kept JOIN more USING (n)",
    "SELECT n FROM kept NATURAL JOIN (SELECT n FROM more) AS l",
    "SELECT n FROM kept WHERE EXISTS (SELECT 1 FROM more l WHERE l.n = kept.n)",
    "SELECT n FROM kept WHERE n IN (SELECT id FROM kept) AND n = (SELECT 1)",
    "WITH q AS (SELECT n FROM kept) SELECT * FROM q WHERE n = '1'",
    "SELECT sum(n) OVER (PARTITION BY w ORDER BY n ROWS 1 PRECEDING) FROM kept",
    "SELECT sum(n) OVER (ORDER BY n RANGE BETWEEN '1' PRECEDING AND CURRENT ROW) FROM kept",
    "SELECT n FROM (VALUES ('1'), ('2')) AS v(x) JOIN kept ON n = x::int",
    "SELECT n FROM kept_view WHERE n = '5'",
    "COPY kept TO STDOUT",
    "COPY kept (n, w) TO STDOUT",
    "COPY (SELECT n FROM kept WHERE w = 'w1') TO STDOUT",
    "SELECT n FROM kept FOR UPDATE",
    "EXPLAIN SELECT n FROM kept WHERE n = '1'",
    "INSERT INTO plain (id, twice) SELECT n, 2 FROM kept WHERE n > '8'",
];

/// Each of these makes some, unasked.
const MAKES_SOME: &[&str] = &[
    "SELECT lag(n, 1, '7') OVER () FROM kept",
    "SELECT n FROM kept WHERE ARRAY[n] = '{1}'",
    "SELECT n FROM kept WHERE ARRAY(SELECT n FROM kept) = '{1}'",
    "SELECT array_append('{1}', n) FROM kept",
    "SELECT array_agg(n) = '{1}' FROM kept",
    "SELECT coalesce(k, '(1,2,3,x,{})') FROM kept k WHERE k IS NULL UNION SELECT '(1,2,3,x,{})'",
    "SELECT k FROM kept k WHERE k IN ('(1,2,3,x,{})', '(2,2,3,x,{})')",
    "SELECT coalesce(k.*, '(1,2,3,x,{})') FROM kept k",
    "SELECT jsonb_populate_record(k, '{\"n\": 1}') FROM kept k",
    "SELECT n FROM lists WHERE ns = '{1}'",
    "SELECT n FROM lists WHERE m IN ('(1)', '(2)')",
    "SELECT coalesce(m, '(1)') FROM lists UNION SELECT '(2)'",
    "SELECT ns || '{4}' FROM lists",
    "SELECT one FROM counting",
    "SELECT one FROM counting_through",
    "SELECT 1::through",
    "INSERT INTO filled (id) VALUES (1)",
    "INSERT INTO drawn (twice) VALUES (1)",
    "INSERT INTO parts VALUES (1)",
    "INSERT INTO part VALUES (1)",
];

pub fn what_makes_values_unasked_is_opaque(server: &Server) {
    server.rows("postgres", "create database conversions");
    server.rows("conversions", OBJECTS);
    let catalogue = server.catalogue("conversions");
    let analyser = shop::analyser();
    let counted = |text: &str| {
        server.rows("conversions", "select setval('checks', 1, false)");
        let done = server
            .try_rows_as("postgres", "conversions", text)
            .is_some();
        let called = server.rows("conversions", "select is_called from checks");
        (done, called == [[Some("t".to_owned())]])
    };
    let needs_opaque = |text: &str| {
        let analysis = shop::analyse(&analyser, text);
        let session = shop::session(shop::usual_path());
        let resolved = resolve(&analysis, &catalogue, &session, &Tags::default());
        let words = shop::words(&resolved);
        assert!(!words.contains("refused"), "{text}: {words}");
        words.contains("opaque") || words.contains("call")
    };
    for text in MAKES_NONE {
        assert_eq!(counted(text), (true, false), "{text}");
        assert!(!needs_opaque(text), "{text}");
    }
    for text in MAKES_SOME {
        assert!(counted(text).1, "{text} makes none");
        assert!(needs_opaque(text), "{text}");
    }
}
