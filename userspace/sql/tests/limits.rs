//! Texts made to exhaust a reader: none crashes it, none takes long.

mod shop;

use std::time::Duration;

use lockgate_sql::Reading;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

/// The reader's limit of length in these tests.
const LENGTH: usize = 65536;

fn filled(head: &str, unit: &str, tail: &str) -> String {
    let count = (LENGTH - head.len() - tail.len()) / unit.len();
    format!("{head}{}{tail}", unit.repeat(count))
}

fn nested(head: &str, open: &str, inner: &str, close: &str) -> String {
    let count = (LENGTH - head.len() - inner.len()) / (open.len() + close.len());
    format!("{head}{}{inner}{}", open.repeat(count), close.repeat(count))
}

fn hostile() -> Vec<String> {
    vec![
        filled("SELECT 1", "+1", ""),
        filled("SELECT 1", " operator(+) 1", ""),
        filled("SELECT ", "- ", "1"),
        filled("SELECT ", "+-", "1"),
        filled("SELECT ", "@ ", "1"),
        filled("SELECT ", "NOT ", "true"),
        filled("SELECT true", " IS NULL", ""),
        filled("SELECT true", " ISNULL", ""),
        filled("SELECT 1", "::int", ""),
        filled("SELECT 'x'", " COLLATE \"C\"", ""),
        filled("SELECT now()", " AT TIME ZONE 'UTC'", ""),
        filled("SELECT now()", " AT LOCAL", ""),
        filled("SELECT x", "[1]", " FROM t"),
        filled("SELECT a", ".a", ""),
        filled("SELECT (a)", ".a", ""),
        filled("SELECT 1 IN (1", ",1", ")"),
        filled("SELECT 1", ",1", ""),
        filled("SELECT true", " AND true", ""),
        filled("SELECT true", " OR true", ""),
        filled("SELECT true", " OR true AND false", ""),
        filled("SELECT 1", " UNION SELECT 1", ""),
        filled("SELECT 1 FROM t", " JOIN t ON true", ""),
        filled("SELECT 1 FROM t", " JOIN t", " ON true"),
        filled("SELECT 1 FROM t", " CROSS JOIN t", ""),
        filled("SELECT 1 FROM t", " NATURAL JOIN t", ""),
        filled("VALUES (1)", ",(1)", ""),
        filled("SELECT 1", ";SELECT 1", ""),
        filled("", ";", ""),
        filled("SELECT ", "(", ""),
        filled("SELECT ", ")", ""),
        filled("", "/*", ""),
        filled("", "/* ", ""),
        filled("", "/**/", "SELECT 1"),
        filled("", "'", ""),
        filled("SELECT ", "$a$", ""),
        filled("SELECT ", "\"", ""),
        filled("SELECT 'a'", "\n'a'", ""),
        filled("SELECT ", "CASE WHEN ", ""),
        filled("SELECT ", "x.end = CASE WHEN ", ""),
        filled("SELECT ", "ARRAY[", ""),
        filled("", "EXPLAIN ", "SELECT 1"),
        filled("SELECT 1 AS a", "a", ""),
        filled("SELECT a ", "BETWEEN 1 AND 1 + ", "1"),
        filled("WITH a AS (SELECT 1)", ", a AS (SELECT 1)", " SELECT 1"),
        filled("SELECT f(", "f => ", "1)"),
        filled("SELECT f(", "variadic ", "1)"),
        filled("SELECT interval ", "interval ", "'1'"),
        filled("CREATE TABLE t (c int", ", c int", ")"),
        filled("SELECT ", "row(", ""),
        filled("SELECT ", "exists (select ", ""),
        nested("SELECT ", "(", "1", ")"),
        nested("", "(", "SELECT 1", ")"),
        nested("SELECT ", "(SELECT ", "1", ")"),
        nested("SELECT * FROM ", "(SELECT * FROM ", "t", ") x"),
        nested(
            "SELECT * FROM ",
            "(",
            "t JOIN t ON true",
            " JOIN t ON true)",
        ),
        nested("SELECT ", "f(", "1", ")"),
        nested("SELECT ", "CASE WHEN true THEN ", "1", " END"),
        nested("SELECT ", "ARRAY[", "1", "]"),
        nested("SELECT ", "x[", "1", "]"),
        nested("", "WITH a AS (", "SELECT 1", ") SELECT 1"),
        nested("SELECT ", "coalesce(", "1", ")"),
        nested("SELECT 1 IN ", "(SELECT 1 WHERE 1 IN ", "(1)", ")"),
        nested("SELECT GROUPING SETS ", "(", "1", ")"),
        nested("SELECT 1 GROUP BY ", "ROLLUP (", "1", ")"),
        // What an AND or a semicolon does not end.
        nested(
            "SELECT ",
            "NOT NOT NOT NOT CASE WHEN true AND ",
            "true",
            " THEN true END",
        ),
        nested(
            "SELECT ",
            &format!("{}CASE WHEN true AND ", "- ".repeat(1400)),
            "1",
            " THEN 1 END",
        ),
        filled("SELECT ", "NOT 1 BETWEEN 1 AND ", "true"),
        nested(
            "",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC ",
            "SELECT 1",
            "; END",
        ),
        nested("SELECT ", "/* ", "1", " */"),
        nested("SELECT ", "(1+1+1+1+1+", "1", ")"),
        nested("SELECT ", "cast(", "1", " as int)"),
        nested("SELECT ", "json_object('a':", "1", ")"),
        nested("SELECT ", "xmlconcat(", "1", ")"),
    ]
}

