//! What the running agent can tell of a target's servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use lockgate_command::{ResourceKind, WorkloadName};
use lockgate_config::{Config, Target};
use lockgate_ipc::{Look, Wanted};
use lockgate_policy::{Policies, closest};
use lockgate_sql::{Catalogue, SearchPath};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::AskedServer;
use crate::control::{Request, ask};
use crate::exit::AgentAway;

/// A database as its server has it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Database {
    /// Where it was asked.
    pub(super) server: SocketAddr,
    /// As whom.
    pub(super) user: String,
    /// Schemas of unqualified names.
    pub(super) search_path: Vec<String>,
    pub(super) catalogue: Catalogue,
}

impl Database {
    pub(super) fn path(&self) -> SearchPath {
        SearchPath::Known(self.search_path.clone())
    }
}

/// Has the agent look into a database.
pub(super) fn database(
    run_dir: &Path,
    target: &str,
    workload: &str,
    database: &str,
    server: Option<SocketAddr>,
) -> anyhow::Result<Database> {
    look(
        run_dir,
        Look {
            target: target.into(),
            workload: workload.into(),
            database: database.into(),
            server,
            what: Wanted::Catalogue,
        },
    )
}

/// Asks the agent; the error says that it, or the server behind it, is away.
pub(super) fn look<T: DeserializeOwned>(run_dir: &Path, look: Look) -> anyhow::Result<T> {
    let answer: Value = ask(run_dir, &Request::Look(look))?;
    match answer["error"].as_str() {
        Some(why) => Err(AgentAway(why.to_owned()).into()),
        None => serde_json::from_value(answer).context("the agent's answer has another form"),
    }
}

/// The target of that name.
pub(super) fn target<'a>(config: &'a Config, name: &str) -> anyhow::Result<&'a Target> {
    if let Some(target) = config.targets.iter().find(|target| target.name == name) {
        return Ok(target);
    }
    let names = config.targets.iter().map(|target| target.name.as_str());
    bail!("there is no target `{name}`{}", hint(name, names))
}

/// That there is a workload of that name, or that it is `unknown`.
pub(super) fn workload(config: &Config, name: &str) -> anyhow::Result<WorkloadName> {
    let unknown = WorkloadName::unknown();
    let names = config.workloads.iter().map(|it| it.name.as_str());
    let names: Vec<&str> = names.chain([unknown.as_str()]).collect();
    if names.contains(&name) {
        return Ok(name.into());
    }
    bail!(
        "there is no workload `{name}`{}",
        hint(name, names.into_iter())
    )
}

/// `; did you mean …?`, or which there are.
pub(super) fn hint<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match closest(wrong, names.iter().copied()) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; there are: {}", names.join(", ")),
    }
}

/// The databases that policies and tags speak of.
pub(super) fn databases(policies: &Policies, target: &Target) -> BTreeSet<String> {
    let named = policies.names_at(&target.name.as_str().into()).into_iter();
    let named = named.filter_map(|resource| resource.path().first().cloned());
    let tagged = target.tags.iter().filter_map(|tag| {
        let names: Vec<&str> = tag.columns.split('.').collect();
        (names.len() == 4).then(|| names[0].to_owned())
    });
    named.chain(tagged).collect()
}

/// The databases that are meant: the one that was asked for, or all of those.
pub(super) fn asked_databases(
    policies: &Policies,
    target: &Target,
    asked: &AskedServer,
) -> anyhow::Result<Vec<String>> {
    let all: Vec<String> = match &asked.database {
        Some(database) => vec![database.clone()],
        None => databases(policies, target).into_iter().collect(),
    };
    if all.is_empty() {
        bail!("policies and tags name no database; say which is meant: --database NAME");
    }
    Ok(all)
}

/// The tables of a database that policies and tags speak of, with the columns
/// they name: all that is known where no server is asked.
pub(super) fn tables(
    policies: &Policies,
    target: &Target,
    database: &str,
) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut tables: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for resource in policies.names_at(&target.name.as_str().into()) {
        match (resource.kind(), resource.path()) {
            (ResourceKind::Table, [of, schema, table]) if of == database => {
                tables.entry((schema.clone(), table.clone())).or_default();
            }
            (ResourceKind::Column, [of, schema, table, column]) if of == database => {
                let columns = tables.entry((schema.clone(), table.clone())).or_default();
                columns.insert(column.clone());
            }
            _ => {}
        }
    }
    for tag in &target.tags {
        let names: Vec<&str> = tag.columns.split('.').collect();
        let [.., schema, table, column] = names[..] else {
            continue;
        };
        if names.len() == 4 && names[0] != database {
            continue;
        }
        let columns = tables
            .entry((schema.to_owned(), table.to_owned()))
            .or_default();
        columns.insert(column.to_owned());
    }
    tables
}
