mod code;
mod queries;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::code::Code;
use crate::builtin::FunctionClass;

/// The answer to one of [`Catalogue::QUERIES`]: rows of text columns, as the
/// simple query protocol gives them.
pub type Rows = Vec<Vec<Option<String>>>;

/// PostgreSQL's FirstNormalObjectId: what has a smaller oid came with it.
pub(crate) const FIRST_OF_USERS: u32 = 16384;

/// What a decision needs to know of one database: which names there are, and
/// which of them run somebody's code. Everything that is not PostgreSQL's own
/// (an oid of 16384 or more) is listed.
///
/// Temporary relations are left out. They come and go, and a session that has
/// some is one whose names changed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Catalogue {
    /// Counted by whoever reads catalogues; a change of the database is a new
    /// one.
    pub epoch: u64,
    relations: Vec<Relation>,
    by_name: HashMap<String, Vec<usize>>,
    by_oid: HashMap<u32, usize>,
    children: HashMap<u32, Vec<u32>>,
    others: Others,
    schemas: HashSet<String>,
}

/// One relation of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Its oid.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns in order, without dropped ones.
    pub columns: Vec<Column>,
    /// Whether reading it runs code that is not PostgreSQL's own: in a view's
    /// definition, in a policy of row security.
    pub code_on_read: bool,
    /// Whether making a value of the type of one of its columns runs such code: a
    /// domain's check. The values that are there were made before.
    pub code_on_conversion: bool,
    /// Whether writing to it runs such code: a trigger, a rule, a default, a
    /// check, an index, a domain.
    pub code_on_write: bool,
    /// Whether computing its rows, indexes and statistics anew runs such code,
    /// as changing its definition may.
    pub code_on_rewrite: bool,
    /// What its rows are made of, for a view.
    pub dependencies: Vec<Dependency>,
    /// What it is a partition or child of.
    pub parents: Vec<u32>,
    /// Foreign keys of others to this relation, and which rows they change when
    /// one of this relation goes or changes.
    pub references: Vec<Reference>,
}

/// A column that a foreign key of another relation references.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reference {
    /// The relation with the foreign key.
    pub by: u32,
    /// The column that is referenced.
    pub column: String,
    /// What a DELETE does to the rows that reference the row.
    pub on_delete: Cascade,
    /// What an UPDATE of the column does to them.
    pub on_update: Cascade,
}

/// What a foreign key does to the rows that have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cascade {
    /// It refuses the change, or lets it be.
    Nothing,
    /// It changes their columns.
    Update,
    /// It deletes them.
    Delete,
}

/// What runs the code of a relation.
#[derive(Clone, Copy)]
enum Mode {
    Read,
    Conversion,
    Write,
    /// Writing, and computing anew what is there.
    Rewrite,
}

/// A column of a [`Relation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Whether it is computed from other columns, so that COPY leaves it out.
    pub generated: bool,
    /// As in [`lockgate_command::Shown::type_name`].
    pub type_name: Arc<str>,
}

/// A relation, or a column of one, that a view reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// The relation.
    pub relation: u32,
    /// The column; none for the relation as such.
    pub column: Option<String>,
    /// Whether the view uses whole rows, of this relation or another.
    pub whole_rows: bool,
}

/// The kinds of relations (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RelationKind {
    /// A table, partitioned or not.
    Table,
    /// A view.
    View,
    /// A materialised view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
    /// A sequence.
    Sequence,
    /// An index.
    Index,
    /// A composite type.
    Composite,
    /// A TOAST table.
    Toast,
}

/// Names outside PostgreSQL's own, each with the schemas that have it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Others {
    /// What they do, where that is known of all functions of that name in that
    /// schema.
    functions: BTreeMap<String, BTreeMap<String, Option<FunctionClass>>>,
    /// Whether all of them do nothing but compute their results.
    operators: BTreeMap<String, BTreeMap<String, bool>>,
    /// Those whose input may run code that is not PostgreSQL's own.
    types: BTreeMap<String, BTreeSet<String>>,
    /// Those that cannot: enums, plain domains, composites of such.
    harmless_types: BTreeMap<String, BTreeSet<String>>,
    /// The schema of each type whose input may run such code, none for those
    /// that cannot, by oid.
    types_by_oid: HashMap<u32, Option<String>>,
    collations: BTreeMap<String, BTreeSet<String>>,
    event_triggers: BTreeSet<String>,
}

