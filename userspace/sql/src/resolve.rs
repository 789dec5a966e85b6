use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use lockgate_command::{Access, Refusal, Resource, ResourceKind, Statement, Verb};

use crate::analysis::{Analysis, Facts};
use crate::builtin::{function_class, is_type};
use crate::catalogue::{Catalogue, is_system};
use crate::lineage::Lineage;
use crate::names::{Name, Need};
use crate::tags::Tags;

mod code;
mod exact;
mod relations;
mod system_relations;

/// What unqualified names mean in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionNames {
    /// The database connected to.
    pub database: String,
    /// The role logged in as.
    pub user: String,
    /// Where unqualified names are looked for.
    pub search_path: SearchPath,
}

/// The schemas of unqualified names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchPath {
    /// In order, as `current_schemas(true)` gives them: with pg_catalog and
    /// the session's temporary schema where they are.
    Known(Vec<String>),
    /// Any: a name is then every relation of that name, all at once.
    Unknown,
}

/// What a text does in one session.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What a decision is about.
    pub statement: Arc<Statement>,
    /// What else the caller must know.
    pub effects: Effects,
}

/// What a statement does to the session and to what is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Names may have another meaning afterwards; the caller takes the search
    /// path for [`SearchPath::Unknown`].
    pub names_change: bool,
    /// The catalogue is another one afterwards; the caller reads it anew
    /// before the next decision.
    pub catalogue_changes: bool,
    /// A relation with a tagged column is touched, or code that may do so runs:
    /// texts of the server's errors may show its values.
    pub touches_tagged_relation: bool,
    /// It runs code that nobody has read. That may have prepared statements of
    /// its own, so that EXECUTE cannot be followed afterwards.
    pub runs_code: bool,
    /// It gives a portal a name in SQL, likewise.
    pub declares: bool,
    /// It reads on in a cursor, whose query was decided on before.
    pub fetches: bool,
    /// It may read COPY data from the client.
    pub copy_in: bool,
    /// The COPY data that it may send to the client.
    pub copy_out: CopyOut,
}

impl Effects {
    /// The effects of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            names_change: self.names_change | other.names_change,
            catalogue_changes: self.catalogue_changes | other.catalogue_changes,
            touches_tagged_relation: self.touches_tagged_relation | other.touches_tagged_relation,
            runs_code: self.runs_code | other.runs_code,
            declares: self.declares | other.declares,
            fetches: self.fetches | other.fetches,
            copy_in: self.copy_in | other.copy_in,
            copy_out: self.copy_out.and(other.copy_out),
        }
    }
}

/// The form of the COPY data that a client is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyOut {
    /// There are none.
    #[default]
    None,
    /// `FORMAT text`, with NULL as it is by default.
    Text {
        /// `DELIMITER`
        delimiter: u8,
        /// `HEADER`
        header: bool,
    },
    /// `FORMAT csv`, with NULL and quotes as they are by default.
    Csv {
        /// `DELIMITER`
        delimiter: u8,
        /// `HEADER`
        header: bool,
    },
    /// `FORMAT binary`
    Binary,
    /// Something else, or several.
    Other,
}

impl CopyOut {
    /// That of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, form) | (form, Self::None) => form,
            _ => Self::Other,
        }
    }
}

/// A statement that nobody may run, for what is no SQL text or cannot be
/// looked at as one.
pub fn refused(refusal: Refusal) -> Arc<Statement> {
    Arc::new(statement(
        &Analysis::refused(refusal),
        Vec::new(),
        Vec::new(),
    ))
}

/// What `analysis` does in a session with `session`'s names, when the database
/// is as `catalogue` says. EXECUTE is opaque.
pub fn resolve(
    analysis: &Analysis,
    catalogue: &Catalogue,
    session: &SessionNames,
    tags: &Tags,
) -> Resolved {
    resolve_executing(analysis, None, catalogue, session, tags)
}

