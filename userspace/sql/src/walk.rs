//! From the tree of a text to what it needs.
//!
//! Every type of node has its `visit`, which takes the node apart field by
//! field without `..`, and [`node`] names every type without `_`: a grammar
//! with a new node, or a new field in an old one, does not compile until
//! somebody has said what it does. Numbers that stand for an enumeration pass
//! [`known`], so that a value that this grammar does not have is refused.

mod change;
mod code;
mod column;
mod condition;
mod copy;
mod define;
mod expression;
mod maintain;
mod node;
mod object;
mod plain;
mod query;
mod server;
mod session;
mod types;
mod xml_json;

use std::collections::BTreeSet;

use lockgate_command::{Refusal, Verb};
use pg_query::NodeEnum;
use pg_query::protobuf::{Node, ParseResult, RangeVar, RawStmt};

use crate::analysis::Facts;
use crate::names::{Name, Need, cut};
use crate::prescan::refusal;

type Walked = Result<(), Refusal>;

/// Most things that one text may need: a decision is made on each.
const NEEDS: usize = 4000;

/// What all statements of one text need.
pub(crate) fn statements(tree: &ParseResult) -> Result<Facts, Refusal> {
    let mut all = Facts::default();
    let ParseResult { version: _, stmts } = tree;
    all.several = stmts.len() > 1;
    for RawStmt {
        stmt,
        stmt_location: _,
        stmt_len: _,
    } in stmts
    {
        let mut walk = Walk::default();
        stmt.visit(&mut walk)?;
        let mut facts = walk.facts;
        let node = stmt.as_ref().and_then(|stmt| stmt.node.as_ref());
        facts.late = !facts.executes.is_empty() || !node.is_some_and(is_analysed);
        // PostgreSQL parses them all first but looks names up one by one.
        let depends = !facts.executes.is_empty() || facts.needs.iter().any(Need::depends_on_names);
        if all.names_change && depends {
            return Err(refusal(
                "names of objects after a change of search_path, role or temporary tables, in one string",
                "send the statements one by one, or write the names with their schemas",
            ));
        }
        all.take(facts);
        if all.needs.len() > NEEDS {
            return Err(refusal(
                format!("over {NEEDS} names of tables, functions and types in one text"),
                "split the statement",
            ));
        }
    }
    Ok(all)
}

/// What one statement needs.
pub(crate) fn statement(statement: NodeEnum) -> Result<Facts, Refusal> {
    let mut walk = Walk::default();
    Node {
        node: Some(statement),
    }
    .visit(&mut walk)?;
    Ok(walk.facts)
}

/// Whether PostgreSQL looks the names of a statement up before it runs
/// (`stmt_requires_parse_analysis`).
fn is_analysed(node: &NodeEnum) -> bool {
    matches!(
        node,
        NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_)
            | NodeEnum::DeclareCursorStmt(_)
            | NodeEnum::ExplainStmt(_)
            | NodeEnum::CreateTableAsStmt(_)
            | NodeEnum::CallStmt(_)
    )
}

impl Facts {
    fn take(&mut self, other: Facts) {
        let Facts {
            needs,
            columns,
            rows,
            all_columns,
            composes,
            several: _,
            names_change,
            catalogue_changes,
            prepares,
            executes,
            declares,
            fetches,
            copy_in,
            copy_out,
            late,
            secret,
            indifferent,
        } = other;
        self.needs.extend(needs);
        self.columns.extend(columns);
        self.rows.extend(rows);
        self.all_columns |= all_columns;
        self.composes |= composes;
        self.names_change |= names_change;
        self.catalogue_changes |= catalogue_changes;
        self.prepares.extend(prepares);
        self.executes.extend(executes);
        self.declares |= declares;
        self.fetches |= fetches;
        self.copy_in |= copy_in;
        self.copy_out = self.copy_out.and(copy_out);
        self.late |= late;
        self.secret |= secret;
        self.indifferent.extend(indifferent);
    }
}

/// The state of a walk through one statement.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) facts: Facts,
    /// Names of common table expressions that hide relations, innermost last.
    hidden: Vec<BTreeSet<String>>,
    /// Which relations of a FROM clause are locked.
    locked: Locked,
    /// The setting that the rows of `FROM pg_settings WHERE name = '…'` are of.
    setting: Option<String>,
    /// Whether an expression on the way read a column.
    reads_columns: bool,
}

/// What a locking clause says of the relations beneath a FROM clause.
#[derive(Clone, Default)]
enum Locked {
    #[default]
    None,
    All,
    /// Those called so.
    Only(BTreeSet<String>),
}

trait Visit {
    fn visit(&self, walk: &mut Walk) -> Walked;
}

impl<T: Visit> Visit for Option<T> {
    fn visit(&self, walk: &mut Walk) -> Walked {
        self.iter().try_for_each(|one| one.visit(walk))
    }
}

impl<T: Visit> Visit for Vec<T> {
    fn visit(&self, walk: &mut Walk) -> Walked {
        self.iter().try_for_each(|one| one.visit(walk))
    }
}

impl<T: Visit> Visit for Box<T> {
    fn visit(&self, walk: &mut Walk) -> Walked {
        (**self).visit(walk)
    }
}

