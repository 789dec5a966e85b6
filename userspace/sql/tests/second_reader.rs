//! Another parser reads the same statements. Where it finds a relation that
//! the walk does not, one of the two is wrong, and a line here says which.

mod shop;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use lockgate_command::{ResourceKind, Verb};
use lockgate_sql::{Catalogue, Tags, resolve};
use sqlparser::ast::visit_relations;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// What the second reader says and is not so, by the part of the statement
/// that misleads it.
const MISTAKEN: &[(&str, &str)] = &[
    (
        "FROM generate_series",
        "takes a function in FROM for a relation",
    ),
    ("FROM lower(", "takes a function in FROM for a relation"),
    ("FROM charge(", "takes a function in FROM for a relation"),
    ("FROM pg_", "takes a function in FROM for a relation"),
    (
        "WITH ",
        "takes the name of a common table expression for a relation",
    ),
    (
        "SET search_path",
        "reads on where names have changed, which is refused",
    ),
    (
        "SET ROLE",
        "reads on where names have changed, which is refused",
    ),
    (
        "set_config(",
        "reads on where names have changed, which is refused",
    ),
];

#[test]
fn a_second_reader_finds_no_relation_more() {
    let analyser = shop::analyser();
    let (mut compared, mut unexplained) = (0, Vec::new());
    let mut used = BTreeSet::new();
    for line in include_str!("statements.txt").lines() {
        let Some((text, _)) = line.split_once(" => ") else {
            continue;
        };
        let text = text.replace("\\n", "\n");
        let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, &text) else {
            continue;
        };
        compared += 1;
        let mut theirs = BTreeSet::new();
        let _ = visit_relations(&statements, |name| {
            let last = name.0.last().and_then(|part| part.as_ident());
            theirs.extend(last.map(|ident| match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            }));
            ControlFlow::<()>::Continue(())
        });
        let analysis = shop::analyse(&analyser, &text);
        let session = shop::session(shop::usual_path());
        let resolved = resolve(&analysis, &Catalogue::default(), &session, &Tags::default());
        let ours: BTreeSet<String> = resolved
            .statement
            .accesses
            .iter()
            .filter(|access| {
                access.resource.kind() == ResourceKind::Table && access.verb != Verb::View
            })
            .map(|access| access.resource.path()[2].clone())
            .collect();
        let more: Vec<_> = theirs
            .difference(&ours)
            // Ours are cut as the server cuts them.
            .filter(|name| name.len() <= 63)
            .collect();
        if more.is_empty() {
            continue;
        }
        match MISTAKEN.iter().find(|(part, _)| text.contains(part)) {
            Some((part, _)) => used.insert(*part),
            None => {
                unexplained.push(format!("{text}: {more:?}"));
                false
            }
        };
    }
    assert!(
        compared > 300,
        "only {compared} statements were read by both"
    );
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    let unused: Vec<_> = MISTAKEN
        .iter()
        .filter(|(part, _)| !used.contains(part))
        .map(|(part, _)| part)
        .collect();
    assert!(
        unused.is_empty(),
        "explanations that explain nothing: {unused:?}"
    );
}
