use std::collections::BTreeMap;

use lockgate_command::{Access, Resource, ResourceKind, Verb};

use crate::names::cut;

/// The tagged columns of a target.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    /// Schema and table to columns; each with the database it is of, none
    /// where it is of all.
    columns: BTreeMap<(String, String), Vec<Tagged>>,
}

/// A database, if it is of one only, and a column.
type Tagged = (Option<String>, String);

impl Tags {
    /// From `target.tags`. An entry that does not name a column as
    /// `schema.table.column` or `database.schema.table.column` is skipped: the
    /// configuration's own check refuses it before.
    pub fn new(tags: &[lockgate_config::Tag]) -> Self {
        let mut columns: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for tag in tags {
            let names: Vec<&str> = tag.columns.split('.').map(cut).collect();
            let (database, schema, table, column) = match names[..] {
                [schema, table, column] => (None, schema, table, column),
                [database, schema, table, column] => (Some(database), schema, table, column),
                _ => continue,
            };
            columns
                .entry((schema.to_owned(), table.to_owned()))
                .or_default()
                .push((database.map(str::to_owned), column.to_owned()));
        }
        Self { columns }
    }

    /// Whether no column is tagged.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// `view` of every tagged column of `database`: what a command needs that
    /// may touch any of them.
    pub fn view_accesses(&self, database: &str) -> Vec<Access> {
        let of_table = |(schema, table): &(String, String)| {
            self.of(database, schema, table)
                .map(|column| view(database, schema, table, column))
                .collect::<Vec<_>>()
        };
        self.columns.keys().flat_map(of_table).collect()
    }

    /// Schemas with a tagged table of that name.
    pub(crate) fn schemas_of(&self, table: &str) -> impl Iterator<Item = &str> {
        self.columns
            .keys()
            .filter(move |(_, name)| name == table)
            .map(|(schema, _)| schema.as_str())
    }

    /// The tagged columns of one table.
    pub(crate) fn of(
        &self,
        database: &str,
        schema: &str,
        table: &str,
    ) -> impl Iterator<Item = &str> {
        self.columns
            .get(&(schema.to_owned(), table.to_owned()))
            .into_iter()
            .flatten()
            .filter(move |(of, _)| of.as_deref().is_none_or(|of| of == database))
            .map(|(_, column)| column.as_str())
    }
}

/// The access that seeing a column is.
pub(crate) fn view(database: &str, schema: &str, table: &str, column: &str) -> Access {
    Access::new(
        Verb::View,
        Resource::new(ResourceKind::Column, [database, schema, table, column]),
    )
}
