//! What a name in the place of a column stands for: PostgreSQL's namespaces
//! (parse_relation.c), as far as certainty goes.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::{Reference, Unsure};

/// Tagged columns, by their numbers in one trace.
pub(super) type Columns = BTreeSet<usize>;

/// A column of something that has columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// None where only the server knows it.
    pub(crate) name: Option<Rc<str>>,
    /// The tagged columns whose values it has.
    pub(super) of: Columns,
    /// Whether each value is one of theirs as it is stored.
    pub(super) direct: bool,
    /// Of which type; none where only the server knows it.
    pub(super) type_name: Option<Arc<str>>,
}

/// What one entry of a FROM clause brings into scope.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What it is called in front of a dot.
    pub(super) alias: Option<Rc<str>>,
    /// Schema and name, where it can be called by them.
    pub(super) relation: Option<(Rc<str>, Rc<str>)>,
    /// None where they are not known. What is not known shows no tagged column.
    pub(super) fields: Option<Rc<[Field]>>,
    /// Whether its columns can be named alone, and are part of `*`.
    pub(super) bare: bool,
    /// Whether it has `ctid` and its kin.
    pub(super) stored: bool,
}

/// The names that one query sees, and those that are around it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) items: &'a [Item],
    pub(super) outer: Option<&'a Scope<'a>>,
}

/// What a name turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A column.
    Field(Field),
    /// Whole rows with these columns, or what somebody computes of them.
    Row(Columns),
}

impl Found {
    fn nothing() -> Self {
        Self::Row(Columns::new())
    }
}

impl Item {
    pub(super) fn row(&self) -> Columns {
        let fields = self.fields.iter().flat_map(|fields| fields.iter());
        fields.flat_map(|field| field.of.iter().copied()).collect()
    }

    /// Whether a name that is not among its fields could still be one.
    fn may_have_more(&self) -> bool {
        match &self.fields {
            None => true,
            Some(fields) => fields.iter().any(|field| field.name.is_none()),
        }
    }

    fn called<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Field> + 'a {
        let fields = self.fields.iter().flat_map(|fields| fields.iter());
        fields.filter(move |field| field.name.as_deref() == Some(name))
    }
}

impl Scope<'_> {
    fn levels(&self) -> impl Iterator<Item = &Scope<'_>> {
        std::iter::successors(Some(self), |scope| scope.outer)
    }

    /// How much there is to look through.
    pub(super) fn width(&self) -> usize {
        let width = |item: &Item| 1 + item.fields.as_ref().map_or(0, |fields| fields.len());
        let items = self.levels().flat_map(|level| level.items);
        items.map(width).sum()
    }

    /// What `reference` is; the whole rows that its star stands for.
    pub(super) fn find(&self, reference: &Reference) -> Result<Found, Unsure> {
        let Reference { names, star } = reference;
        match (&names[..], star) {
            ([], true) => {
                let bare = self.items.iter().filter(|item| item.bare);
                Ok(Found::Row(bare.flat_map(Item::row).collect()))
            }
            (qualifier, true) => Ok(Found::Row(self.item(qualifier)?.row())),
            ([name], false) => self.alone(name),
            ([qualifier @ .., name], false) => field_of(self.item(qualifier)?, name),
            ([], false) => Err(Unsure),
        }
    }

    /// The item in front of a dot.
    pub(super) fn item(&self, qualifier: &[String]) -> Result<&Item, Unsure> {
        let is = |item: &&Item| match qualifier {
            [alias] => item.alias.as_deref() == Some(alias),
            // A database in front can only be the current one.
            [schema, name] | [_, schema, name] => item
                .relation
                .as_ref()
                .is_some_and(|(of, is)| **of == **schema && **is == **name),
            _ => false,
        };
        for level in self.levels() {
            let mut found = level.items.iter().filter(is);
            match (found.next(), found.next()) {
                (Some(item), None) => return Ok(item),
                (Some(_), Some(_)) => return Err(Unsure),
                (None, _) => {}
            }
        }
        Err(Unsure)
    }

    /// A name without a dot: a column of the innermost query that has one,
    /// else the rows of what is called so.
    fn alone(&self, name: &str) -> Result<Found, Unsure> {
        let mut certain = true;
        let mut system = false;
        let sure = |found: Found, certain: bool| match &found {
            Found::Field(field) if !certain && !field.of.is_empty() => Err(Unsure),
            Found::Field(_) if !certain => Ok(Found::nothing()),
            _ => Ok(found),
        };
        for level in self.levels() {
            let bare = || level.items.iter().filter(|item| item.bare);
            let mut fields = bare().flat_map(|item| item.called(name));
            match (fields.next(), fields.next()) {
                (Some(field), None) => return sure(Found::Field(field.clone()), certain),
                (Some(_), Some(_)) => return Err(Unsure),
                (None, _) => {}
            }
            certain &= !bare().any(Item::may_have_more);
            if is_system_column(name) && level.items.iter().any(|item| item.stored) {
                (certain, system) = (false, true);
            }
        }
        match self.item(std::slice::from_ref(&name.to_owned())) {
            Ok(item) => Ok(Found::Row(item.row())),
            Err(Unsure) if system || !certain => Ok(Found::nothing()),
            Err(Unsure) => Err(Unsure),
        }
    }
}

fn field_of(item: &Item, name: &str) -> Result<Found, Unsure> {
    let mut fields = item.called(name);
    match (fields.next(), fields.next()) {
        (Some(field), None) => Ok(Found::Field(field.clone())),
        (Some(_), Some(_)) => Err(Unsure),
        (None, _) if item.stored && is_system_column(name) => Ok(Found::nothing()),
        // A function of the row, called as if it were a column of it.
        (None, _) => Ok(Found::Row(item.row())),
    }
}

fn is_system_column(name: &str) -> bool {
    matches!(
        name,
        "tableoid" | "ctid" | "xmin" | "xmax" | "cmin" | "cmax"
    )
}
