use std::collections::BTreeMap;

use anyhow::bail;
use lockgate_command::{Resource, ResourceKind};
use lockgate_config::{Finding, Severity, Tag, Text};
use lockgate_mask::Key;
use lockgate_mask::postgres::{Masker, Misfit};
use lockgate_policy::{Missing, closest};
use lockgate_sql::{Catalogue, Relation};

use super::{counted, print_findings, server};
use crate::checked::{self, Checked};
use crate::cli::{AskedServer, ConfigFile, Json};
use crate::exit::{AgentAway, Exit};

/// Checks configuration and policies, and the names in them at one target.
pub(crate) fn check(
    file: &ConfigFile,
    json: Json,
    target: Option<&str>,
    asked: &AskedServer,
) -> anyhow::Result<Exit> {
    let (findings, summary) = match checked::load(&file.config, 1) {
        Ok(mut checked) => {
            let mut findings = std::mem::take(&mut checked.loaded.warnings);
            let mut summary = summary(file, &checked);
            if let Some(target) = target {
                let (missing, looked) = names(file, &checked, target, asked)?;
                findings.extend(missing);
                summary.push_str(&looked);
            }
            (findings, Some(summary))
        }
        Err(findings) => (findings, None),
    };
    if json.json {
        for finding in &findings {
            println!("{}", super::visible::json(finding)?);
        }
    } else {
        print_findings(&findings);
        if let Some(summary) = &summary {
            println!("{summary}");
        }
    }
    let unreadable = !file.config.is_file();
    Ok(match (unreadable, findings.is_empty()) {
        (true, _) => Exit::Usage,
        (false, true) => Exit::Yes,
        (false, false) => Exit::No,
    })
}

fn summary(file: &ConfigFile, checked: &Checked) -> String {
    let config = &checked.loaded.bundle.config;
    format!(
        "{}: {}, {}, {} in {}",
        file.config.display(),
        counted(config.targets.len(), "target"),
        counted(config.workloads.len(), "workload"),
        counted(checked.policies.len(), "policy"),
        counted(checked.loaded.bundle.policies.len(), "file")
    )
}

/// What the databases of a target do not have of what policies and tags name,
/// and where that was looked up.
fn names(
    file: &ConfigFile,
    checked: &Checked,
    target: &str,
    asked: &AskedServer,
) -> anyhow::Result<(Vec<Finding>, String)> {
    let config = &checked.loaded.bundle.config;
    let target = server::target(config, target)?;
    let Some(credential) = target.credentials.first() else {
        bail!(
            "target `{}` has no `credentials`, so that nobody can look its names up",
            target.name
        );
    };
    let databases = server::asked_databases(&checked.policies, target, asked)?;
    // None: the server has no such database.
    let mut found: BTreeMap<&str, Option<server::Database>> = BTreeMap::new();
    for name in &databases {
        let database = server::database(
            &config.agent.run_dir,
            &target.name,
            &credential.workload,
            name,
            asked.server,
        );
        let away = |error: &anyhow::Error| {
            let error = error.downcast_ref::<AgentAway>();
            // 3D000, as the server says it in English.
            let absent = format!("database \"{name}\" does not exist");
            !error.is_some_and(|AgentAway(why)| why.contains(&absent))
        };
        match database {
            Ok(database) => drop(found.insert(name, Some(database))),
            Err(error) if away(&error) => return Err(error),
            Err(_) => drop(found.insert(name, None)),
        }
    }
    let missing = |resource: &Resource| {
        let [database, path @ ..] = resource.path() else {
            return None;
        };
        match found.get(database.as_str())? {
            None => Some(Missing {
                message: format!("the server has no database `{database}`"),
                closest: None,
            }),
            Some(database) => missing_in(&database.catalogue, resource.kind(), path),
        }
    };
    let folder = &config.agent.policies;
    let of_policies = checked
        .policies
        .missing_at(&target.name.as_str().into(), missing);
    let mut findings: Vec<Finding> = of_policies
        .into_iter()
        .map(|finding| checked::of_policy(folder, finding))
        .collect();
    let text = std::fs::read_to_string(&file.config)?;
    let text = Text::new(&file.config.display().to_string(), &text);
    let index = config
        .targets
        .iter()
        .position(|other| std::ptr::eq(other, target));
    let index = index.unwrap_or_default().to_string();
    for (number, tag) in target.tags.iter().enumerate() {
        let names: Vec<String> = tag.columns.split('.').map(str::to_owned).collect();
        let (only, path) = match names.as_slice() {
            [database, path @ ..] if names.len() == 4 => (Some(database.as_str()), path),
            path => (None, path),
        };
        let number = number.to_string();
        let catalogues: Vec<&Catalogue> = found
            .iter()
            .filter(|(name, _)| only.is_none_or(|only| only == **name))
            .filter_map(|(_, database)| Some(&database.as_ref()?.catalogue))
            .collect();
        let misfit = |catalogue: &&Catalogue| misfit_in(catalogue, path, tag);
        if let Some(misfit) = catalogues.iter().find_map(misfit) {
            let at = ["target", &index, "tags", &number, "mask"];
            let message = format!("`{}` cannot be masked: {misfit}", tag.columns);
            let fix = "choose a mask that fits; until then its values are denied, not masked";
            findings.push(text.finding(Severity::Error, &at, message, fix));
        }
        // A tag without a database may be meant for any.
        let looked = catalogues
            .iter()
            .map(|catalogue| missing_in(catalogue, ResourceKind::Column, path));
        let Some(Some(missing)) = looked.min_by_key(Option::is_some) else {
            continue;
        };
        let at = ["target", &index, "tags", &number, "columns"];
        let message = format!(
            "the tag `{}` is on no column: `{}`: {}",
            tag.tag, tag.columns, missing.message
        );
        let fix = match missing.closest {
            Some(name) => format!("did you mean `{name}`?"),
            None => "check the name; names are as the server stores them".into(),
        };
        findings.push(text.finding(Severity::Warning, &at, message, &fix));
    }
    let servers: Vec<String> = found
        .iter()
        .filter_map(|(name, database)| Some(format!("`{name}` at {}", database.as_ref()?.server)))
        .collect();
    Ok((
        findings,
        format!("; names looked up in {}", servers.join(", ")),
    ))
}