/// Processor time of the parse thread for one text, the best of three: the tests
/// run side by side on few processors.
fn cost(text: &str) -> Duration {
    let once = || {
        let analyser = shop::analyser();
        let (done, waits) = std::sync::mpsc::channel();
        // On the parse thread, which has done nothing else.
        let deliver = Box::new(move |_| {
            let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
            let _ = done.send(Duration::from(time.expect("Linux has this clock")));
        });
        analyser.analyse(text.as_bytes(), Reading::default(), deliver);
        waits.recv().expect("every text gets an answer")
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// A text of 64 KB is at most some 30,000 nodes, which take half of this where
/// much else runs. What is not linear takes seconds.
const SOON: Duration = Duration::from_millis(150);

#[test]
fn hostile_texts_are_answered_soon() {
    let mut times: Vec<_> = hostile()
        .into_iter()
        .map(|text| (cost(&text), text))
        .collect();
    times.sort();
    for (time, text) in times.iter().rev().take(10) {
        println!("{time:?} for {:.60}…", text);
    }
    let slow: Vec<_> = times.iter().filter(|(time, _)| *time > SOON).collect();
    assert!(slow.is_empty(), "{} are slow", slow.len());
}

/// Every keyword and mark of the lexer, over and over: alone, in pairs, with
/// something between.
fn repeated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{1,4}",
        1 => "\\PC{1,3}",
    ];
    let head = prop::sample::select(vec![
        "",
        "SELECT ",
        "SELECT * FROM ",
        "SELECT 1 ",
        "CREATE TABLE t (",
        "INSERT INTO t VALUES ",
        "UPDATE t SET ",
        "SELECT '",
        "SELECT $a$",
        "SELECT U&'",
        "SELECT E'",
        "WITH ",
        "GRANT ",
        "ALTER TABLE t ",
        "SELECT f(",
        "SELECT JSON_OBJECT(",
        "MERGE INTO t USING u ON a ",
    ]);
    (head, prop::collection::vec(piece, 1..5), any::<bool>()).prop_map(|(head, pieces, spaced)| {
        let unit = pieces.join(if spaced { " " } else { "" });
        filled(
            head,
            &format!("{unit} ")[..unit.len() + usize::from(spaced)],
            "",
        )
    })
}

