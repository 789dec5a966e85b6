//! Relations: which ones a name may mean, and what touching one reaches besides.

use std::collections::HashSet;

use lockgate_command::{Access, Resource, ResourceKind, Verb};

use super::{Resolver, SearchPath, UNKNOWN, is_temporary, system_relations};
use crate::catalogue::{Cascade, Catalogue, Reference, Relation, RelationKind, is_system};
use crate::names::Name;
use crate::tags::view;

impl<'a> Resolver<'a> {
    pub(super) fn relation(&mut self, verb: Verb, name: &'a Name) {
        let catalogue = self.catalogue;
        match (&name.schema, self.path) {
            (Some(schema), _) if is_temporary(schema) => {
                self.table(verb, schema, &name.name);
            }
            (Some(schema), _) => match catalogue.relation(schema, &name.name) {
                Some(relation) => self.found(verb, relation),
                None if is_system(schema) => self.system_relation(verb, schema, &name.name),
                None => {
                    self.table(verb, schema, &name.name);
                    self.tagged_by_name(verb, Some(schema), &name.name);
                }
            },
            (None, SearchPath::Known(path)) => {
                self.all_found(verb, name, all_on(catalogue, path, &name.name));
            }
            (None, SearchPath::Unknown) => {
                self.all_found(verb, name, catalogue.named(&name.name));
            }
        }
    }

    fn all_found(&mut self, verb: Verb, name: &Name, all: impl Iterator<Item = &'a Relation>) {
        let mut any = false;
        for relation in all {
            any = true;
            self.found(verb, relation);
        }
        if !any {
            self.not_found(verb, &name.name);
        }
    }

    fn not_found(&mut self, verb: Verb, name: &str) {
        self.table(verb, UNKNOWN, name);
        self.tagged_by_name(verb, None, name);
    }

    /// A name that the catalogue does not have may be new there; its tags count
    /// all the same.
    fn tagged_by_name(&mut self, verb: Verb, schema: Option<&str>, name: &str) {
        let tags = self.tags;
        for of in tags
            .schemas_of(name)
            .filter(|of| schema.is_none_or(|schema| schema == *of))
        {
            self.tagged(verb, of, name);
        }
    }

    /// All tables at once.
    pub(super) fn tagged_in_database(&mut self, database: &str) {
        for access in self.tags.view_accesses(database) {
            self.push(access);
        }
    }

    pub(super) fn tagged_in_schema(&mut self, schema: &str) {
        for access in self.tags.view_accesses(self.database) {
            if access.resource.path().get(1).is_some_and(|of| of == schema) {
                self.push(access);
            }
        }
    }

    fn system_relation(&mut self, verb: Verb, schema: &str, name: &str) {
        match verb {
            Verb::Select
                if system_relations::private_column(schema, name)
                    .is_some_and(|column| !self.facts.may_touch(column)) =>
            {
                self.table(Verb::Describe, schema, name);
            }
            Verb::Select => self.table(system_relations::reading(schema, name), schema, name),
            _ => {
                self.table(verb, schema, name);
                self.add(Verb::System, Resource::target());
            }
        }
    }

    fn found(&mut self, verb: Verb, relation: &'a Relation) {
        let (schema, name) = (&relation.schema, &relation.name);
        if is_system(schema) {
            return self.system_relation(verb, schema, name);
        }
        let holds_statements = matches!(&**name, "pg_stat_statements" | "pg_stat_statements_info");
        match verb {
            Verb::Select if holds_statements => self.table(Verb::Inspect, schema, name),
            _ => self.table(verb, schema, name),
        }
        // Maintenance runs the functions of indexes and of stored views.
        let writes = matches!(
            verb,
            Verb::Insert | Verb::Update | Verb::Delete | Verb::Truncate | Verb::Maintain
        );
        let reads = verb == Verb::Select || writes;
        let below = self.below(verb, relation);
        for part in &below {
            // What stands behind a foreign table is not read: another server,
            // or a program.
            let foreign = (reads || writes) && part.kind == RelationKind::ForeignTable;
            let code = match verb {
                // Of an index: it compares what is there.
                Verb::Create => part.code_on_read || part.code_on_conversion,
                Verb::Alter => part.code_on_rewrite,
                _ => {
                    (reads && part.code_on_read)
                        || (reads && part.code_on_conversion && self.converts)
                        || (writes && part.code_on_write)
                }
            };
            if code || foreign {
                self.table(Verb::Opaque, schema, name);
            }
        }
        if matches!(verb, Verb::Update | Verb::Delete) {
            for part in &below {
                self.cascade(verb, part, false);
            }
        }
        for part in below.into_iter().skip(1).chain(self.above(relation)) {
            let path = [self.database, &part.schema, &part.name];
            let resource = Resource::new(ResourceKind::Table, path);
            self.beneath.insert(Access::new(verb, resource));
        }
        if !self.tags.is_empty() {
            for part in self.catalogue.relatives(relation) {
                self.tagged(verb, &part.schema, &part.name);
            }
            self.tagged_beneath(relation);
        }
    }