/// Why the mask of a tag does not fit the type of its column.
fn misfit_in(catalogue: &Catalogue, path: &[String], tag: &Tag) -> Option<Misfit> {
    let [schema, table, name] = path else {
        return None;
    };
    let columns = &catalogue.relation(schema, table)?.columns;
    let column = columns.iter().find(|column| column.name == *name)?;
    // Nothing is hashed here.
    let key = Key::of_tag(&[], &tag.tag);
    Masker::new(tag.mask?, &column.type_name, Some(&key)).err()
}

/// What a database lacks for a name to mean something.
fn missing_in(catalogue: &Catalogue, kind: ResourceKind, path: &[String]) -> Option<Missing> {
    let (schema, rest) = path.split_first()?;
    let says = |message: String, closest: Option<&str>| {
        Some(Missing {
            message,
            closest: closest.map(str::to_owned),
        })
    };
    if matches!(
        schema.as_str(),
        "?" | "pg_temp" | "pg_catalog" | "information_schema"
    ) {
        return None;
    }
    if !catalogue.has_schema(schema) {
        let close = closest(schema, catalogue.schemas());
        return says(format!("the database has no schema `{schema}`"), close);
    }
    let (name, rest) = rest.split_first()?;
    if kind == ResourceKind::Function {
        let close = closest(name, catalogue.functions_in(schema));
        return match catalogue.has_function(schema, name) {
            true => None,
            false => says(format!("schema `{schema}` has no function `{name}`"), close),
        };
    }
    let Some(relation) = catalogue.relation(schema, name) else {
        let of_schema = catalogue
            .relations()
            .iter()
            .filter(|it| it.schema == *schema);
        let elsewhere = catalogue.named(name).next();
        let elsewhere = elsewhere.map(|Relation { schema, name, .. }| format!("{schema}.{name}"));
        let close = closest(name, of_schema.map(|relation| relation.name.as_str()));
        let close = close.or(elsewhere.as_deref());
        return says(format!("schema `{schema}` has no table `{name}`"), close);
    };
    let (column, _) = rest.split_first()?;
    let columns = || relation.columns.iter().map(|column| column.name.as_str());
    match columns().any(|name| name == column) {
        true => None,
        false => says(
            format!("table `{schema}.{name}` has no column `{column}`"),
            closest(column, columns()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(kind: ResourceKind, path: &str) -> Option<String> {
        let columns = vec!["id".to_owned(), "ssn".to_owned()];
        let catalogue = Catalogue::assumed([
            ("public".to_owned(), "customers".to_owned(), columns),
            ("audit".to_owned(), "entries".to_owned(), Vec::new()),
        ]);
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        missing_in(&catalogue, kind, &path)
            .map(|it| format!("{} ({})", it.message, it.closest.unwrap_or_default()))
    }

    #[test]
    fn what_is_there_is_not_missing() {
        for (kind, path) in [
            (ResourceKind::Schema, "public"),
            (ResourceKind::Table, "public.customers"),
            (ResourceKind::Column, "public.customers.ssn"),
            (ResourceKind::Table, "pg_catalog.pg_class"),
            (ResourceKind::Table, "?.anything"),
        ] {
            assert_eq!(missing(kind, path), None, "{path}");
        }
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        for (kind, path, said) in [
            (
                ResourceKind::Schema,
                "pubic",
                "the database has no schema `pubic` (public)",
            ),
            (
                ResourceKind::Table,
                "public.customer",
                "schema `public` has no table `customer` (customers)",
            ),
            (
                ResourceKind::Table,
                "public.entries",
                "schema `public` has no table `entries` (audit.entries)",
            ),
            (
                ResourceKind::Column,
                "public.customers.snn",
                "table `public.customers` has no column `snn` (ssn)",
            ),
            (
                ResourceKind::Function,
                "public.refund",
                "schema `public` has no function `refund` ()",
            ),
        ] {
            assert_eq!(missing(kind, path).as_deref(), Some(said), "{path}");
        }
    }
}
