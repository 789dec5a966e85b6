//! From a [`Lineage`] to the tagged columns, under one catalogue.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use lockgate_command::{Resource, Shown};

use super::scope::{Columns, Field, Found, Item, Scope};
use super::{
    Body, Called, Cte, How, Join, Key, Lineage, Output, Query, Root, Select, Source, Traced,
    Unsure, Use, WIDEST, What,
};
use crate::names::Name;

/// Steps of work: names looked at, columns made. A statement of the largest
/// size that needs more is decided by names.
const PATIENCE: usize = 1 << 20;

/// What a relation has.
pub(crate) struct Table<'a> {
    pub(crate) schema: &'a str,
    pub(crate) name: &'a str,
    /// In order; none where they are not known.
    pub(crate) columns: Option<Vec<TableColumn<'a>>>,
}

/// A column of a [`Table`].
pub(crate) struct TableColumn<'a> {
    pub(crate) name: &'a str,
    /// Whether it is computed from others.
    pub(crate) generated: bool,
    pub(crate) type_name: &'a Arc<str>,
    /// The tagged columns that its values are of.
    pub(crate) tagged: Vec<Resource>,
}

/// Where relations are looked up.
pub(crate) trait Tables {
    /// The one relation of that name in this session.
    fn table(&self, name: &Name) -> Result<Table<'_>, Unsure>;
}

/// The exact uses of tagged columns, if they are certain.
pub(crate) fn trace(lineage: &Lineage, tables: &impl Tables) -> Result<Traced, Unsure> {
    let mut tracer = Tracer {
        tables,
        columns: Vec::new(),
        numbers: BTreeMap::new(),
        view: Columns::new(),
        filter: Columns::new(),
        touched: Columns::new(),
        patience: PATIENCE,
    };
    let outside = Scope {
        items: &[],
        outer: None,
    };
    let fields = match &lineage.root {
        Root::Query(query) => tracer.query(query, &outside, &None)?,
        Root::Table { name, columns } => tracer.copied(name, columns)?,
        Root::Returning {
            from,
            outputs,
            uses,
            rest: _,
        } => {
            let items = tracer.from(from, &outside, &None)?;
            let scope = Scope {
                items: &items,
                outer: None,
            };
            tracer.uses(uses, &scope, &None)?;
            tracer.outputs(outputs, &scope)?
        }
    };
    tracer.finish(&fields)
}

/// Common table expressions in scope, innermost first. One whose columns are
/// not known yet has none.
type Ctes = Option<Rc<Known>>;

struct Known {
    name: String,
    fields: Option<Rc<[Field]>>,
    outer: Ctes,
}

struct Tracer<'a, T> {
    tables: &'a T,
    columns: Vec<Resource>,
    numbers: BTreeMap<Resource, usize>,
    view: Columns,
    filter: Columns,
    /// Those that any query has among its outputs.
    touched: Columns,
    patience: usize,
}

