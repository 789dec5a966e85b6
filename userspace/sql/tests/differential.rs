//! The walk and another parser, over everything there is to read: the tests'
//! own statements, what applications send, PostgreSQL's regression tests, and
//! statements that a grammar makes up.

mod second;
mod shop;

use std::path::Path;

use proptest::prelude::*;
use second::{Explanations, compare};

fn check(explanations: &Explanations, at_least: usize) {
    assert!(
        explanations.compared >= at_least,
        "only {} texts were read by both",
        explanations.compared
    );
    let shown: Vec<&str> = explanations
        .unexplained
        .iter()
        .map(String::as_str)
        .take(60)
        .collect();
    assert!(
        explanations.unexplained.is_empty(),
        "{} of {} differ:\n{}",
        explanations.unexplained.len(),
        explanations.compared,
        shown.join("\n")
    );
}

/// Every line of the list must explain something here or in the regression
/// tests, where those have been fetched.
#[test]
fn two_readers_agree() {
    let analyser = shop::analyser();
    let mut explanations = Explanations::read();
    let own = include_str!("statements.txt").lines();
    for text in own.filter_map(|line| Some(line.split_once(" => ")?.0)) {
        explanations.take(&analyser, &text.replace("\\n", "\n"));
    }
    for text in include_str!("second/applications.sql").split(";\n") {
        explanations.take(&analyser, text);
    }
    check(&explanations, 350);
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/tools/postgresql-regress"
    );
    let Ok(files) = std::fs::read_dir(folder) else {
        eprintln!(
            "NOT COMPARED: PostgreSQL's regression tests are not in {folder}; \
             `cargo xtask setup` fetches them"
        );
        return;
    };
    for file in files {
        let path = file.expect("a readable folder").path();
        for text in statements_of(&path) {
            explanations.take(&analyser, &text);
        }
    }
    check(&explanations, 15_000);
    assert_eq!(explanations.unused(), [""; 0], "lines that explain nothing");
}

/// The statements of a script for psql, about: a text that PostgreSQL's parser
/// reads when it has come to a line that ends in `;`. What is not read within
/// 40 lines is left out.
fn statements_of(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).expect("a readable file");
    let (mut found, mut text, mut lines) = (Vec::new(), String::new(), 0);
    for line in String::from_utf8_lossy(&bytes).lines() {
        if text.is_empty() && (line.trim().is_empty() || line.starts_with(['\\', '-'])) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        lines += 1;
        let whole = line.trim_end().ends_with(';');
        if whole && pg_query::parse(&text, 0).is_ok() {
            found.push(std::mem::take(&mut text));
            lines = 0;
        } else if lines > 40 || (whole && line.trim() == ";") {
            text.clear();
            lines = 0;
        }
    }
    found
}

