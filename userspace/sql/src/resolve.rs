use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use lockgate_command::{Access, Refusal, Resource, ResourceKind, Statement, Verb};

use crate::analysis::{Analysis, Facts};
use crate::builtin::{function_class, is_type};
use crate::catalogue::{Cascade, Catalogue, Reference, Relation, RelationKind, is_system};
use crate::lineage::Lineage;
use crate::names::{Name, Need};
use crate::tags::{Tags, view};

mod code;
mod exact;
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

    fn relation(&mut self, verb: Verb, name: &'a Name) {
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
    fn tagged_in_database(&mut self, database: &str) {
        for access in self.tags.view_accesses(database) {
            self.push(access);
        }
    }

    fn tagged_in_schema(&mut self, schema: &str) {
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

    fn tagged(&mut self, verb: Verb, schema: &str, name: &str) {
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

/// What an unqualified name of a relation may mean: all of that name on the
/// path. The server takes the first, but a statement that was prepared before
/// the first was made keeps another, and so does one whose names are resolved
/// here before somebody drops the first. Nobody takes a name away from the
/// system's relations, so nothing behind one of them counts. pg_catalog comes
/// before all, unless the path has it elsewhere.
fn all_on<'a, 'n>(
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
