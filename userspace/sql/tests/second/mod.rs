//! Another parser, sqlparser, reads the same text: where both can, both must
//! name the same relations, and the same verbs where rows or tables change.
#![allow(dead_code)] // Each test binary uses its part.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

use lockgate_command::{ResourceKind, Verb};
use lockgate_sql::{Analyser, Catalogue, Reading, SearchPath, SessionNames, Tags, resolve};
use pg_query::NodeEnum;
use sqlparser::ast::{
    CopySource, Expr, MergeAction, ObjectName, OnConflictAction, OnInsert, Query, Select,
    Statement, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Longest text that is compared, in bytes. sqlparser ends the process on long
/// chains of operators.
const LONGEST: usize = 8192;

/// What one reader found and the other did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Relations that only sqlparser found.
    Theirs(BTreeSet<String>),
    /// Relations that only the walk found.
    Ours(BTreeSet<String>),
    /// Verbs, sqlparser's and the walk's.
    Verbs(BTreeSet<&'static str>, BTreeSet<&'static str>),
}

impl Difference {
    /// The word by which the list of explanations names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Theirs(_) => "theirs",
            Self::Ours(_) => "ours",
            Self::Verbs(..) => "verbs",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Theirs(names) => write!(f, "theirs {names:?}"),
            Self::Ours(names) => write!(f, "ours {names:?}"),
            Self::Verbs(theirs, ours) => write!(f, "verbs {theirs:?} {ours:?}"),
        }
    }
}

/// How the two differ on `text`; none if one of them cannot read it.
pub fn compare(analyser: &Analyser, text: &str) -> Option<Vec<Difference>> {
    if text.len() > LONGEST {
        return None;
    }
    let (done, waits) = std::sync::mpsc::channel();
    let deliver = Box::new(move |analysis| {
        let _ = done.send(analysis);
    });
    analyser.analyse(text.as_bytes(), Reading::default(), deliver);
    let analysis = waits.recv().expect("every text gets an answer");
    if analysis.refusal().is_some() {
        return None;
    }
    let statements = Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(40)
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_statements())
        .ok()?;
    let session = SessionNames {
        database: "d".into(),
        user: "u".into(),
        search_path: SearchPath::Known(vec!["pg_catalog".into(), "public".into()]),
    };
    let resolved = resolve(&analysis, &Catalogue::default(), &session, &Tags::default());
    let (mut names, mut verbs) = (BTreeSet::new(), BTreeSet::new());
    for access in &resolved.statement.accesses {
        // A sequence is named in a string.
        if access.resource.kind() != ResourceKind::Table || access.verb == Verb::UseSequence {
            continue;
        }
        names.insert(access.resource.path()[2].clone());
        verbs.extend(match access.verb {
            Verb::Insert => Some("insert"),
            Verb::Update => Some("update"),
            Verb::Delete => Some("delete"),
            Verb::Truncate => Some("truncate"),
            Verb::Create => Some("create"),
            _ => None,
        });
    }
    let mut second = SecondReader::default();
    let _ = statements.visit(&mut second);
    let mut differences = Vec::new();
    let more = |one: &BTreeSet<String>, other: &BTreeSet<String>| -> BTreeSet<String> {
        one.difference(other).cloned().collect()
    };
    let theirs = more(&second.names, &names);
    if !theirs.is_empty() {
        differences.push(Difference::Theirs(theirs));
    }
    // Of other statements sqlparser says little.
    if only_rows(text) {
        let ours = more(&names, &second.names);
        if !ours.is_empty() {
            differences.push(Difference::Ours(ours));
        }
        if verbs != second.verbs {
            differences.push(Difference::Verbs(second.verbs, verbs));
        }
    }
    Some(differences)
}

/// Whether the text reads and changes rows and defines nothing.
fn only_rows(text: &str) -> bool {
    let Ok(tree) = pg_query::parse(text, 0) else {
        return false;
    };
    tree.protobuf.stmts.iter().all(|statement| {
        let node = statement.stmt.as_ref().and_then(|node| node.node.as_ref());
        matches!(
            node,
            Some(
                NodeEnum::SelectStmt(_)
                    | NodeEnum::InsertStmt(_)
                    | NodeEnum::UpdateStmt(_)
                    | NodeEnum::DeleteStmt(_)
                    | NodeEnum::MergeStmt(_)
                    | NodeEnum::TruncateStmt(_)
                    | NodeEnum::CopyStmt(_)
                    | NodeEnum::CreateTableAsStmt(_)
                    | NodeEnum::ViewStmt(_)
            )
        )
    })
}

