//! The second lock: what the database roles of a target's workloads need, and
//! what they have beyond it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::bail;
use lockgate_command::{Access, Resource, ResourceKind, TargetName, Verb, WorkloadName};
use lockgate_config::{Credential, Protocol, Target};
use lockgate_ipc::{Look, Wanted};
use lockgate_policy::Policies;
use serde_json::json;

use super::server;
use crate::checked::{self, Checked};
use crate::cli::{AskedServer, ConfigFile, Json};
use crate::exit::Exit;

/// One role in one database.
struct Role<'a> {
    policies: &'a Policies,
    target: TargetName,
    workload: WorkloadName,
    name: &'a str,
    database: &'a str,
}

/// A right that no policy asks for.
#[derive(Debug, PartialEq, Eq)]
struct TooMuch {
    message: String,
    /// SQL that takes it away.
    fix: String,
}

/// keeper's answer about one role.
#[derive(serde::Deserialize)]
struct Rights {
    /// Kind, and two names.
    rights: Vec<[String; 3]>,
}

/// Prints the SQL, and what is too much now.
pub(crate) fn prepare(
    target: &str,
    file: &ConfigFile,
    json: Json,
    asked: &AskedServer,
) -> anyhow::Result<Exit> {
    let Checked { loaded, policies } = match checked::load(&file.config, 1) {
        Ok(checked) => checked,
        Err(findings) => {
            super::print_findings(&findings);
            return Ok(Exit::Usage);
        }
    };
    let config = &loaded.bundle.config;
    let target = server::target(config, target)?;
    if target.protocol != Protocol::Postgres || target.credentials.is_empty() {
        bail!(
            "target `{}` has no `credentials`, so that there is no role to prepare",
            target.name
        );
    }
    let databases = server::asked_databases(&policies, target, asked)?;
    let mut sql = preface(target);
    let mut found = Vec::new();
    let mut away = None;
    for database in &databases {
        for credential in &target.credentials {
            let role = Role {
                policies: &policies,
                target: target.name.as_str().into(),
                workload: credential.workload.as_str().into(),
                name: &credential.user,
                database,
            };
            let run_dir = &config.agent.run_dir;
            let (name, workload) = (&target.name, &credential.workload);
            let live = match &away {
                Some(_) => None,
                None => match server::database(run_dir, name, workload, database, asked.server) {
                    Ok(live) => Some(live),
                    Err(error) => {
                        away = Some(format!("{error:#}"));
                        None
                    }
                },
            };
            let schemas = match &live {
                Some(live) => live
                    .catalogue
                    .schemas()
                    .filter(|schema| !is_system(schema))
                    .map(str::to_owned)
                    .collect(),
                None => role.named_schemas(),
            };
            if *database == databases[0] {
                sql.push_str(&role.creation());
            }
            sql.push_str(&role.grants(&schemas));
            if live.is_some() {
                let look = Look {
                    target: name.as_str().into(),
                    workload: workload.as_str().into(),
                    database: database.clone(),
                    server: asked.server,
                    what: Wanted::Rights,
                };
                let rights: Rights = server::look(run_dir, look)?;
                let too_much = role.too_much(&rights.rights);
                found.extend(too_much.into_iter().map(|it| (credential, database, it)));
            }
        }
    }
    match json.json {
        true => {
            let findings = found.iter().map(|(credential, database, it)| {
                let Credential { workload, user, .. } = credential;
                json!({ "workload": workload, "user": user, "database": database,
                        "message": it.message, "fix": it.fix })
            });
            let findings: Vec<_> = findings.collect();
            println!(
                "{}",
                json!({ "sql": sql, "findings": findings, "not_asked": away })
            );
        }
        false => {
            print!("{sql}");
            for (credential, database, it) in &found {
                eprintln!(
                    "warning: `{}` (of `{}`) in database `{database}` {}\n  = help: {}",
                    credential.user, credential.workload, it.message, it.fix
                );
            }
            match &away {
                Some(why) => eprintln!("what the roles may do now was not looked at: {why}"),
                None => eprintln!("{}", super::counted(found.len(), "right") + " too much"),
            }
        }
    }
    Ok(match found.is_empty() {
        true => Exit::Yes,
        false => Exit::No,
    })
}

