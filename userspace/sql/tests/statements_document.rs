//! docs/statements.md says what every command needs. It is the list that a
//! person reads, and the input of this test.

mod shop;

use std::collections::BTreeSet;

use pg_query::NodeEnum;

const DOCUMENT: &str = include_str!("../../../docs/statements.md");

/// A row that is not so is printed as it should be.
#[test]
fn every_row_is_so() {
    let analyser = shop::analyser();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in rows() {
        let resolved = shop::meaning(&analyser, row.example, shop::usual_path(), &shop::tags());
        let needs = shop::words(&resolved);
        let head = match row.node {
            Some(_) => format!("| {} | {}", row.title, statement_node(row.example)),
            None => format!("| {}", row.title),
        };
        let line = format!("{head} | `{}` | {needs} |", row.example);
        count += 1;
        if line.split_whitespace().ne(row.line.split_whitespace()) {
            wrong.push(line);
        }
    }
    assert!(count > 350, "the document has only {count} examples");
    assert!(
        wrong.is_empty(),
        "{} of {count} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The walk names each kind of node that the grammar makes, and so must the
/// examples: as a statement, or inside one.
#[test]
fn every_kind_of_node_has_an_example() {
    let trees: String = rows()
        .map(|row| format!("{:?}", parsed(row.example)).to_lowercase())
        .collect();
    let seen = |kind: &str| {
        let kind = kind.to_lowercase();
        trees.contains(&format!("({kind}(")) || trees.contains(&format!("({kind} {{"))
    };
    let walk = include_str!("../src/walk/node.rs");
    let walked = walk.lines().filter_map(|line| {
        let line = line.trim().strip_prefix("NodeEnum::")?;
        Some(line.split_once("(node) => node.visit(walk)")?.0)
    });
    let (seen, unseen): (Vec<_>, Vec<_>) = walked.partition(|kind| seen(kind));
    assert_eq!(unseen, [""; 0]);
    assert!(seen.len() > 200, "{}", seen.len());

    // What is listed is in its own examples.
    for row in rows().filter(|row| row.node.is_none()) {
        let tree = format!("{:?}", parsed(row.example)).to_lowercase();
        let kind = row.title_or_above.to_lowercase();
        assert!(tree.contains(&kind), "{kind}: {}", row.example);
    }
}

struct Row<'a> {
    line: &'a str,
    /// The first cell, empty where it is that of the row above.
    title: &'a str,
    title_or_above: &'a str,
    /// The second cell of a command.
    node: Option<&'a str>,
    example: &'a str,
}

fn rows() -> impl Iterator<Item = Row<'static>> {
    let mut above = "";
    DOCUMENT.lines().filter_map(move |line| {
        let cells = line.strip_prefix("| ")?.strip_suffix(" |")?;
        // Only examples have `|` in them, and only between backquotes.
        let (head, rest) = cells.split_once('`')?;
        let (example, _) = rest.rsplit_once("` | ")?;
        let mut head = head.split('|').map(str::trim);
        let title = head.next()?;
        let node = head.next().filter(|node| !node.is_empty());
        if !title.is_empty() {
            above = title;
        }
        Some(Row {
            line,
            title,
            title_or_above: above,
            node,
            example,
        })
    })
}

fn parsed(text: &str) -> pg_query::protobuf::ParseResult {
    pg_query::parse(text, 0)
        .expect("examples can be read")
        .protobuf
}

fn statement_node(text: &str) -> String {
    let tree = parsed(text);
    let nodes: BTreeSet<String> = tree
        .stmts
        .iter()
        .filter_map(|statement| statement.stmt.as_ref()?.node.as_ref().map(name))
        .collect();
    nodes.into_iter().collect::<Vec<_>>().join(", ")
}

fn name(node: &NodeEnum) -> String {
    let text = format!("{node:?}");
    text.split_once('(')
        .map_or(text.clone(), |parts| parts.0.to_owned())
}