/// What sqlparser's tree names.
#[derive(Default)]
struct SecondReader {
    names: BTreeSet<String>,
    verbs: BTreeSet<&'static str>,
    /// Names of common table expressions, by query.
    hidden: Vec<BTreeSet<String>>,
    /// A function in FROM, which is visited as a relation next.
    function: Option<ObjectName>,
}

/// The last part as the server folds and cuts it.
fn folded(name: &ObjectName) -> Option<String> {
    let last = name.0.last()?.as_ident()?;
    let mut last = match last.quote_style {
        Some(_) => last.value.clone(),
        None => last.value.to_lowercase(),
    };
    last.truncate(last.floor_char_boundary(63));
    Some(last)
}

impl Visitor for SecondReader {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let names = query.with.iter().flat_map(|with| &with.cte_tables);
        let name = |ident: &sqlparser::ast::Ident| folded(&ObjectName::from(ident.clone()));
        self.hidden
            .push(names.filter_map(|cte| name(&cte.alias.name)).collect());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let Some(into) = &select.into {
            for target in &into.targets {
                let name = match target {
                    Expr::Identifier(name) => ObjectName::from(name.clone()),
                    Expr::CompoundIdentifier(parts) => ObjectName::from(parts.clone()),
                    _ => continue,
                };
                self.names.extend(folded(&name));
            }
            self.verbs.insert("create");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name,
            args: Some(_),
            ..
        } = factor
        {
            self.function = Some(name.clone());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        if self.function.take().as_ref() == Some(name) {
            return ControlFlow::Continue(());
        }
        let hides = |last: &String| {
            name.0.len() == 1 && self.hidden.iter().any(|names| names.contains(last))
        };
        let last = folded(name).filter(|last| !hides(last));
        self.names.extend(last);
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        let verb = match statement {
            Statement::Insert(insert) => {
                if let Some(OnInsert::OnConflict(conflict)) = &insert.on
                    && matches!(conflict.action, OnConflictAction::DoUpdate(_))
                {
                    self.verbs.insert("update");
                }
                "insert"
            }
            Statement::Update(_) => "update",
            Statement::Delete(_) => "delete",
            Statement::Truncate(_) => "truncate",
            Statement::CreateTable(_) | Statement::CreateView(_) => "create",
            Statement::Copy {
                source: CopySource::Table { table_name, .. },
                to,
                ..
            } => {
                self.names.extend(folded(table_name));
                match to {
                    true => return ControlFlow::Continue(()),
                    false => "insert",
                }
            }
            Statement::Merge(merge) => {
                for clause in &merge.clauses {
                    self.verbs.extend(match clause.action {
                        MergeAction::Insert(_) => Some("insert"),
                        MergeAction::Update(_) => Some("update"),
                        MergeAction::Delete { .. } => Some("delete"),
                        MergeAction::DoNothing { .. } => None,
                    });
                }
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        self.verbs.insert(verb);
        ControlFlow::Continue(())
    }
}

/// A list of differences that are known, each with the reader that is right.
pub struct Explanations {
    lines: Vec<(String, String)>,
    used: BTreeSet<usize>,
    /// Differences that no line explains.
    pub unexplained: Vec<String>,
    /// Texts that both have read.
    pub compared: usize,
}

impl Explanations {
    /// The list beside this file.
    pub fn read() -> Self {
        let list = include_str!("differences.txt");
        let lines = list.lines().filter(|line| !line.starts_with('#'));
        let parts = |line: &str| {
            let mut parts = line.splitn(3, " | ").map(str::trim);
            let line = (parts.next()?.to_owned(), parts.next()?.to_lowercase());
            parts.next().map(|_reason| line)
        };
        Self {
            lines: lines.filter_map(parts).collect(),
            used: BTreeSet::new(),
            unexplained: Vec::new(),
            compared: 0,
        }
    }

    /// Compares one text, and remembers a difference that nothing explains.
    pub fn take(&mut self, analyser: &Analyser, text: &str) {
        let Some(differences) = compare(analyser, text) else {
            return;
        };
        self.compared += 1;
        if differences.is_empty() {
            return;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let plain = words.join(" ").to_lowercase();
        for difference in differences {
            let mut lines = self.lines.iter();
            let explains = |(kind, part): &(String, String)| {
                kind == difference.kind() && plain.contains(part.as_str())
            };
            match lines.position(explains) {
                Some(line) => {
                    self.used.insert(line);
                }
                None => self.unexplained.push(format!("{difference}: {plain:.300}")),
            }
        }
    }

    /// Lines that explained nothing.
    pub fn unused(&self) -> Vec<&str> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter(|(place, _)| !self.used.contains(place))
            .map(|(_, (_, part))| part.as_str())
            .collect()
    }
}