/// Statements of a small grammar: every way to name a relation, in every place
/// that can hold one.
mod grammar {
    use super::*;

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "orders",
            "items",
            "tenant.orders",
            "\"Odd\"",
            "audit.log",
            "t",
            "public.t",
        ])
        .prop_map(str::to_owned)
    }

    fn column() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "a", "b", "\"C\"", "1", "'x'", "$1", "NULL", "count(*)", "-2",
        ])
        .prop_map(str::to_owned)
    }

    fn expression(query: BoxedStrategy<String>) -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            4 => column(),
            1 => query.clone().prop_map(|query| format!("({query})")),
            1 => query.clone().prop_map(|query| format!("EXISTS ({query})")),
            1 => query.prop_map(|query| format!("a IN ({query})")),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} = {b}")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
                inner.clone().prop_map(|a| format!("coalesce({a}, 0)")),
                inner
                    .clone()
                    .prop_map(|a| format!("CASE WHEN {a} THEN 1 ELSE 2 END")),
                inner.clone().prop_map(|a| format!("CAST({a} AS text)")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} BETWEEN {b} AND 7")),
                inner.clone().prop_map(|a| format!("NOT ({a})")),
                inner.prop_map(|a| format!("ARRAY[{a}]")),
            ]
        })
    }

    fn from(query: BoxedStrategy<String>) -> impl Strategy<Value = String> {
        let item = prop_oneof![
            5 => name(),
            2 => name().prop_map(|name| format!("{name} AS n")),
            1 => name().prop_map(|name| format!("ONLY {name}")),
            1 => query.clone().prop_map(|query| format!("({query}) AS q")),
            1 => query.prop_map(|query| format!("LATERAL ({query}) AS l")),
        ];
        let join = prop::sample::select(vec![
            " CROSS JOIN ",
            " NATURAL JOIN ",
            ", ",
            " NATURAL LEFT JOIN ",
        ]);
        (item, prop::collection::vec((join, name()), 0..3)).prop_map(|(first, more)| {
            let joined = more.into_iter().map(|(join, name)| format!("{join}{name}"));
            format!("{first}{}", joined.collect::<String>())
        })
    }

    pub fn query() -> BoxedStrategy<String> {
        let least = prop_oneof![
            name().prop_map(|name| format!("SELECT * FROM {name}")),
            Just("SELECT 1".to_owned()),
            Just("VALUES (1, 'x')".to_owned()),
        ];
        least
            .prop_recursive(3, 24, 3, |inner| {
                let inner = inner.boxed();
                let select = (
                    expression(inner.clone()),
                    from(inner.clone()),
                    prop::option::of(expression(inner.clone())),
                    prop::sample::select(vec![
                        "",
                        " ORDER BY 1",
                        " LIMIT 3",
                        " GROUP BY 1",
                        " FOR UPDATE",
                        " OFFSET 2",
                    ]),
                );
                prop_oneof![
                    4 => select.prop_map(|(what, from, condition, tail)| {
                        let condition =
                            condition.map_or(String::new(), |one| format!(" WHERE {one}"));
                        format!("SELECT {what} FROM {from}{condition}{tail}")
                    }),
                    1 => (inner.clone(), inner.clone(), set_operation())
                        .prop_map(|(one, other, by)| format!("({one}) {by} ({other})")),
                    1 => (inner.clone(), inner)
                        .prop_map(|(one, other)| format!("WITH w AS ({one}) {other}")),
                ]
            })
            .boxed()
    }

    fn set_operation() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["UNION", "UNION ALL", "EXCEPT", "INTERSECT"])
    }

    pub fn statement() -> BoxedStrategy<String> {
        let query = query();
        let condition = || expression(query.clone());
        let change = prop_oneof![
            (name(), query.clone()).prop_map(|(t, q)| format!("INSERT INTO {t} {q}")),
            (name(), query.clone())
                .prop_map(|(t, q)| format!("INSERT INTO {t} (a) {q} ON CONFLICT DO NOTHING")),
            (name(), condition()).prop_map(|(t, e)| format!(
                "INSERT INTO {t} (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = {e}"
            )),
            (name(), condition(), condition())
                .prop_map(|(t, e, c)| format!("UPDATE {t} SET a = {e} WHERE {c}")),
            (name(), name(), condition())
                .prop_map(|(t, u, c)| format!("UPDATE {t} SET a = 1 FROM {u} AS u WHERE {c}")),
            (name(), condition())
                .prop_map(|(t, c)| format!("DELETE FROM {t} WHERE {c} RETURNING *")),
            (name(), name(), condition())
                .prop_map(|(t, u, c)| format!("DELETE FROM {t} USING {u} AS u WHERE {c}")),
            (name(), query.clone(), condition()).prop_map(|(t, q, c)| format!(
                "MERGE INTO {t} AS t USING ({q}) AS s ON {c} \
                 WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (a) VALUES (1)"
            )),
            name().prop_map(|t| format!("TRUNCATE {t}")),
            (name(), query.clone()).prop_map(|(t, q)| format!("CREATE TABLE {t} AS {q}")),
            (name(), query.clone()).prop_map(|(t, q)| format!("CREATE VIEW {t} AS {q}")),
        ];
        let change = change.boxed();
        prop_oneof![
            3 => query.clone(),
            3 => change.clone(),
            1 => (change.clone(), query).prop_map(|(change, query)| {
                match change.starts_with("CREATE") || change.starts_with("TRUNCATE") {
                    true => format!("{change}; {query}"),
                    false => format!("WITH c AS ({change}) {query}"),
                }
            }),
            1 => (change.clone(), change).prop_map(|(one, other)| format!("{one}; {other}")),
        ]
        .boxed()
    }
}

thread_local! {
    static ANALYSER: lockgate_sql::Analyser = shop::analyser();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn two_readers_agree_on_statements_of_a_grammar(text in grammar::statement()) {
        let mut explanations = Explanations::read();
        ANALYSER.with(|analyser| explanations.take(analyser, &text));
        prop_assert!(explanations.unexplained.is_empty(), "{}", explanations.unexplained.join("\n"));
    }

    /// The body of the fuzz target `differential`, on texts near to statements.
    #[test]
    fn two_readers_agree_or_one_refuses(
        text in grammar::statement(),
        cut in any::<prop::sample::Index>(),
        byte in prop::sample::select(b"'\"();*-/$\\ \n.,=0aE".to_vec()),
    ) {
        let mut text = text.into_bytes();
        let at = cut.index(text.len());
        text[at] = byte;
        let text = String::from_utf8(text).expect("ASCII");
        let mut explanations = Explanations::read();
        ANALYSER.with(|analyser| explanations.take(analyser, &text));
        prop_assert!(explanations.unexplained.is_empty(), "{}", explanations.unexplained.join("\n"));
    }
}

/// A grammar that neither reads would prove nothing.
#[test]
fn both_read_most_of_what_the_grammar_makes() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let read = (0..500)
        .filter(|_| {
            let text = grammar::statement()
                .new_tree(&mut runner)
                .expect("a statement")
                .current();
            ANALYSER.with(|analyser| compare(analyser, &text)).is_some()
        })
        .count();
    assert!(read > 400, "both read {read} of 500");
}