/// As [`resolve`], for a text whose EXECUTE runs one of `executed`: all that its
/// names may stand for. What the server makes of a prepared statement depends
/// on the names that hold now, so it is resolved anew. Which of them it will be
/// is not known, so nothing is said of what the result shows: whatever touches a
/// tagged column needs `view`.
pub fn resolve_executing(
    analysis: &Analysis,
    executed: Option<&[Arc<Analysis>]>,
    catalogue: &Catalogue,
    session: &SessionNames,
    tags: &Tags,
) -> Resolved {
    let plain = |one: &Arc<Analysis>| one.refusal.is_none() && one.facts.executes.is_empty();
    let executed = executed.filter(|executed| executed.iter().all(plain));
    let resolved = |path| {
        let mut resolver = Resolver::new(catalogue, &session.database, path, tags, &analysis.facts);
        resolver.needs();
        for one in executed.unwrap_or_default() {
            resolver.turn_to(&one.facts);
            resolver.needs();
        }
        if executed.is_none() && !analysis.facts.executes.is_empty() {
            resolver.database(Verb::Opaque);
            resolver.effects.catalogue_changes = true;
        }
        resolver.finish(analysis)
    };
    let resolution = resolved(&session.search_path);
    // By name, a tagged column is seen wherever it may be touched. Where its way
    // to the result is certain, that says what is needed.
    if executed.is_none()
        && resolution.needs_view()
        && let Some(exact) = exact::resolve(analysis, catalogue, session, tags)
    {
        return exact;
    }
    // A function that one statement of several calls can change what names
    // mean in the next one.
    if analysis.facts.several && resolution.effects.names_change {
        return resolved(&SearchPath::Unknown);
    }
    resolution
}

impl Resolved {
    fn needs_view(&self) -> bool {
        let accesses = &self.statement.accesses;
        accesses.iter().any(|access| access.verb == Verb::View)
    }
}

fn statement(analysis: &Analysis, accesses: Vec<Access>, beneath: Vec<Access>) -> Statement {
    let reads = |access: &Access| {
        matches!(
            access.verb,
            Verb::Connect
                | Verb::Session
                | Verb::Describe
                | Verb::Select
                | Verb::Listen
                | Verb::View
                | Verb::Filter
                | Verb::Inspect
        )
    };
    Statement {
        writes: analysis.refusal.is_some() || !accesses.iter().all(reads),
        accesses,
        shown: Vec::new(),
        outputs: None,
        beneath,
        shape: analysis.shape.clone(),
        refusal: analysis.refusal.clone(),
    }
}

/// Whether a field in the text may be a function of its whole row.
fn row_functions(facts: &Facts, catalogue: &Catalogue) -> bool {
    let of_rows =
        |need: &Need| matches!(need, Need::Attribute(name) if takes_rows(catalogue, name));
    facts.needs.iter().any(of_rows)
}

struct Resolver<'a> {
    catalogue: &'a Catalogue,
    database: &'a str,
    path: &'a SearchPath,
    tags: &'a Tags,
    facts: &'a Facts,
    /// What says how tagged columns are touched, better than their names do.
    lineage: Option<&'a Lineage>,
    /// Whether a field may be a function of its whole row: `t.row_to_json`.
    row_functions: bool,
    /// Whether values may be made of the types of columns, without their names.
    converts: bool,
    accesses: Vec<Access>,
    beneath: BTreeSet<Access>,
    seen: HashSet<Access>,
    /// Where cascades have been followed from.
    cascaded: HashSet<(Verb, u32, bool)>,
    effects: Effects,
}

impl<'a> Resolver<'a> {
    fn new(
        catalogue: &'a Catalogue,
        database: &'a str,
        path: &'a SearchPath,
        tags: &'a Tags,
        facts: &'a Facts,
    ) -> Self {
        Self {
            catalogue,
            database,
            path,
            tags,
            facts,
            lineage: None,
            row_functions: row_functions(facts, catalogue),
            converts: facts.converts() || row_functions(facts, catalogue),
            accesses: Vec::new(),
            beneath: BTreeSet::new(),
            seen: HashSet::new(),
            cascaded: HashSet::new(),
            effects: Effects {
                names_change: facts.names_change,
                catalogue_changes: facts.catalogue_changes,
                touches_tagged_relation: false,
                runs_code: false,
                declares: facts.declares,
                fetches: facts.fetches,
                copy_in: facts.copy_in,
                copy_out: facts.copy_out,
            },
        }
    }