/// It is temporary, or newer than the catalogue.
#[derive(Debug)]
pub(crate) struct UnknownType;

/// The form that travels between processes; the indexes are made anew.
#[derive(Serialize, Deserialize)]
struct Stored {
    epoch: u64,
    relations: Vec<Relation>,
    others: Others,
    schemas: Vec<String>,
}

/// Why [`Catalogue::from_rows`] could not read a server's answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the answer to the catalogue query `{query}` has an unexpected form at row {row}: {problem}; \
     lockgate reads PostgreSQL 14 to 18"
)]
pub struct CatalogueError {
    /// The query's name.
    pub query: &'static str,
    /// The row, from 0.
    pub row: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl Catalogue {
    /// The queries to run, in one transaction, in this order, with
    /// `search_path` set to `pg_catalog`. They need no right that a plain
    /// role does not have.
    pub const QUERIES: &'static [&'static str] = queries::ALL;

    /// A query of one row and one column that has another answer after any
    /// change of what [`Catalogue::QUERIES`] answer. It reads the same system
    /// tables without joining them.
    pub const FINGERPRINT: &'static str = queries::FINGERPRINT;

    /// The catalogue that `answers` to [`Catalogue::QUERIES`] describe.
    ///
    /// # Errors
    /// When there are not as many answers as queries, or one has another form.
    pub fn from_rows(epoch: u64, answers: &[Rows]) -> Result<Self, CatalogueError> {
        let [
            relations,
            columns,
            dependencies,
            parents,
            functions,
            operators,
            others,
            code_of_relations,
            foreign_keys,
            schemas,
        ] = answers
        else {
            return Err(CatalogueError {
                query: "all",
                row: 0,
                problem: format!("{} answers, not {}", answers.len(), Self::QUERIES.len()),
            });
        };
        let code = Code::read(functions, operators)?;
        let mut found: Vec<Relation> = read("relations", relations, |row| {
            let [oid, schema, name, kind] = texts(row)?;
            let (oid, kind) = (number(oid)?, RelationKind::from_relkind(kind)?);
            Ok(Relation {
                oid,
                schema: schema.to_owned(),
                name: name.to_owned(),
                kind,
                columns: Vec::new(),
                code_on_read: false,
                code_on_conversion: false,
                code_on_write: false,
                code_on_rewrite: false,
                dependencies: Vec::new(),
                parents: Vec::new(),
                references: Vec::new(),
            })
        })?;
        let places: HashMap<u32, usize> = found
            .iter()
            .enumerate()
            .map(|(place, relation)| (relation.oid, place))
            .collect();
        let mut numbered: HashMap<(u32, u32), String> = HashMap::new();
        for (oid, number, column) in read("columns", columns, |row| {
            let [oid, position, name, generated, type_name] = texts(row)?;
            let column = Column {
                name: name.to_owned(),
                generated: truth(generated)?,
                type_name: type_name.into(),
            };
            Ok((number(oid)?, number(position)?, column))
        })? {
            numbered.insert((oid, number), column.name.clone());
            if let Some(place) = places.get(&oid) {
                found[*place].columns.push(column);
            }
        }
        for (view, relation, column, whole_rows) in read("dependencies", dependencies, |row| {
            let [view, relation, column, whole_rows] = texts(row)?;
            Ok((
                number(view)?,
                number(relation)?,
                number(column)?,
                truth(whole_rows)?,
            ))
        })? {
            // Column 0 stands for the relation as such.
            let column = numbered.get(&(relation, column)).cloned();
            if let Some(place) = places.get(&view) {
                found[*place].dependencies.push(Dependency {
                    relation,
                    column,
                    whole_rows,
                });
            }
        }
        for (child, parent) in read("parents", parents, |row| {
            let [child, parent] = texts(row)?;
            Ok((number(child)?, number(parent)?))
        })? {
            if let Some(place) = places.get(&child) {
                found[*place].parents.push(parent);
            }
        }
        for (relation, mode) in read("code", code_of_relations, |row| {
            let [relation, mode, run] = texts(row)?;
            let mode = match mode {
                "read" => Mode::Read,
                "conversion" => Mode::Conversion,
                "write" => Mode::Write,
                "rewrite" => Mode::Rewrite,
                _ => return Err(format!("mode {mode}")),
            };
            Ok((!code.is_pure(run)).then_some((number(relation)?, mode)))
        })?
        .into_iter()
        .flatten()
        {
            let Some(place) = places.get(&relation) else {
                continue;
            };
            match mode {
                Mode::Read => found[*place].code_on_read = true,
                Mode::Conversion => found[*place].code_on_conversion = true,
                Mode::Write => mark_parents(&mut found, &places, relation),
                Mode::Rewrite => {
                    found[*place].code_on_rewrite = true;
                    mark_parents(&mut found, &places, relation);
                }
            }
        }
        for (parent, reference) in read("foreign keys", foreign_keys, |row| {
            let [parent, by, on_delete, on_update, column] = texts(row)?;
            let reference = Reference {
                by: number(by)?,
                column: column.to_owned(),
                on_delete: Cascade::from_action(on_delete, Cascade::Delete),
                on_update: Cascade::from_action(on_update, Cascade::Update),
            };
            Ok((number(parent)?, reference))
        })? {
            if let Some(place) = places.get(&parent) {
                found[*place].references.push(reference);
            }
        }
        let mut names = Others::default();
        let mut harmless: BTreeMap<(String, String, u32), bool> = BTreeMap::new();
        for (kind, schema, name, pure, oid) in read("names", others, |row| {
            let [kind, schema, name, run, oid] = texts(row)?;
            let (pure, oid) = (code.is_pure(run), number(oid)?);
            Ok((
                kind.to_owned(),
                schema.to_owned(),
                name.to_owned(),
                pure,
                oid,
            ))
        })? {
            match kind.as_str() {
                "type" => *harmless.entry((name, schema, oid)).or_insert(true) &= pure,
                "collation" => {
                    names.collations.entry(name).or_default().insert(schema);
                }
                "event trigger" if !pure => {
                    names.event_triggers.insert(name);
                }
                _ => {}
            }
        }
        for ((name, schema, oid), harmless) in harmless {
            let code = (!harmless).then(|| schema.clone());
            names.types_by_oid.insert(oid, code);
            let types = match harmless {
                true => &mut names.harmless_types,
                false => &mut names.types,
            };
            types.entry(name).or_default().insert(schema);
        }
        for function in code.functions {
            let overloads = names.functions.entry(function.name).or_default();
            let class = match overloads.get(&function.schema) {
                Some(before) => both(*before, function.class),
                None => function.class,
            };
            overloads.insert(function.schema, class);
        }
        for operator in code.operators {
            let overloads = names.operators.entry(operator.name).or_default();
            *overloads.entry(operator.schema).or_insert(true) &= operator.pure;
        }
        let schemas = read("schemas", schemas, |row| {
            let [name] = texts(row)?;
            Ok(name.to_owned())
        })?;
        Ok(Stored {
            epoch,
            relations: found,
            others: names,
            schemas,
        }
        .into())
    }