const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    ",",
    ";",
    ".",
    ":",
    "::",
    ":=",
    "=>",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "<",
    ">",
    "=",
    "<>",
    "!=",
    "@",
    "#",
    "~",
    "|",
    "||",
    "&",
    "?",
    "`",
    "!",
    "--",
    "/*",
    "*/",
    "/**/",
    "\n",
    "\t",
    "\r",
    "'",
    "\"",
    "\\",
    "$",
    "$$",
    "$a$",
    "$1",
    "E'",
    "B'",
    "X'",
    "N'",
    "U&'",
    "U&\"",
    "''",
    "'a'",
    "'a'\n",
    "\"a\"",
    "\"\"",
    "1",
    "1.",
    ".5",
    "1e5",
    "0x1f",
    "1_000",
    "9999999999",
    "a",
    "a.b",
    "é",
    "😀",
    "select",
    "from",
    "where",
    "and",
    "or",
    "not",
    "is null",
    "in",
    "between 1 and",
    "like",
    "escape",
    "case when",
    "then",
    "else",
    "end",
    "cast(",
    "as int)",
    "array[",
    "row(",
    "exists (",
    "union",
    "union all select 1",
    "join",
    "on true",
    "using (a)",
    "with",
    "as",
    "values",
    "order by",
    "group by",
    "cube(",
    "limit",
    "offset",
    "for update",
    "over (",
    "partition by",
    "filter (where",
    "collate \"C\"",
    "at time zone",
    "operator(+)",
    "uescape '!'",
    "interval '1'",
    "grouping sets (",
    "xmlelement(name",
    "json_object(",
    "'a':1",
    "returning",
    "on conflict",
    "do nothing",
    "create table t (",
    "primary key",
    "check (",
    "default",
    "references t",
    "alter column a type int,",
    "add column a int,",
    "grant select on",
    "to",
    "begin",
    "commit;",
    "do $$ $$;",
    "explain",
    "prepare p as",
    "execute p(",
    "table",
    "lateral (",
    "rows from (",
    "tablesample a (1)",
    "merge into t",
    "when matched then",
    "update set",
    "set a = 1,",
    "in (select",
    "= any (",
    "not null,",
    "int[3]",
    "double precision",
    "variadic",
];

proptest! {
    // A counterexample is as good in any form; to shrink one takes long.
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn any_64_kb_are_answered_soon(text in repeated()) {
        let time = cost(&text);
        prop_assert!(time <= SOON, "{:?} for {:.80}", time, text);
    }
}

/// As deep as the pre-scan lets through, with every kind of level.
#[test]
fn the_deepest_trees_that_are_read_fit_the_stack() {
    let analyser = shop::analyser();
    let mut read = 0;
    for (head, open, inner, close, levels) in [
        ("SELECT ", "(SELECT ", "1", ")", 1),
        ("SELECT ", "f(", "1", ")", 1),
        ("SELECT 1 FROM ", "(SELECT 1 FROM ", "t", ") x", 1),
        ("SELECT ", "CASE WHEN true THEN ", "1", " END", 1),
        ("SELECT ", "ARRAY[", "1", "]", 1),
        ("SELECT ", "NOT ", "true", "", 1),
        ("SELECT ", "- ", "1", "", 1),
        ("SELECT 1", " + 1", "", "", 1),
        ("SELECT 1", "::int", "", "", 1),
        ("SELECT 1", " UNION SELECT 1", "", "", 1),
        ("SELECT 1 FROM t", " CROSS JOIN t", "", "", 1),
        ("SELECT 1 IN ", "(SELECT 1 WHERE 1 IN ", "(1)", ")", 2),
        (
            "SELECT ",
            "NOT NOT CASE WHEN true AND ",
            "true",
            " THEN true END",
            3,
        ),
        ("SELECT ", "NOT 1 BETWEEN 1 AND ", "true", "", 2),
        (
            "",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC ",
            "SELECT 1",
            "; END",
            5,
        ),
    ] {
        let text = |depth: usize| {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            format!("{head}{open}{inner}{close}")
        };
        let deepest = (1..2000 / levels)
            .rev()
            .find(|depth| shop::analyse(&analyser, &text(*depth)).refusal().is_none());
        let deepest = deepest.unwrap_or(0);
        assert!(deepest * levels > 1000, "{open}: only {deepest}");
        read += 1;
    }
    assert_eq!(read, 15);
}

