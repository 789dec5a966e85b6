//! Whatever a client sends is answered, and no literal stays in a shape.

mod shop;

use lockgate_command::{Access, Verb};
use lockgate_sql::{Catalogue, SearchPath, Tags, resolve};
use proptest::prelude::*;

/// Pieces that make statements, or nearly.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "SELECT",
            "FROM",
            "WHERE",
            "INSERT INTO",
            "VALUES",
            "UPDATE",
            "SET",
            "DELETE",
            "WITH",
            "AS",
            "(",
            ")",
            ",",
            ";",
            "*",
            ".",
            "orders",
            "customers",
            "ssn",
            "id",
            "1",
            "'a'",
            "$1",
            "$$b$$",
            "E'\\''",
            "--",
            "/*",
            "*/",
            "\n",
            "::",
            "mood",
            "=",
            "+",
            "CASE",
            "WHEN",
            "THEN",
            "END",
            "CREATE TABLE",
            "DROP",
            "ALTER",
            "COPY",
            "TO",
            "STDOUT",
            "JOIN",
            "ON",
            "USING",
            "UNION",
            "search_path",
            "charge",
            "[",
            "]",
            "\"x\"",
            "U&'\\0061'",
            "ORDER BY",
            "LIMIT",
            "RETURNING",
            "EXPLAIN",
            "GRANT",
            "é",
            "\u{feff}",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn every_text_is_answered(pieces in prop::collection::vec(piece(), 0..25)) {
        let analyser = shop::analyser();
        let analysis = shop::analyse(&analyser, &pieces.join(" "));
        for path in [shop::usual_path(), SearchPath::Unknown] {
            let resolved =
                resolve(&analysis, &shop::catalogue(), &shop::session(path), &shop::tags());
            let statement = &resolved.statement;
            prop_assert_eq!(statement.accesses.is_empty(), statement.refusal.is_some());
            prop_assert!(statement.refusal.is_none() || statement.writes);
        }
    }

    /// What is said exactly of tagged columns is part of what is said by name.
    #[test]
    fn what_is_shown_is_in_the_result_and_was_named(pieces in prop::collection::vec(piece(), 0..25)) {
        let analyser = shop::analyser();
        let analysis = shop::analyse(&analyser, &format!("SELECT {}", pieces.join(" ")));
        let of = |path| {
            resolve(&analysis, &shop::catalogue(), &shop::session(path), &shop::tags())
        };
        let (known, unknown) = (of(shop::usual_path()), of(SearchPath::Unknown));
        let statement = &known.statement;
        for shown in &statement.shown {
            prop_assert!(Some(shown.output) < statement.outputs);
        }
        prop_assert!(unknown.statement.shown.is_empty());
        let shown = statement.shown.iter().map(|shown| &shown.column);
        let sensitive = statement.accesses.iter().filter(|access| access.verb.group() == "sensitive");
        for column in shown.chain(sensitive.map(|access| &access.resource)) {
            let view = Access::new(Verb::View, column.clone());
            prop_assert!(unknown.statement.accesses.contains(&view), "{}", view);
        }
    }

    /// Not knowing the path, or the catalogue, never needs less.
    #[test]
    fn to_know_less_is_to_need_more(pieces in prop::collection::vec(piece(), 0..25)) {
        let analyser = shop::analyser();
        let analysis = shop::analyse(&analyser, &pieces.join(" "));
        let of = |path, catalogue: &Catalogue| {
            resolve(&analysis, catalogue, &shop::session(path), &Tags::default())
        };
        let known = of(shop::usual_path(), &shop::catalogue());
        let unknown = of(SearchPath::Unknown, &shop::catalogue());
        let missing = |access: &&lockgate_command::Access| {
            // What would be made in public is made somewhere.
            !unknown.statement.accesses.contains(access)
                && !access.resource.path().get(1).is_some_and(|schema| schema == "public" || schema == "?")
        };
        prop_assert_eq!(known.statement.accesses.iter().find(missing), None);
    }

    #[test]
    fn no_literal_stays(secret in "[0-9]{6}[a-z]{6}", number in 100_000_000u64..) {
        let analyser = shop::analyser();
        for text in [
            format!("SELECT '{secret}', E'{secret}', $q${secret}$q$, U&'{secret}', {number}"),
            format!("INSERT INTO orders VALUES ('{secret}', {number}, -{number}.5, B'01', X'ff')"),
            format!("ALTER ROLE clerk PASSWORD '{secret}'"),
            format!("CREATE USER MAPPING FOR clerk SERVER s OPTIONS (password '{secret}')"),
            format!("SELECT 1 /* {secret} */ -- {number}"),
            format!("COPY orders FROM '{secret}' WITH (DELIMITER '{number}')"),
            format!("SET app.secret = '{secret}'"),
            format!("SELECT '{secret}"),
            format!("SELECT interval '{secret}' day, date '{secret}', bit '{number}'"),
        ] {
            let resolved =
                shop::meaning(&analyser, &text, shop::usual_path(), &Tags::default());
            let shape = resolved.statement.shape.as_deref().unwrap_or_default();
            prop_assert!(!shape.contains(&secret) && !shape.contains(&number.to_string()), "{}", shape);
        }
    }
}

#[test]
fn shapes_are_for_people() {
    let analyser = shop::analyser();
    let shape = |text: &str| {
        let resolved = shop::meaning(&analyser, text, shop::usual_path(), &Tags::default());
        resolved.statement.shape.as_deref().map(str::to_owned)
    };
    assert_eq!(
        shape("SELECT  id\nFROM orders -- x\nWHERE a='b' AND c = $1 LIMIT 10").as_deref(),
        Some("SELECT id FROM orders WHERE a=$2 AND c = $1 LIMIT $3")
    );
    assert_eq!(shape("CREATE ROLE x PASSWORD 'y'"), None);
    assert_eq!(shape("SELEC"), None);
}