    /// A catalogue of nothing but these tables, each as schema, name, columns:
    /// what somebody says there is, where no server can be asked.
    pub fn assumed(tables: impl IntoIterator<Item = (String, String, Vec<String>)>) -> Self {
        let relation = |(oid, (schema, name, columns)): (u32, _)| {
            let columns: Vec<String> = columns;
            Relation {
                oid,
                schema,
                name,
                kind: RelationKind::Table,
                columns: columns
                    .into_iter()
                    .map(|name| Column {
                        name,
                        generated: false,
                        type_name: "unknown".into(),
                    })
                    .collect(),
                code_on_read: false,
                code_on_conversion: false,
                code_on_write: false,
                code_on_rewrite: false,
                dependencies: Vec::new(),
                parents: Vec::new(),
                references: Vec::new(),
            }
        };
        let relations: Vec<Relation> = (FIRST_OF_USERS..).zip(tables).map(relation).collect();
        let schemas: BTreeSet<String> = relations
            .iter()
            .map(|relation| relation.schema.clone())
            .collect();
        Stored {
            epoch: 0,
            relations,
            others: Others::default(),
            schemas: schemas.into_iter().collect(),
        }
        .into()
    }

    /// The same without relations of users: what can be relied on after a
    /// change of definitions that cannot be seen yet.
    pub fn without_relations(&self) -> Self {
        let relations = self
            .relations
            .iter()
            .filter(|relation| is_system(&relation.schema));
        Stored {
            epoch: self.epoch,
            relations: relations.cloned().collect(),
            others: self.others.clone(),
            schemas: self.schemas.iter().cloned().collect(),
        }
        .into()
    }