fn preface(target: &Target) -> String {
    format!(
        "-- Roles for target {}: each with no more rights than its policies permit.
-- Read it, then run it with psql as the owner of the databases, past lockgate.
--
-- lockgate reads the catalogue as these roles, too. For that they need nothing
-- but CONNECT: pg_catalog is open to every role. ALTER DEFAULT PRIVILEGES is for
-- the tables that whoever runs this makes later; run it as whoever makes them.

",
        target.name
    )
}

fn is_system(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

/// What a verb takes at the server, on tables and on sequences.
const PRIVILEGES: [(Verb, &str); 5] = [
    (Verb::Select, "SELECT"),
    (Verb::Insert, "INSERT"),
    (Verb::Update, "UPDATE"),
    (Verb::Delete, "DELETE"),
    (Verb::Truncate, "TRUNCATE"),
];

impl Role<'_> {
    fn permits(&self, verb: Verb, resource: Resource) -> bool {
        let access = Access::new(verb, resource);
        let why = self.policies.explain(&self.workload, &self.target, &access);
        why.is_permitted()
    }

    fn schema(&self, schema: &str) -> Resource {
        Resource::new(ResourceKind::Schema, [self.database, schema])
    }

    fn table(&self, schema: &str, table: &str) -> Resource {
        Resource::new(ResourceKind::Table, [self.database, schema, table])
    }

    /// The schemas of this database that policies name, or `public`.
    fn named_schemas(&self) -> BTreeSet<String> {
        let named = self.policies.names_at(&self.target).into_iter();
        let mut schemas: BTreeSet<String> = named
            .filter(|resource| {
                resource
                    .path()
                    .first()
                    .is_some_and(|it| it == self.database)
            })
            .filter_map(|resource| resource.path().get(1).cloned())
            .filter(|schema| !is_system(schema))
            .collect();
        if schemas.is_empty() {
            schemas.insert("public".into());
        }
        schemas
    }

    fn privileges(&self, resource: impl Fn() -> Resource) -> Vec<&'static str> {
        let permitted = PRIVILEGES
            .iter()
            .filter(|(verb, _)| self.permits(*verb, resource()));
        permitted.map(|(_, privilege)| *privilege).collect()
    }

    /// SQL that makes the role.
    fn creation(&self) -> String {
        let role = quoted(self.name);
        format!(
            "-- {} logs in as {role}; set its password with \\password\n\
             CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;\n",
            self.workload
        )
    }

    /// SQL that gives the role what its policies permit in the database.
    fn grants(&self, schemas: &BTreeSet<String>) -> String {
        let role = quoted(self.name);
        let mut sql = String::new();
        // Writing to a string does not fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = sql.write_fmt(text);
            sql.push('\n');
        };
        line(format_args!("\\connect {}", quoted(self.database)));
        line(format_args!(
            "GRANT CONNECT ON DATABASE {} TO {role};",
            quoted(self.database)
        ));
        let anchors = self.policies.permitted_at(&self.workload, &self.target);
        // Tables that policies name, by schema: they differ from their schema.
        let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for resource in self.policies.names_at(&self.target).iter().chain(&anchors) {
            if let (ResourceKind::Table, [database, schema, table]) =
                (resource.kind(), resource.path())
                && database == self.database
            {
                tables
                    .entry(schema.clone())
                    .or_default()
                    .insert(table.clone());
            }
        }
        let schemas: BTreeSet<&String> = schemas.iter().chain(tables.keys()).collect();
        let mut owner = BTreeSet::new();
        for schema in schemas {
            let of_schema = || self.schema(schema);
            let whole = self.privileges(of_schema);
            let sequences = self.permits(Verb::UseSequence, of_schema());
            let creates = self.permits(Verb::Create, of_schema());
            for verb in [Verb::Alter, Verb::Drop, Verb::Maintain] {
                if self.permits(verb, of_schema()) {
                    owner.insert(verb.as_str());
                }
            }
            let named = tables.get(schema).into_iter().flatten();
            let named: Vec<(&String, Vec<&str>)> = named
                .map(|table| (table, self.privileges(|| self.table(schema, table))))
                .collect();
            let any = named.iter().any(|(_, privileges)| !privileges.is_empty());
            if whole.is_empty() && !sequences && !creates && !any {
                continue;
            }
            let schema = quoted(schema);
            line(format_args!("GRANT USAGE ON SCHEMA {schema} TO {role};"));
            if creates {
                line(format_args!("GRANT CREATE ON SCHEMA {schema} TO {role};"));
            }
            if !whole.is_empty() {
                let whole = whole.join(", ");
                line(format_args!(
                    "GRANT {whole} ON ALL TABLES IN SCHEMA {schema} TO {role};\n\
                     ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT {whole} ON TABLES TO {role};"
                ));
            }
            if sequences {
                line(format_args!(
                    "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
                ));
            }
            for (table, privileges) in named {
                let table = format!("{schema}.{}", quoted(table));
                let less = whole.iter().filter(|it| !privileges.contains(it));
                let more = privileges.iter().filter(|it| !whole.contains(it));
                for (verb, what, word) in [
                    ("REVOKE", joined(less), "FROM"),
                    ("GRANT", joined(more), "TO"),
                ] {
                    if !what.is_empty() {
                        line(format_args!(
                            "{verb} {what} ON TABLE {table} {word} {role};"
                        ));
                    }
                }
            }
        }
        if !owner.is_empty() {
            let owner: Vec<&str> = owner.into_iter().collect();
            line(format_args!(
                "-- {} is for the owner of a table alone: make {role} the owner of what it changes.",
                owner.join(", ")
            ));
        }
        sql.push('\n');
        sql
    }

    /// What of a role's rights no policy asks for.
    fn too_much(&self, rights: &[[String; 3]]) -> Vec<TooMuch> {
        let role = quoted(self.name);
        let mut found = Vec::new();
        let mut add = |message: String, fix: String| found.push(TooMuch { message, fix });
        let is = |kind: &str| of_kind(rights, kind);
        if is("attribute").any(|right| right[1] == "SUPERUSER") {
            add(
                "is SUPERUSER: nothing at the server holds it".into(),
                format!("ALTER ROLE {role} NOSUPERUSER; then look again"),
            );
            // Whoever is has every right there is.
            return found;
        }
        for [_, attribute, _] in is("attribute") {
            add(
                format!("has {attribute}"),
                format!("ALTER ROLE {role} NO{attribute};"),
            );
        }
        for [_, member, _] in is("member").filter(|right| right[1].starts_with("pg_")) {
            add(
                format!("is a member of {member}"),
                format!("REVOKE {} FROM {role};", quoted(member)),
            );
        }
        for [_, _, schema] in is("create by all") {
            add(
                format!(
                    "may CREATE in schema `{schema}`, as every role may: a function or operator made there can stand in for another one"
                ),
                format!("REVOKE CREATE ON SCHEMA {} FROM PUBLIC;", quoted(schema)),
            );
        }
        for [_, kind, name] in is("create") {
            let (resource, what) = match kind.as_str() {
                "database" => (
                    Resource::new(ResourceKind::Database, [self.database]),
                    "DATABASE",
                ),
                _ => (self.schema(name), "SCHEMA"),
            };
            if !self.permits(Verb::Create, resource) {
                add(
                    format!("may CREATE in {kind} `{name}`; no policy permits that"),
                    format!("REVOKE CREATE ON {what} {} FROM {role};", quoted(name)),
                );
            }
        }
        let beyond = |kind: &str, verb: Verb| {
            is(kind)
                .filter(|[_, schema, table]| !self.permits(verb, self.table(schema, table)))
                .map(|[_, schema, table]| format!("{}.{}", quoted(schema), quoted(table)))
                .collect::<Vec<String>>()
        };
        let owned = beyond("owner", Verb::Alter);
        if !owned.is_empty() {
            add(
                format!(
                    "owns {}: it may alter and drop that; no policy permits it",
                    some(&owned)
                ),
                "ALTER TABLE … OWNER TO another role;".into(),
            );
        }
        for (verb, privilege) in PRIVILEGES {
            let kind = format!("table {}", privilege.to_lowercase());
            let tables: Vec<String> = beyond(&kind, verb)
                .into_iter()
                .filter(|table| !owned.contains(table))
                .collect();
            if !tables.is_empty() {
                add(
                    format!(
                        "may {privilege} in {}; no policy permits that",
                        some(&tables)
                    ),
                    format!("REVOKE {privilege} ON {} FROM {role};", tables.join(", ")),
                );
            }
        }
        found
    }
}

fn of_kind<'a>(
    rights: &'a [[String; 3]],
    kind: &str,
) -> impl Iterator<Item = &'a [String; 3]> + use<'a> {
    let kind = kind.to_owned();
    rights.iter().filter(move |right| right[0] == kind)
}

fn joined<'a>(words: impl Iterator<Item = &'a &'static str>) -> String {
    words.copied().collect::<Vec<&str>>().join(", ")
}

/// A few of many.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// An identifier as SQL takes it, whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
