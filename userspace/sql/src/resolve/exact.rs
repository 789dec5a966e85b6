//! The exact uses of tagged columns, in place of those by name.

use std::sync::Arc;

use lockgate_command::{Access, Resource, ResourceKind, Verb};

use super::relations::all_on;
use super::{CopyOut, Resolved, Resolver, SearchPath, SessionNames};
use crate::analysis::{Analysis, Facts};
use crate::catalogue::{Catalogue, Relation, RelationKind, is_system};
use crate::lineage::{self, Lineage, Root, Table, TableColumn, Tables, Traced, Unsure};
use crate::names::Name;
use crate::tags::Tags;

/// The same as by names, with less of what tagged columns need; none where
/// that is not certain.
pub(super) fn resolve(
    analysis: &Analysis,
    catalogue: &Catalogue,
    session: &SessionNames,
    tags: &Tags,
) -> Option<Resolved> {
    let lineage = analysis.lineage.as_deref()?;
    if analysis.facts.copy_out == CopyOut::Other {
        // Nobody could mask that.
        return None;
    }
    let SearchPath::Known(path) = &session.search_path else {
        return None;
    };
    let known = Known {
        catalogue,
        path,
        database: &session.database,
        tags,
    };
    let traced = lineage::trace(lineage, &known).ok()?;
    let mut resolver = Resolver::new(
        catalogue,
        &session.database,
        &session.search_path,
        tags,
        &analysis.facts,
    );
    resolver.lineage = Some(lineage);
    for need in &analysis.facts.needs {
        resolver.need(need);
    }
    let Traced {
        shown,
        outputs,
        view,
        filter,
    } = traced;
    // Whoever acts on what a predicate let through can tell it to others.
    let comparing =
        match matches!(lineage.root, Root::Query(_)) && resolver.accesses.iter().all(only_reads) {
            true => Verb::Filter,
            false => Verb::View,
        };
    for column in view {
        resolver.add(Verb::View, column);
    }
    for column in filter {
        let viewed = Access::new(Verb::View, column);
        if !resolver.seen.contains(&viewed) {
            resolver.add(comparing, viewed.resource);
        }
    }
    let Resolved { statement, effects } = resolver.finish(analysis);
    let mut statement = Arc::unwrap_or_clone(statement);
    statement.shown = shown;
    statement.outputs = Some(outputs);
    Some(Resolved {
        statement: statement.into(),
        effects,
    })
}

/// Whether nothing but reading comes of an access, for anybody to see.
fn only_reads(access: &Access) -> bool {
    match access.verb {
        Verb::Session | Verb::Describe | Verb::Select | Verb::Inspect | Verb::View => true,
        // FOR UPDATE; not the advisory locks, which are of the database.
        Verb::Lock => access.resource.kind() == ResourceKind::Table,
        _ => false,
    }
}

impl Lineage {
    /// What of a statement with these `facts` this does not tell of relations
    /// that are touched by `verb`, so that names decide.
    pub(super) fn left_to_names<'a>(&'a self, verb: Verb, facts: &'a Facts) -> Option<&'a Facts> {
        match (&self.root, verb) {
            (Root::Query(_) | Root::Table { .. }, Verb::Select | Verb::Lock) => None,
            (
                Root::Returning { rest, .. },
                Verb::Select
                | Verb::Insert
                | Verb::Update
                | Verb::UpdateAll
                | Verb::Delete
                | Verb::DeleteAll,
            ) => Some(rest),
            _ => Some(facts),
        }
    }
}

/// Relations whose meaning is certain.
struct Known<'a> {
    catalogue: &'a Catalogue,
    path: &'a [String],
    database: &'a str,
    tags: &'a Tags,
}

impl Known<'_> {
    /// The tagged columns that the values of a column may be of: its own, and
    /// those of the same name up and down the inheritance.
    fn tagged(&self, relatives: &[&Relation], name: &str) -> Vec<Resource> {
        let of = |relative: &&Relation| {
            let (schema, table) = (&relative.schema, &relative.name);
            let mut columns = self.tags.of(self.database, schema, table);
            columns.any(|column| column == name).then(|| {
                let path = [self.database, schema, table, name];
                Resource::new(ResourceKind::Column, path)
            })
        };
        relatives.iter().filter_map(of).collect()
    }
}

impl Tables for Known<'_> {
    fn table(&self, name: &Name) -> Result<Table<'_>, Unsure> {
        let relation = match &name.schema {
            Some(schema) => self.catalogue.relation(schema, &name.name),
            None => {
                let mut all = all_on(self.catalogue, self.path, &name.name);
                all.next().filter(|_| all.next().is_none())
            }
        };
        let relation = relation.ok_or(Unsure)?;
        let has_columns = match relation.kind {
            RelationKind::Table
            | RelationKind::View
            | RelationKind::MaterializedView
            | RelationKind::ForeignTable => !is_system(&relation.schema),
            RelationKind::Sequence
            | RelationKind::Index
            | RelationKind::Composite
            | RelationKind::Toast => false,
        };
        let relatives = self.catalogue.relatives(relation);
        let columns = relation.columns.iter().map(|column| TableColumn {
            name: &column.name,
            generated: column.generated,
            type_name: &column.type_name,
            tagged: self.tagged(&relatives, &column.name),
        });
        Ok(Table {
            schema: &relation.schema,
            name: &relation.name,
            columns: has_columns.then(|| columns.collect()),
        })
    }
}