#[test]
fn what_is_too_much_is_refused_by_name() {
    let analyser = shop::analyser();
    let construct = |text: &str| {
        let analysis = shop::analyse(&analyser, text);
        analysis
            .refusal()
            .map(|refusal| refusal.construct.clone())
            .unwrap_or_default()
    };
    assert_eq!(
        construct(&" ".repeat(LENGTH + 1)),
        "a statement over 65536 bytes"
    );
    assert_eq!(
        construct("SELECT 1\0; DROP TABLE t"),
        "a statement with a zero byte"
    );
    assert_eq!(
        construct(&filled("", "/*", "")),
        "comments nested over 32 deep"
    );
    assert!(construct(&filled("SELECT 1", "+1", "")).starts_with("a statement nested over"));
    assert_eq!(construct(&" ".repeat(LENGTH)), "");
    let locked = |count: usize| {
        let tables: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
        format!("LOCK TABLE {}", tables.join(", "))
    };
    assert_eq!(construct(&locked(4000)), "");
    assert_eq!(
        construct(&locked(4001)),
        "over 4000 names of tables, functions and types in one text"
    );
}

#[test]
fn how_a_text_is_read_is_part_of_the_question() {
    let analyser = shop::analyser();
    let ask = |text: &[u8], reading| {
        let (done, waits) = std::sync::mpsc::channel();
        analyser.analyse(
            text,
            reading,
            Box::new(move |analysis| done.send(analysis).unwrap()),
        );
        let analysis = waits.recv().expect("every text gets an answer");
        analysis.refusal().map(|refusal| refusal.construct.clone())
    };
    let usual = Reading::default();
    let other_encoding = Reading {
        utf8: false,
        ..usual
    };
    let escapes = Reading {
        standard_conforming_strings: false,
        ..usual
    };
    assert_eq!(ask(b"SELECT 1", usual), None);
    assert_eq!(ask(b"SELECT 1", other_encoding), None);
    assert_eq!(ask("SELECT 'é'".as_bytes(), usual), None);
    assert!(ask("SELECT 'é'".as_bytes(), other_encoding).is_some());
    assert!(
        ask(b"SELECT '\x95\\'", other_encoding).is_some(),
        "SJIS: the byte 5C is half a letter"
    );
    assert!(ask(b"SELECT '\xff'", usual).is_some());
    let other_names = Reading {
        utf8_names: false,
        ..usual
    };
    assert_eq!(ask("SELECT 'é' -- é".as_bytes(), other_names), None);
    for name in ["é", "\"é\"", "U&\"\\00e9\""] {
        let text = format!("SELECT 1 FROM {name}");
        assert_eq!(ask(text.as_bytes(), usual), None, "{name}");
        assert!(ask(text.as_bytes(), other_names).is_some(), "{name}");
    }
    assert!(ask(b"SELECT 1", escapes).is_some());
    // Answers are kept apart by the reading.
    assert!(
        analyser
            .cached(b"SELECT 1", usual)
            .is_some_and(|known| known.refusal().is_none())
    );
    assert!(
        analyser
            .cached(b"SELECT 1", escapes)
            .is_some_and(|known| known.refusal().is_some())
    );
    assert!(analyser.cached(b"SELECT 2", usual).is_none());
}

