//! Texts made to exhaust a reader: none crashes it, none takes long.

mod shop;

use std::time::{Duration, Instant};

use lockgate_sql::{Analyser, Reading};

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
        nested("SELECT ", "/* ", "1", " */"),
        nested("SELECT ", "(1+1+1+1+1+", "1", ")"),
        nested("SELECT ", "cast(", "1", " as int)"),
        nested("SELECT ", "json_object('a':", "1", ")"),
        nested("SELECT ", "xmlconcat(", "1", ")"),
    ]
}

/// The time is that of one text. The tests run side by side on few processors,
/// so the best of three counts.
fn best(analyser: impl Fn() -> Analyser, text: &str) -> Duration {
    let once = || {
        let analyser = analyser();
        let start = Instant::now();
        shop::analyse(&analyser, text);
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn hostile_texts_are_answered_soon() {
    let mut slow = Vec::new();
    for text in hostile() {
        let time = best(shop::analyser, &text);
        if time > Duration::from_millis(50) {
            slow.push(format!("{time:?} for {}…", &text[..60]));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
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
    assert_eq!(read, 12);
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