    /// What follows is about another text, besides the first.
    fn turn_to(&mut self, facts: &'a Facts) {
        self.facts = facts;
        self.row_functions = row_functions(facts, self.catalogue);
        self.converts |= facts.converts() || self.row_functions;
        let effects = &mut self.effects;
        effects.names_change |= facts.names_change;
        effects.catalogue_changes |= facts.catalogue_changes;
        effects.declares |= facts.declares;
        effects.fetches |= facts.fetches;
        effects.copy_in |= facts.copy_in;
        effects.copy_out = effects.copy_out.and(facts.copy_out);
    }

    fn needs(&mut self) {
        let facts = self.facts;
        for need in &facts.needs {
            self.need(need);
        }
    }

    fn finish(mut self, analysis: &Analysis) -> Resolved {
        let defines = |access: &Access| {
            use Verb::{Alter, Code, Create, Drop, Grant, Maintain};
            matches!(access.verb, Create | Alter | Drop | Maintain | Code | Grant)
        };
        if self.catalogue.has_event_triggers() && self.accesses.iter().any(defines) {
            self.database(Verb::Opaque);
        }
        let Self {
            mut accesses,
            beneath,
            effects,
            ..
        } = self;
        let named = |access: &Access| accesses.contains(access);
        let beneath = beneath
            .into_iter()
            .filter(|access| !named(access))
            .collect();
        if accesses.is_empty() && analysis.refusal.is_none() {
            accesses.push(Access::new(Verb::Session, Resource::target()));
        }
        Resolved {
            statement: Arc::new(statement(analysis, accesses, beneath)),
            effects,
        }
    }

    fn need(&mut self, need: &'a Need) {
        match need {
            Need::Target(verb) => self.add(*verb, Resource::target()),
            Need::Database(verb) => {
                self.database(*verb);
                if *verb == Verb::Select {
                    self.tagged_in_database(self.database);
                }
            }
            Need::OtherDatabase(verb, name) => {
                self.add(*verb, Resource::new(ResourceKind::Database, [name]));
                if *verb == Verb::Select {
                    self.tagged_in_database(name);
                }
            }
            Need::Schema(verb, name) => {
                self.schema(*verb, name);
                // All of its tables at once, or another name for them, which
                // would lose their tags.
                if matches!(verb, Verb::Select | Verb::Alter) {
                    self.tagged_in_schema(name);
                }
            }
            Need::InSchema(verb, name) => self.in_schema(*verb, name),
            Need::Relation(verb, name) => self.relation(*verb, name),
            Need::NewRelation { name, temporary } => self.new_relation(name, *temporary),
            Need::Function(name) => self.function(name),
            Need::OtherFunction(name) => {
                self.other_functions(name);
            }
            Need::FunctionObject(verb, name) => self.function_object(*verb, name),
            Need::Attribute(name) => self.attribute(name),
            Need::Operator(name) => self.operator(name),
            Need::Type(name) => self.type_(name),
            Need::TypeByOid(oid) => self.type_by_oid(*oid),
            Need::Collation(name) => self.collation(name),
        }
    }

    fn add(&mut self, verb: Verb, resource: Resource) {
        // What runs somebody's code can change every setting of the session.
        if matches!(verb, Verb::Call | Verb::Code | Verb::Opaque) {
            self.effects.names_change = true;
            // And read every table.
            self.effects.touches_tagged_relation |= !self.tags.is_empty();
            self.effects.runs_code = true;
        }
        let access = Access::new(verb, resource);
        if self.seen.insert(access.clone()) {
            self.accesses.push(access);
        }
    }

    fn database(&mut self, verb: Verb) {
        self.add(verb, Resource::new(ResourceKind::Database, [self.database]));
    }

    fn schema(&mut self, verb: Verb, schema: &str) {
        self.add(
            verb,
            Resource::new(ResourceKind::Schema, [self.database, plain(schema)]),
        );
    }

