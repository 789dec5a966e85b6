//! EXECUTE is what is behind the name.

mod shop;

use std::sync::Arc;

use lockgate_sql::{Analysis, Resolved, resolve_executing};

/// `EXECUTE p`, where these give the name `p`.
fn executing(texts: &[&str]) -> Resolved {
    let analyser = shop::analyser();
    let prepared = |text: &&str| shop::analyse(&analyser, text).prepares()[0].1.clone();
    let prepared: Vec<Arc<Analysis>> = texts.iter().map(prepared).collect();
    let execute = shop::analyse(&analyser, "EXECUTE p");
    assert_eq!(execute.executes().collect::<Vec<_>>(), ["p"]);
    let session = shop::session(shop::usual_path());
    let (catalogue, tags) = (shop::catalogue(), shop::tags());
    resolve_executing(&execute, Some(&prepared), &catalogue, &session, &tags)
}

#[test]
fn it_needs_what_each_statement_of_the_name_needs() {
    let resolved = executing(&[
        "PREPARE p AS SELECT id FROM orders",
        "PREPARE p AS DELETE FROM orders",
    ]);
    let words = shop::words(&resolved);
    assert_eq!(
        words,
        "delete public.orders, delete_all public.orders, select public.orders"
    );
    assert!(resolved.statement.writes);
}

/// Even where the text alone would show how: by EXECUTE nothing is masked.
#[test]
fn a_tagged_column_behind_a_name_needs_view() {
    let resolved = executing(&["PREPARE p AS SELECT ssn FROM customers"]);
    let words = shop::words(&resolved);
    assert_eq!(words, "select public.customers, view public.customers.ssn");
    assert!(resolved.effects.touches_tagged_relation);
}