    /// Every relation.
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// The relation of that name in that schema.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.named(name).find(|relation| relation.schema == schema)
    }

    /// The relation with that oid.
    pub fn relation_by_oid(&self, oid: u32) -> Option<&Relation> {
        self.by_oid.get(&oid).map(|place| &self.relations[*place])
    }

    /// The relations of that name in all schemas.
    pub fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Relation> + use<'a> {
        self.by_name
            .get(name)
            .into_iter()
            .flatten()
            .map(|place| &self.relations[*place])
    }

    /// Whether the database has a function or an operator of that name in that
    /// schema which is not PostgreSQL's own.
    pub fn has_function(&self, schema: &str, name: &str) -> bool {
        let functions = self.functions(name).map(|(of, _)| of);
        let operators = self.operators(name).map(|(of, _)| of);
        functions.chain(operators).any(|of| of == schema)
    }

    /// The names of the functions in that schema that are not PostgreSQL's own.
    pub fn functions_in(&self, schema: &str) -> impl Iterator<Item = &str> {
        self.others
            .functions
            .iter()
            .filter(move |(_, schemas)| schemas.contains_key(schema))
            .map(|(name, _)| name.as_str())
    }

    /// The schemas of the database.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(String::as_str)
    }

    /// A number that is another one when the database has other schemas.
    pub fn schemas_key(&self) -> u64 {
        let key = |schema: &String| {
            let mut hasher = DefaultHasher::new();
            schema.hash(&mut hasher);
            hasher.finish()
        };
        self.schemas
            .iter()
            .map(key)
            .fold(0, |sum, key| sum.wrapping_add(key))
    }

    /// Whether the database has this schema.
    pub fn has_schema(&self, name: &str) -> bool {
        self.schemas.contains(name)
    }

    /// Whether users' code is run by statements that define something.
    pub(crate) fn has_event_triggers(&self) -> bool {
        !self.others.event_triggers.is_empty()
    }

    /// The schemas with a function of that name that is not PostgreSQL's own,
    /// and what it does there if that is known.
    pub(crate) fn functions(
        &self,
        name: &str,
    ) -> impl Iterator<Item = (&str, Option<FunctionClass>)> {
        let schemas = self.others.functions.get(name).into_iter().flatten();
        schemas.map(|(schema, class)| (schema.as_str(), *class))
    }

    /// The schemas with an operator of that name that is not PostgreSQL's own,
    /// and whether it is known to do nothing but compute its result.
    pub(crate) fn operators(&self, name: &str) -> impl Iterator<Item = (&str, bool)> {
        let schemas = self.others.operators.get(name).into_iter().flatten();
        schemas.map(|(schema, pure)| (schema.as_str(), *pure))
    }

    pub(crate) fn types(&self, name: &str) -> impl Iterator<Item = &str> {
        schemas_of(&self.others.types, name)
    }

    pub(crate) fn harmless_types(&self, name: &str) -> impl Iterator<Item = &str> {
        schemas_of(&self.others.harmless_types, name)
    }

    /// The schema of the type if its input may run code, else none. An error if
    /// there is no such type.
    pub(crate) fn type_by_oid(&self, oid: u32) -> Result<Option<&str>, UnknownType> {
        let known = self.others.types_by_oid.get(&oid).ok_or(UnknownType)?;
        Ok(known.as_deref())
    }

    pub(crate) fn collations(&self, name: &str) -> impl Iterator<Item = &str> {
        schemas_of(&self.others.collations, name)
    }

    /// The relation, its parents and its children, all the way.
    pub(crate) fn relatives<'a>(&'a self, relation: &'a Relation) -> Vec<&'a Relation> {
        let mut found = vec![relation];
        let mut at = 0;
        while at < found.len() {
            let here = found[at];
            at += 1;
            let parents = here
                .parents
                .iter()
                .filter_map(|oid| self.relation_by_oid(*oid));
            for other in parents.chain(self.children(here.oid)) {
                if !found.iter().any(|known| known.oid == other.oid) {
                    found.push(other);
                }
            }
        }
        found
    }

    /// Partitions and children, direct ones.
    pub(crate) fn children(&self, oid: u32) -> impl Iterator<Item = &Relation> {
        self.children
            .get(&oid)
            .into_iter()
            .flatten()
            .filter_map(|oid| self.relation_by_oid(*oid))
    }
}