impl Walk {
    /// If `node` is a literal, its value changes nothing of what the walk says.
    fn indifferent(&mut self, node: &Node) {
        if let Some(NodeEnum::AConst(literal)) = &node.node {
            self.facts.indifferent.insert(literal.location);
        }
    }

    pub(crate) fn need(&mut self, need: Need) {
        self.facts.needs.insert(need);
    }

    fn target(&mut self, verb: Verb) {
        self.need(Need::Target(verb));
    }

    fn database(&mut self, verb: Verb) {
        self.need(Need::Database(verb));
    }

    fn session(&mut self) {
        self.target(Verb::Session);
    }

    /// A definition that others rest on is another one afterwards.
    fn defines(&mut self) {
        self.facts.catalogue_changes = true;
    }

    /// Code enters the database.
    fn code(&mut self) {
        self.database(Verb::Code);
        self.defines();
    }

    /// How rows are kept or found: code, if it is not PostgreSQL's own.
    fn access_method(&mut self, name: &str) {
        if !is_access_method(name) {
            self.database(Verb::Opaque);
        }
    }

    fn column(&mut self, name: &str) {
        self.facts.columns.insert(cut(name).to_owned());
    }

    /// `verb` on the relation that `relation` names; never a common table
    /// expression.
    fn relation(&mut self, verb: Verb, relation: &RangeVar) {
        let RangeVar {
            catalogname: _,
            schemaname,
            relname,
            inh: _,
            relpersistence: _,
            alias,
            location: _,
        } = relation;
        let called = alias.as_ref().map_or(relname, |alias| &alias.aliasname);
        self.facts.rows.insert(cut(called).to_owned());
        if alias
            .as_ref()
            .is_some_and(|alias| !alias.colnames.is_empty())
        {
            // Its columns have other names here.
            self.facts.all_columns = true;
        }
        self.need(Need::Relation(verb, name(schemaname, relname)));
    }

    fn relation_if(&mut self, verb: Verb, relation: &Option<RangeVar>) {
        if let Some(relation) = relation {
            self.relation(verb, relation);
        }
    }

    fn creates(&mut self, relation: &Option<RangeVar>) {
        let Some(relation) = relation else { return };
        let RangeVar {
            catalogname: _,
            schemaname,
            relname,
            inh: _,
            relpersistence,
            alias: _,
            location: _,
        } = relation;
        let temporary =
            relpersistence == "t" || schemaname == "pg_temp" || schemaname.starts_with("pg_temp_");
        self.need(Need::NewRelation {
            name: name(schemaname, relname),
            temporary,
        });
        self.defines();
        // A temporary relation comes before all others of its name.
        self.facts.names_change |= temporary;
    }

    /// Visits a query of its own, in which no name of the outer one is hidden.
    fn apart(&mut self, query: &impl Visit) -> Walked {
        let hidden = std::mem::take(&mut self.hidden);
        let result = query.visit(self);
        self.hidden = hidden;
        result
    }

    fn hides(&self, name: &str) -> bool {
        self.hidden.iter().any(|names| names.contains(cut(name)))
    }
}

/// PostgreSQL's own, those of listed extensions (only superusers make any), and
/// none, which is the default.
fn is_access_method(name: &str) -> bool {
    matches!(
        name,
        "" | "heap"
            | "btree"
            | "hash"
            | "gist"
            | "gin"
            | "brin"
            | "spgist"
            | "rtree"
            | "hnsw"
            | "ivfflat"
    )
}

pub(crate) fn name(schema: &str, name: &str) -> Name {
    Name::new(Some(schema).filter(|schema| !schema.is_empty()), name)
}

/// A name from its parts. A database in front is dropped: PostgreSQL refuses
/// any but the current one there.
pub(crate) fn qualified(parts: &[Node]) -> Result<Name, Refusal> {
    let parts = strings(parts)?;
    match parts[..] {
        [name] => Ok(Name::new(None, name)),
        [schema, name] | [_, schema, name] => Ok(Name::new(Some(schema), name)),
        _ => Err(refusal(
            "a name of more than three parts",
            "write schema.name",
        )),
    }
}

fn strings(nodes: &[Node]) -> Result<Vec<&str>, Refusal> {
    nodes.iter().map(string).collect()
}

pub(crate) fn string(node: &Node) -> Result<&str, Refusal> {
    match &node.node {
        Some(NodeEnum::String(string)) => Ok(&string.sval),
        _ => Err(refusal(
            "a name that is not one",
            "report it with the statement",
        )),
    }
}

/// The items of a list, or the node as the only one.
pub(crate) fn items(node: &Node) -> &[Node] {
    match &node.node {
        Some(NodeEnum::List(list)) => &list.items,
        _ => std::slice::from_ref(node),
    }
}

/// A number of an enumeration, if this grammar has it.
fn known<T: TryFrom<i32>>(number: i32) -> Result<T, Refusal> {
    T::try_from(number).map_err(|_| {
        refusal(
            "a construct that is newer than lockgate's grammar",
            "report it with the statement",
        )
    })
}

fn unknown_node() -> Refusal {
    refusal(
        "a construct that lockgate does not know",
        "report it with the statement",
    )
}