impl<T: Tables> Tracer<'_, T> {
    fn finish(mut self, fields: &[Field]) -> Result<Traced, Unsure> {
        let mut shown = Vec::new();
        let mut seen = Columns::new();
        for (output, field) in fields.iter().enumerate() {
            let output = u16::try_from(output).map_err(|_| Unsure)?;
            if !field.direct {
                self.view.extend(&field.of);
                continue;
            }
            seen.extend(&field.of);
            if field.of.is_empty() {
                continue;
            }
            let type_name = field.type_name.as_ref().ok_or(Unsure)?;
            shown.extend(field.of.iter().map(|column| Shown {
                output,
                column: self.columns[*column].clone(),
                type_name: type_name.clone(),
            }));
        }
        // What no output shows in the end was still used.
        let used = self.touched.difference(&seen).copied();
        self.filter.extend(used);
        let resources = |columns: &Columns| {
            let resource = |column: &usize| self.columns[*column].clone();
            columns.iter().map(resource).collect()
        };
        Ok(Traced {
            shown,
            outputs: u16::try_from(fields.len()).map_err(|_| Unsure)?,
            view: resources(&self.view),
            filter: resources(&(&self.filter - &self.view)),
        })
    }

    fn spend(&mut self, steps: usize) -> Result<(), Unsure> {
        self.patience = self.patience.checked_sub(steps).ok_or(Unsure)?;
        Ok(())
    }

    fn note(&mut self, how: How, columns: &Columns) {
        match how {
            How::View => self.view.extend(columns),
            How::Filter => self.filter.extend(columns),
        }
    }

    fn number(&mut self, column: Resource) -> usize {
        let next = self.columns.len();
        let number = *self.numbers.entry(column.clone()).or_insert(next);
        if number == next {
            self.columns.push(column);
        }
        number
    }

    fn copied(&mut self, name: &Name, listed: &[String]) -> Result<Vec<Field>, Unsure> {
        let tables = self.tables;
        let table = tables.table(name)?;
        let columns = table.columns.ok_or(Unsure)?;
        let stored = columns.iter().filter(|column| !column.generated);
        let chosen: Vec<&TableColumn> = match listed {
            [] => stored.collect(),
            _ => {
                let column = |name: &String| columns.iter().find(|column| column.name == name);
                let found: Option<_> = listed.iter().map(column).collect();
                found.ok_or(Unsure)?
            }
        };
        let fields = chosen.into_iter().map(|column| self.field(column));
        Ok(fields.collect())
    }

    fn field(&mut self, column: &TableColumn) -> Field {
        let tagged = column.tagged.iter().cloned();
        Field {
            name: Some(column.name.into()),
            of: tagged.map(|column| self.number(column)).collect(),
            direct: true,
            type_name: Some(column.type_name.clone()),
        }
    }

    fn query(
        &mut self,
        query: &Query,
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Field>, Unsure> {
        let ctes = &self.with(query, outer, ctes)?;
        let fields = match &query.body {
            Body::Select(select) => return self.select(select, query, outer, ctes),
            Body::Values { width, uses } => {
                self.uses(uses, outer, ctes)?;
                let name = |number| Some(format!("column{number}").into());
                (1..=*width).map(|number| computed(name(number))).collect()
            }
            Body::Set {
                left,
                right,
                compares,
            } => {
                let left = self.query(left, outer, ctes)?;
                let right = self.query(right, outer, ctes)?;
                self.merged(left, &right, *compares)?
            }
        };
        self.order(&query.order, None, &fields)?;
        self.uses(&query.uses, outer, ctes)?;
        Ok(fields)
    }

    /// The columns of a UNION and its kin.
    fn merged(
        &mut self,
        mut left: Vec<Field>,
        right: &[Field],
        compares: bool,
    ) -> Result<Vec<Field>, Unsure> {
        if left.len() != right.len() {
            return Err(Unsure);
        }
        self.spend(left.len())?;
        for (field, other) in left.iter_mut().zip(right) {
            field.of.extend(&other.of);
            field.type_name = common_type(&field.type_name, &other.type_name);
            // Of two types, the server converts the values of one.
            field.direct &= other.direct && (field.type_name.is_some() || field.of.is_empty());
            if compares {
                self.note(How::Filter, &field.of);
            }
        }
        Ok(left)
    }

    fn with(&mut self, query: &Query, outer: &Scope<'_>, ctes: &Ctes) -> Result<Ctes, Unsure> {
        let known = |name: &str, fields: Option<Rc<[Field]>>, outer: &Ctes| {
            Some(Rc::new(Known {
                name: name.to_owned(),
                fields,
                outer: outer.clone(),
            }))
        };
        let mut ctes = ctes.clone();
        if query.recursive {
            // All are in scope, whether they are known yet or not.
            for cte in &query.ctes {
                ctes = known(&cte.name, None, &ctes);
            }
        }
        for cte in &query.ctes {
            let fields = match (&cte.query.body, query.recursive) {
                (Body::Set { left, right, .. }, true) => {
                    self.recursive(cte, [left, right], outer, &ctes)?
                }
                _ => {
                    let fields = self.query(&cte.query, outer, &ctes)?;
                    renamed(fields, &cte.columns)?
                }
            };
            ctes = known(&cte.name, Some(fields.into()), &ctes);
        }
        Ok(ctes)
    }

    /// A common table expression that may read itself: what its second part
    /// adds is added until nothing new comes.
    fn recursive(
        &mut self,
        cte: &Cte,
        [left, right]: [&Query; 2],
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Field>, Unsure> {
        let Query {
            ctes: within,
            body: Body::Set { compares, .. },
            order,
            uses,
            ..
        } = &cte.query
        else {
            return Err(Unsure);
        };
        if !(within.is_empty() && order.is_empty() && uses.is_empty()) {
            return Err(Unsure);
        }
        let first = self.query(left, outer, ctes)?;
        let mut fields = renamed(first, &cte.columns)?;
        loop {
            let inner = Some(Rc::new(Known {
                name: cte.name.clone(),
                fields: Some(fields.clone().into()),
                outer: ctes.clone(),
            }));
            let added = self.query(right, outer, &inner)?;
            let merged = self.merged(fields.clone(), &added, *compares)?;
            if merged == fields {
                return Ok(fields);
            }
            fields = merged;
        }
    }

    fn select(
        &mut self,
        select: &Select,
        query: &Query,
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Field>, Unsure> {
        let items = self.from(&select.from, outer, ctes)?;
        let scope = Scope {
            items: &items,
            outer: Some(outer),
        };
        let fields = self.outputs(&select.outputs, &scope)?;
        self.uses(&select.uses, &scope, ctes)?;
        if select.distinct {
            for field in &fields {
                self.note(How::Filter, &field.of);
            }
        }
        self.order(&select.distinct_on, Some(&scope), &fields)?;
        for key in &select.group {
            match key {
                Key::Position(_) => self.order(std::slice::from_ref(key), None, &fields)?,
                // A column comes before an output here; both are counted.
                Key::Name(name) => {
                    let outputs = self.named(name, &fields)?;
                    match self.compared(name, &scope) {
                        Err(Unsure) if !outputs => return Err(Unsure),
                        _ => {}
                    }
                }
            }
        }
        self.order(&query.order, Some(&scope), &fields)?;
        self.uses(&query.uses, &scope, ctes)?;
        Ok(fields)
    }

    /// Keys of ORDER BY and DISTINCT ON: an output by number or name, else,
    /// within a `scope`, a column.
    fn order(
        &mut self,
        keys: &[Key],
        scope: Option<&Scope<'_>>,
        fields: &[Field],
    ) -> Result<(), Unsure> {
        for key in keys {
            match key {
                Key::Position(position) => {
                    let field = position.checked_sub(1).and_then(|at| fields.get(at));
                    self.note(How::Filter, &field.ok_or(Unsure)?.of);
                }
                Key::Name(name) => match (self.named(name, fields)?, scope) {
                    (true, _) => {}
                    (false, Some(scope)) => self.compared(name, scope)?,
                    (false, None) => return Err(Unsure),
                },
            }
        }
        Ok(())
    }

    /// Compares the outputs of that name; whether there is one.
    fn named(&mut self, name: &str, fields: &[Field]) -> Result<bool, Unsure> {
        self.spend(1 + fields.len())?;
        let mut any = false;
        for field in fields {
            if field.name.as_deref() == Some(name) {
                any = true;
                self.note(How::Filter, &field.of);
            }
        }
        Ok(any)
    }

    fn compared(&mut self, name: &str, scope: &Scope<'_>) -> Result<(), Unsure> {
        self.spend(scope.width())?;
        let reference = super::Reference {
            names: vec![name.to_owned()],
            star: false,
        };
        match scope.find(&reference)? {
            Found::Field(field) => self.note(How::Filter, &field.of),
            Found::Row(columns) => self.note(How::View, &columns),
        }
        Ok(())
    }

    fn outputs(&mut self, outputs: &[Output], scope: &Scope<'_>) -> Result<Vec<Field>, Unsure> {
        let mut fields = Vec::new();
        for output in outputs {
            match output {
                Output::Computed { name } => {
                    fields.push(computed(name.as_deref().map(Rc::from)));
                }
                Output::Column { reference, label } => {
                    self.spend(1 + scope.width())?;
                    if reference.star {
                        match &reference.names[..] {
                            [] => {
                                let bare = scope.items.iter().filter(|item| item.bare);
                                for item in bare {
                                    fields.extend_from_slice(item.fields.as_ref().ok_or(Unsure)?);
                                }
                            }
                            qualifier => {
                                let item = scope.item(qualifier)?;
                                fields.extend_from_slice(item.fields.as_ref().ok_or(Unsure)?);
                            }
                        }
                    } else {
                        let name = label.as_ref().or(reference.names.last());
                        let name = name.map(|name| Rc::from(name.as_str()));
                        fields.push(match scope.find(reference)? {
                            Found::Field(field) => Field { name, ..field },
                            Found::Row(columns) => {
                                self.note(How::View, &columns);
                                computed(name)
                            }
                        });
                    }
                }
            }
            if fields.len() > WIDEST {
                return Err(Unsure);
            }
        }
        self.spend(fields.len())?;
        for field in &fields {
            self.touched.extend(&field.of);
        }
        Ok(fields)
    }

    fn uses(&mut self, uses: &[Use], scope: &Scope<'_>, ctes: &Ctes) -> Result<(), Unsure> {
        for Use { how, what } in uses {
            match what {
                What::Column(reference) => {
                    self.spend(1 + scope.width())?;
                    match scope.find(reference)? {
                        Found::Field(field) => self.note(*how, &field.of),
                        Found::Row(columns) => self.note(How::View, &columns),
                    }
                }
                What::Query(query) => {
                    for field in self.query(query, scope, ctes)? {
                        self.note(*how, &field.of);
                    }
                }
            }
        }
        Ok(())
    }

    fn from(
        &mut self,
        sources: &[Source],
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Item>, Unsure> {
        let mut items = Vec::new();
        for source in sources {
            let more = self.source(source, &items, outer, ctes)?;
            items.extend(more);
        }
        Ok(items)
    }

    /// What `source` brings into scope. LATERAL sees what stands `before` it.
    fn source(
        &mut self,
        source: &Source,
        before: &[Item],
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Item>, Unsure> {
        self.spend(1 + before.len())?;
        let beside = Scope {
            items: before,
            outer: Some(outer),
        };
        match source {
            Source::Relation { name, called, uses } => {
                self.uses(uses, &beside, ctes)?;
                Ok(vec![self.relation(name, called, ctes)?])
            }
            Source::Query {
                query,
                lateral,
                called,
            } => {
                let around = if *lateral { &beside } else { outer };
                let fields = self.query(query, around, ctes)?;
                Ok(vec![Item {
                    alias: called.alias.as_deref().map(Rc::from),
                    relation: None,
                    fields: Some(renamed(fields, &called.columns)?.into()),
                    bare: true,
                    stored: false,
                }])
            }
            Source::Function { called, uses } => {
                self.uses(uses, &beside, ctes)?;
                Ok(vec![Item {
                    alias: called.alias.as_deref().map(Rc::from),
                    relation: None,
                    fields: None,
                    bare: true,
                    stored: false,
                }])
            }
            Source::Join(join) => self.join(join, before, outer, ctes),
        }
    }

    fn relation(&mut self, name: &Name, called: &Called, ctes: &Ctes) -> Result<Item, Unsure> {
        let alias = called.alias.as_deref().unwrap_or(&name.name);
        if name.schema.is_none() {
            let chain = std::iter::successors(ctes.as_deref(), |known| known.outer.as_deref());
            let mut chain = chain.filter(|known| known.name == name.name);
            if let Some(known) = chain.next() {
                let fields = known.fields.as_ref().ok_or(Unsure)?.to_vec();
                self.spend(fields.len())?;
                return Ok(Item {
                    alias: Some(alias.into()),
                    relation: None,
                    fields: Some(renamed(fields, &called.columns)?.into()),
                    bare: true,
                    stored: false,
                });
            }
        }
        let tables = self.tables;
        let Table {
            schema,
            name: real,
            columns,
        } = tables.table(name)?;
        let fields = match columns {
            Some(columns) => {
                self.spend(columns.len())?;
                let fields = columns.iter().map(|column| self.field(column)).collect();
                Some(renamed(fields, &called.columns)?.into())
            }
            None => None,
        };
        Ok(Item {
            alias: Some(alias.into()),
            relation: match called.alias {
                Some(_) => None,
                None => Some((schema.into(), real.into())),
            },
            fields,
            bare: true,
            stored: true,
        })
    }

    fn join(
        &mut self,
        join: &Join,
        before: &[Item],
        outer: &Scope<'_>,
        ctes: &Ctes,
    ) -> Result<Vec<Item>, Unsure> {
        let mut left = self.source(&join.left, before, outer, ctes)?;
        let beside: Vec<Item> = before.iter().chain(&left).cloned().collect();
        let mut right = self.source(&join.right, &beside, outer, ctes)?;
        let merges = join.natural || !join.using.is_empty();
        let whole = match merges {
            true => Some(self.join_using(join, &left, &right)?),
            false => None,
        };
        let both = left.len();
        left.append(&mut right);
        // A condition sees the two sides, and nothing else of its query.
        let scope = Scope {
            items: &left,
            outer: Some(outer),
        };
        self.uses(&join.on, &scope, ctes)?;
        let Called { alias, columns } = &join.called;
        let fields = match (whole, alias) {
            (None, None) => return Ok(left),
            (Some(fields), _) => fields,
            (None, Some(_)) => {
                let (left, right) = left.split_at(both);
                let mut fields = bare_fields(left)?;
                fields.extend(bare_fields(right)?);
                fields
            }
        };
        let item = Item {
            alias: alias.as_deref().map(Rc::from),
            relation: None,
            fields: Some(renamed(fields, columns)?.into()),
            bare: true,
            stored: false,
        };
        if alias.is_some() {
            return Ok(vec![item]);
        }
        for hidden in &mut left {
            hidden.bare = false;
        }
        left.push(item);
        Ok(left)
    }

    /// The columns of a join that merges some: these first, then the others of
    /// both sides.
    fn join_using(
        &mut self,
        join: &Join,
        left: &[Item],
        right: &[Item],
    ) -> Result<Vec<Field>, Unsure> {
        let (left, right) = (bare_fields(left)?, bare_fields(right)?);
        self.spend(1 + left.len() * right.len())?;
        let names: Vec<Rc<str>> = match join.natural {
            false => join.using.iter().map(|name| name.as_str().into()).collect(),
            true => {
                let all_known = left.iter().chain(&right).all(|field| field.name.is_some());
                if !all_known {
                    return Err(Unsure);
                }
                let in_right = |field: &&Field| right.iter().any(|other| other.name == field.name);
                let common = left.iter().filter(in_right);
                common.filter_map(|field| field.name.clone()).collect()
            }
        };
        let mut merged = Vec::new();
        for name in &names {
            let only = |fields: &[Field]| {
                let mut found = fields
                    .iter()
                    .filter(|field| field.name.as_ref() == Some(name));
                match (found.next(), found.next()) {
                    (Some(field), None) => Ok(field.of.clone()),
                    _ => Err(Unsure),
                }
            };
            let of: Columns = &only(&left)? | &only(&right)?;
            self.note(How::Filter, &of);
            merged.push(Field {
                name: Some(name.clone()),
                direct: of.is_empty(),
                of,
                type_name: None,
            });
        }
        let others = left.into_iter().chain(right);
        merged.extend(others.filter(|field| {
            let merged = |name: &Rc<str>| field.name.as_ref() == Some(name);
            !names.iter().any(merged)
        }));
        Ok(merged)
    }
}

fn bare_fields(items: &[Item]) -> Result<Vec<Field>, Unsure> {
    let mut fields = Vec::new();
    for item in items.iter().filter(|item| item.bare) {
        fields.extend_from_slice(item.fields.as_ref().ok_or(Unsure)?);
    }
    Ok(fields)
}

fn computed(name: Option<Rc<str>>) -> Field {
    Field {
        name,
        of: Columns::new(),
        direct: true,
        type_name: None,
    }
}

/// The type of a column of a UNION, if no value changes on the way to it. Texts
/// of any type stay the text that they are; what is computed beside a text can
/// only be one.
fn common_type(left: &Option<Arc<str>>, right: &Option<Arc<str>>) -> Option<Arc<str>> {
    let is_text = |name: &Option<Arc<str>>| match name.as_deref() {
        Some(name) => matches!(name, "text" | "varchar" | "bpchar" | "name" | "citext"),
        None => true,
    };
    match (left, right) {
        (Some(left), Some(right)) if left == right => Some(left.clone()),
        (None, None) => None,
        _ if is_text(left) && is_text(right) => {
            // Blanks at the end may be what fills a character(n).
            let padded = [left, right].map(|name| name.as_deref() == Some("bpchar"));
            let name = if padded.contains(&true) {
                "bpchar"
            } else {
                "text"
            };
            Some(name.into())
        }
        _ => None,
    }
}

/// `AS alias (columns)`: names for the first columns.
fn renamed(mut fields: Vec<Field>, names: &[String]) -> Result<Vec<Field>, Unsure> {
    if names.len() > fields.len() {
        return Err(Unsure);
    }
    for (field, name) in fields.iter_mut().zip(names) {
        field.name = Some(name.as_str().into());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_texts_keep_their_values_on_the_way_to_a_common_type() {
        let name = |name: &str| Some(Arc::from(name)).filter(|_| !name.is_empty());
        for (left, right, common) in [
            ("int4", "int4", "int4"),
            ("int4", "int8", ""),
            ("int4", "", ""),
            ("", "", ""),
            ("text", "", "text"),
            ("varchar", "text", "text"),
            ("bpchar", "", "bpchar"),
            ("text", "bpchar", "bpchar"),
            ("text", "public.citext", ""),
            ("date", "text", ""),
        ] {
            let (one, other): (Option<Arc<str>>, Option<Arc<str>>) = (name(left), name(right));
            assert_eq!(common_type(&one, &other), name(common), "{left} {right}");
            assert_eq!(common_type(&other, &one), name(common), "{right} {left}");
        }
    }
}