/// Whether a schema is PostgreSQL's own.
pub(crate) fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

fn schemas_of<'a>(
    names: &'a BTreeMap<String, BTreeSet<String>>,
    name: &str,
) -> impl Iterator<Item = &'a str> + use<'a> {
    names.get(name).into_iter().flatten().map(String::as_str)
}

/// A write to a parent reaches its children.
fn mark_parents(found: &mut [Relation], places: &HashMap<u32, usize>, oid: u32) {
    let mut marked = vec![oid];
    while let Some(oid) = marked.pop() {
        let Some(place) = places.get(&oid) else {
            continue;
        };
        let relation = &mut found[*place];
        if !relation.code_on_write {
            relation.code_on_write = true;
            marked.extend(&relation.parents);
        }
    }
}

/// What two overloads of one name do together, if that can be said.
fn both(one: Option<FunctionClass>, other: Option<FunctionClass>) -> Option<FunctionClass> {
    match (one?, other?) {
        (one, FunctionClass::Pure) => Some(one),
        (FunctionClass::Pure, other) => Some(other),
        (one, other) => (one == other).then_some(one),
    }
}

impl Cascade {
    /// From `pg_constraint.confdeltype` or `confupdtype`.
    fn from_action(action: &str, cascade: Self) -> Self {
        match action {
            "c" => cascade,
            "n" | "d" => Self::Update,
            _ => Self::Nothing,
        }
    }
}

impl From<Stored> for Catalogue {
    fn from(stored: Stored) -> Self {
        let Stored {
            epoch,
            relations,
            others,
            schemas,
        } = stored;
        let mut catalogue = Self {
            epoch,
            others,
            schemas: schemas.into_iter().collect(),
            ..Self::default()
        };
        for (place, relation) in relations.iter().enumerate() {
            catalogue
                .by_name
                .entry(relation.name.clone())
                .or_default()
                .push(place);
            catalogue.by_oid.insert(relation.oid, place);
            for parent in &relation.parents {
                catalogue
                    .children
                    .entry(*parent)
                    .or_default()
                    .push(relation.oid);
            }
        }
        catalogue.relations = relations;
        catalogue
    }
}

impl From<Catalogue> for Stored {
    fn from(catalogue: Catalogue) -> Self {
        let Catalogue {
            epoch,
            relations,
            others,
            schemas,
            by_name: _,
            by_oid: _,
            children: _,
        } = catalogue;
        let mut schemas: Vec<_> = schemas.into_iter().collect();
        schemas.sort();
        Self {
            epoch,
            relations,
            others,
            schemas,
        }
    }
}

impl RelationKind {
    fn from_relkind(relkind: &str) -> Result<Self, String> {
        Ok(match relkind {
            "r" | "p" => Self::Table,
            "v" => Self::View,
            "m" => Self::MaterializedView,
            "f" => Self::ForeignTable,
            "S" => Self::Sequence,
            "i" | "I" => Self::Index,
            "c" => Self::Composite,
            "t" => Self::Toast,
            _ => return Err(format!("relkind {relkind}")),
        })
    }
}

fn read<T>(
    query: &'static str,
    rows: &Rows,
    mut one: impl FnMut(&[Option<String>]) -> Result<T, String>,
) -> Result<Vec<T>, CatalogueError> {
    let row = |(row, columns): (usize, &Vec<_>)| {
        one(columns).map_err(|problem| CatalogueError {
            query,
            row,
            problem,
        })
    };
    rows.iter().enumerate().map(row).collect()
}

fn texts<const N: usize>(row: &[Option<String>]) -> Result<[&str; N], String> {
    let texts: Option<Vec<&str>> = row.iter().map(Option::as_deref).collect();
    texts
        .and_then(|texts| texts.try_into().ok())
        .ok_or_else(|| format!("{} columns or a null, not {N} values", row.len()))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "not a number".to_owned())
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "t" => Ok(true),
        "f" => Ok(false),
        _ => Err("not a boolean".to_owned()),
    }
}