    fn table(&mut self, verb: Verb, schema: &str, table: &str) {
        let path = [self.database, plain(schema), table];
        self.add(verb, Resource::new(ResourceKind::Table, path));
    }

    fn call(&mut self, schema: &str, name: &str) {
        self.of_function(Verb::Call, schema, name);
    }

    /// Where something is made that is named without a schema.
    fn creation_schema(&self) -> &'a str {
        match self.path {
            SearchPath::Known(path) => path
                .iter()
                .map(String::as_str)
                .find(|schema| *schema != "pg_catalog" && !is_temporary(schema))
                .unwrap_or(UNKNOWN),
            SearchPath::Unknown => UNKNOWN,
        }
    }

    fn in_schema(&mut self, verb: Verb, name: &Name) {
        let catalogue = self.catalogue;
        if verb == Verb::Alter && !is_system(name.schema.as_deref().unwrap_or_default()) {
            // A check of a domain is made for all values that there are.
            for schema in catalogue.types(&name.name) {
                self.schema(Verb::Opaque, schema);
            }
        }
        if let Some(schema) = &name.schema {
            return self.schema(verb, schema);
        }
        if verb == Verb::Create {
            return self.schema(verb, self.creation_schema());
        }
        let types = catalogue
            .types(&name.name)
            .chain(catalogue.harmless_types(&name.name));
        let found: Vec<_> = types.chain(catalogue.collations(&name.name)).collect();
        if !found.is_empty() {
            return found
                .into_iter()
                .for_each(|schema| self.schema(verb, schema));
        }
        // One of those that the catalogue does not list: it may be in each.
        match self.path {
            SearchPath::Known(path) => {
                for schema in path.iter().filter(|schema| !is_system(schema)) {
                    self.schema(verb, schema);
                }
            }
            SearchPath::Unknown => self.schema(verb, UNKNOWN),
        }
    }

    fn new_relation(&mut self, name: &Name, temporary: bool) {
        let schema = match &name.schema {
            _ if temporary => TEMPORARY,
            Some(schema) => schema,
            None => self.creation_schema(),
        };
        self.table(Verb::Create, schema, &name.name);
        if is_system(schema) {
            self.add(Verb::System, Resource::target());
        }
    }

    fn push(&mut self, access: Access) {
        self.add(access.verb, access.resource);
    }

    fn function_object(&mut self, verb: Verb, name: &Name) {
        let catalogue = self.catalogue;
        match name.schema.as_deref() {
            Some(schema) => self.of_function(verb, schema, &name.name),
            None if verb == Verb::Create => {
                self.of_function(verb, self.creation_schema(), &name.name);
            }
            None => {
                let functions = catalogue.functions(&name.name).map(|(schema, _)| schema);
                let operators = catalogue.operators(&name.name).map(|(schema, _)| schema);
                let found: Vec<_> = functions.chain(operators).collect();
                if found.is_empty() {
                    self.of_function(verb, UNKNOWN, &name.name);
                }
                for schema in found {
                    self.of_function(verb, schema, &name.name);
                }
            }
        }
    }

    fn of_function(&mut self, verb: Verb, schema: &str, name: &str) {
        let path = [self.database, plain(schema), name];
        self.add(verb, Resource::new(ResourceKind::Function, path));
    }
}

/// Whether a function of that name may be applied to a row. No type's name
/// makes such a function: rows are not converted by them.
fn takes_rows(catalogue: &Catalogue, name: &str) -> bool {
    let built_in = function_class(name).is_some() && !is_type(name);
    built_in || catalogue.functions(name).next().is_some()
}

/// The schema of what no schema is known to have. No real one is called so
/// in practice, and it lies in the database like the others.
const UNKNOWN: &str = "?";

/// Each session has its own, by a number that means nothing to a policy.
const TEMPORARY: &str = "pg_temp";

fn is_temporary(schema: &str) -> bool {
    schema == TEMPORARY || schema.starts_with("pg_temp_")
}

fn plain(schema: &str) -> &str {
    if is_temporary(schema) {
        TEMPORARY
    } else {
        schema
    }
}