/// The names that PostgreSQL reports client_encoding by.
const ENCODINGS: &[&str] = &[
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

/// A character whose last byte is a quote, a backslash or a digit in ASCII.
const HALVES: &[&[u8]] = &[
    b"\x95\\",
    b"\xa1\\",
    b"\x81'",
    b"\x81\x300\x81\x30",
    b"\xc3\xa9",
    b"\xe9",
];

#[test]
fn in_other_encodings_only_ascii_is_read() {
    let analyser = shop::analyser();
    for name in ENCODINGS {
        let mut reading = Reading::default();
        reading.follow("client_encoding", name);
        assert_eq!(reading.utf8, *name == "UTF8", "{name}");
        let ask = |text: &[u8]| {
            let (done, waits) = std::sync::mpsc::channel();
            let deliver = Box::new(move |analysis| done.send(analysis).unwrap());
            analyser.analyse(text, reading, deliver);
            let analysis: std::sync::Arc<lockgate_sql::Analysis> = waits.recv().unwrap();
            analysis.refusal().cloned()
        };
        assert_eq!(ask(b"SELECT 'a\\', \"b\" FROM t -- c"), None, "{name}");
        for half in HALVES {
            for (before, after) in [
                ("SELECT '", "'; DROP TABLE t; --'"),
                ("SELECT \"", "\""),
                ("SELECT 1 -- ", ""),
            ] {
                let text = [before.as_bytes(), half, after.as_bytes()].concat();
                let refusal = ask(&text);
                match (*name, std::str::from_utf8(&text)) {
                    ("UTF8", Ok(_)) => assert_eq!(refusal, None),
                    ("UTF8", Err(_)) => assert!(refusal.is_some()),
                    _ => {
                        let refusal = refusal.unwrap_or_else(|| panic!("{name} {text:?}"));
                        assert!(
                            refusal.hint.contains("connect with client_encoding UTF8"),
                            "{refusal:?}"
                        );
                    }
                }
            }
        }
    }
}

/// Lexical forms in which readers have differed from the server, each with the
/// relation that the server would read from.
#[test]
fn lexical_forms_are_read_as_the_server_reads_them() {
    let analyser = shop::analyser();
    let long = "a".repeat(63);
    let cut_in_character = format!("{}é", "a".repeat(62));
    for (text, relation) in [
        (
            "SELECT 1 FROM U&\"\\006f\\+000072ders\"".to_owned(),
            "orders",
        ),
        (
            "SELECT 1 FROM U&\"!006frders\" UESCAPE '!'".to_owned(),
            "orders",
        ),
        (
            "SELECT U&'!0061' UESCAPE '!' FROM orders".to_owned(),
            "orders",
        ),
        (
            "SELECT U&'\\' UESCAPE '!' FROM orders -- '".to_owned(),
            "orders",
        ),
        ("SELECT 'a'\n  'b' FROM orders".to_owned(), "orders"),
        ("SELECT 'a' -- ;\n 'b' FROM orders".to_owned(), "orders"),
        ("SELECT E'a\\'' FROM orders --'".to_owned(), "orders"),
        ("SELECT E'a'\n'\\'' FROM orders --'".to_owned(), "orders"),
        ("SELECT 'a'\n'\\' FROM orders --'".to_owned(), "orders"),
        ("SELECT $é$ ' $é$ FROM orders".to_owned(), "orders"),
        ("SELECT $_1$ $$ $_2$ $_1$ FROM orders".to_owned(), "orders"),
        ("SELECT a$1, a$b$c FROM orders -- $b$".to_owned(), "orders"),
        ("SELECT $1 FROM orders".to_owned(), "orders"),
        (
            "SELECT 0x1F, 0o17, 0b11, 1_000_000, 1_0.0_1e1_0 FROM orders".to_owned(),
            "orders",
        ),
        ("SELECT 1e, 2 FROM orders".to_owned(), "refused"),
        ("SELECT 1a FROM orders".to_owned(), "refused"),
        ("SELECT $1a FROM orders".to_owned(), "orders"),
        ("SELECT $1from orders".to_owned(), "orders"),
        ("SELECT 1FROM orders".to_owned(), "refused"),
        ("SELECT 'a' 'b' FROM orders".to_owned(), "refused"),
        ("SELECT U&'\\d83d' FROM orders".to_owned(), "refused"),
        (
            "SELECT U&\"a\" UESCAPE 'a' FROM orders".to_owned(),
            "refused",
        ),
        ("SELECT E'\\ud83d' FROM orders".to_owned(), "refused"),
        ("SELECT E'\\x00' FROM orders".to_owned(), "refused"),
        ("SELECT 1 -- a\rFROM orders".to_owned(), "orders"),
        (
            "SELECT 1 FROM orders /* /* */ , items */".to_owned(),
            "orders",
        ),
        ("SELECT 1\u{a0}FROM orders".to_owned(), "refused"),
        ("SELECT 1 FROM\u{b}orders\u{c}".to_owned(), "orders"),
        (format!("SELECT 1 FROM {long}"), long.as_str()),
        (format!("SELECT 1 FROM {long}b"), long.as_str()),
        (format!("SELECT 1 FROM {cut_in_character}"), &long[..62]),
        (format!("SELECT 1 FROM \"{cut_in_character}\""), &long[..62]),
    ] {
        let resolved = shop::meaning(&analyser, &text, shop::usual_path(), &Default::default());
        let mut names: Vec<&str> = resolved
            .statement
            .accesses
            .iter()
            .filter_map(|access| access.resource.path().get(2).map(String::as_str))
            .collect();
        names.sort_unstable();
        if resolved.statement.refusal.is_some() {
            names = vec!["refused"];
        }
        assert_eq!(names.join(" "), relation, "{text}");
    }
}
