use std::collections::BTreeMap;

use lockgate_command::{Access, Resource, ResourceKind, Verb};
use lockgate_config::Mask;

use crate::names::cut;

/// The mask of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagMask<'a> {
    /// How values are shown.
    pub mask: Mask,
    /// The tag whose key hashes them; none for other masks.
    pub key: Option<&'a str>,
}

/// The tagged columns of a target.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    /// Schema and table to columns.
    columns: BTreeMap<(String, String), Vec<Tagged>>,
}

#[derive(Clone, Debug)]
struct Tagged {
    /// Of this database only; of all if there is none.
    database: Option<String>,
    column: String,
    tag: String,
    mask: Option<Mask>,
}

impl Tagged {
    fn mask(&self) -> Option<TagMask<'_>> {
        let mask = self.mask?;
        let key = (mask == Mask::Hash).then_some(self.tag.as_str());
        Some(TagMask { mask, key })
    }
}

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
                .push(Tagged {
                    database: database.map(str::to_owned),
                    column: column.to_owned(),
                    tag: tag.tag.clone(),
                    mask: tag.mask,
                });
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

    /// How the values of `column` are shown to those who may not view them.
    /// None where they cannot be shown at all: one of its tags has no mask, or
    /// its tags have several.
    pub fn mask(&self, column: &Resource) -> Option<TagMask<'_>> {
        let [database, schema, table, name] = column.path() else {
            return None;
        };
        let mut masks = self
            .tagged(database, schema, table)
            .filter(|tagged| tagged.column == *name)
            .map(Tagged::mask);
        let first = masks.next()??;
        masks.all(|mask| mask == Some(first)).then_some(first)
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
        self.tagged(database, schema, table)
            .map(|tagged| tagged.column.as_str())
    }

    fn tagged(&self, database: &str, schema: &str, table: &str) -> impl Iterator<Item = &Tagged> {
        let of_database = move |tagged: &&Tagged| {
            let of = tagged.database.as_deref();
            of.is_none_or(|of| of == database)
        };
        self.columns
            .get(&(schema.to_owned(), table.to_owned()))
            .into_iter()
            .flatten()
            .filter(of_database)
    }
}

/// The access that seeing a column is.
pub(crate) fn view(database: &str, schema: &str, table: &str, column: &str) -> Access {
    Access::new(
        Verb::View,
        Resource::new(ResourceKind::Column, [database, schema, table, column]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_masked_only_if_its_tags_agree_how() {
        let tag = |columns: &str, mask| lockgate_config::Tag {
            columns: columns.into(),
            tag: "pii".into(),
            mask,
        };
        let (last, first) = (Some(Mask::KeepLast(4)), Some(Mask::KeepFirst(2)));
        let tags = Tags::new(&[
            tag("public.customers.ssn", last),
            tag("shop.public.customers.ssn", last),
            tag("other.public.customers.ssn", first),
            tag("public.customers.card", last),
            tag("shop.public.customers.card", None),
            tag("public.customers.phone", None),
        ]);
        let mask = |database: &str, column: &str| {
            let path = [database, "public", "customers", column];
            let mask = tags.mask(&Resource::new(ResourceKind::Column, path));
            mask.map(|tagged| tagged.mask)
        };
        assert_eq!(mask("shop", "ssn"), last);
        assert_eq!(mask("other", "ssn"), None, "two masks");
        assert_eq!(mask("shop", "card"), None, "one of two tags has none");
        assert_eq!(mask("other", "card"), last);
        assert_eq!(mask("shop", "phone"), None);
        assert_eq!(mask("shop", "name"), None, "not tagged");
    }
}