    /// Rows that a foreign key changes or deletes with those of `relation` and
    /// its children. `follows`: what changes is not in the text, since the
    /// change is itself one of a foreign key.
    fn cascade(&mut self, verb: Verb, relation: &'a Relation, follows: bool) {
        if !self.cascaded.insert((verb, relation.oid, follows)) {
            return;
        }
        let catalogue = self.catalogue;
        for child in catalogue.children(relation.oid) {
            self.cascade(verb, child, follows);
        }
        for reference in &relation.references {
            let Reference {
                by,
                column,
                on_delete,
                on_update,
            } = reference;
            let action = match verb {
                Verb::Delete => *on_delete,
                _ if follows || self.facts.may_touch(column) => *on_update,
                _ => Cascade::Nothing,
            };
            let verb = match action {
                Cascade::Nothing => continue,
                Cascade::Update => Verb::Update,
                Cascade::Delete => Verb::Delete,
            };
            if let Some(by) = catalogue.relation_by_oid(*by) {
                self.cascade(verb, by, true);
                self.found(verb, by);
            }
        }
    }

    /// The relation, and every other whose rows `verb` reaches by way of it: its
    /// parts, what a view is made of, what TRUNCATE takes along.
    fn below(&self, verb: Verb, relation: &'a Relation) -> Vec<&'a Relation> {
        let catalogue = self.catalogue;
        let rows = matches!(
            verb,
            Verb::Select | Verb::Insert | Verb::Update | Verb::Delete | Verb::Lock | Verb::Maintain
        );
        closure(relation, |part, found| {
            found.extend(catalogue.children(part.oid));
            if rows {
                let dependencies = part.dependencies.iter().map(|of| of.relation);
                found.extend(dependencies.filter_map(|oid| catalogue.relation_by_oid(oid)));
            }
            // With CASCADE.
            if verb == Verb::Truncate {
                let by = part.references.iter().map(|reference| reference.by);
                found.extend(by.filter_map(|oid| catalogue.relation_by_oid(oid)));
            }
        })
    }

    /// What the relation is a part of, all the way.
    fn above(&self, relation: &'a Relation) -> impl Iterator<Item = &'a Relation> + use<'a> {
        let catalogue = self.catalogue;
        let all = closure(relation, |part, found| {
            let parents = part.parents.iter();
            found.extend(parents.filter_map(|oid| catalogue.relation_by_oid(*oid)));
        });
        all.into_iter().skip(1)
    }

    pub(super) fn tagged(&mut self, verb: Verb, schema: &str, name: &str) {
        let (database, tags) = (self.database, self.tags);
        for column in tags.of(database, schema, name) {
            self.effects.touches_tagged_relation = true;
            let touched = match self.lineage {
                // Another name for the relation or the column would lose the tag.
                _ if verb == Verb::Alter => true,
                Some(lineage) => match lineage.left_to_names(verb, self.facts) {
                    Some(rest) => self.row_functions || rest.may_touch(column),
                    None => false,
                },
                None => self.row_functions || self.facts.may_touch(column),
            };
            if touched {
                self.push(view(database, schema, name, column));
            }
        }
    }

    /// A view may call a column by any name: whoever uses the view may touch
    /// what it is made of.
    fn tagged_beneath(&mut self, relation: &'a Relation) {
        let (database, tags) = (self.database, self.tags);
        let mut beneath: Vec<_> = relation.dependencies.iter().collect();
        let mut known = HashSet::new();
        while let Some(part) = beneath.pop() {
            if !known.insert(part) {
                continue;
            }
            let Some(of) = self.catalogue.relation_by_oid(part.relation) else {
                continue;
            };
            beneath.extend(&of.dependencies);
            for relative in self.catalogue.relatives(of) {
                for column in tags.of(database, &relative.schema, &relative.name) {
                    self.effects.touches_tagged_relation = true;
                    if part.whole_rows || part.column.as_deref() == Some(column) {
                        self.push(view(database, &relative.schema, &relative.name, column));
                    }
                }
            }
        }
    }
}

/// What an unqualified name of a relation may mean: all of that name on the
/// path. The server takes the first, but a statement that was prepared before
/// the first was made keeps another, and so does one whose names are resolved
/// here before somebody drops the first. Nobody takes a name away from the
/// system's relations, so nothing behind one of them counts. pg_catalog comes
/// before all, unless the path has it elsewhere.
pub(super) fn all_on<'a, 'n>(
    catalogue: &'a Catalogue,
    path: &'n [String],
    name: &'n str,
) -> impl Iterator<Item = &'a Relation> + use<'a, 'n> {
    let system = Some("pg_catalog").filter(|_| !path.iter().any(|s| s == "pg_catalog"));
    let path = system.into_iter().chain(path.iter().map(String::as_str));
    let mut before = false;
    path.filter_map(move |schema| catalogue.relation(schema, name))
        .take_while(move |relation| {
            let behind = before;
            before |= is_system(&relation.schema);
            !behind
        })
}

/// `first` and what `next` leads to from there, each relation once.
fn closure<'a>(
    first: &'a Relation,
    next: impl Fn(&'a Relation, &mut Vec<&'a Relation>),
) -> Vec<&'a Relation> {
    let mut known = HashSet::from([first.oid]);
    let (mut all, mut found) = (vec![first], Vec::new());
    let mut at = 0;
    while at < all.len() {
        next(all[at], &mut found);
        all.extend(found.drain(..).filter(|other| known.insert(other.oid)));
        at += 1;
    }
    all
}
