use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use anyhow::bail;
use lockgate_command::{
    Access, Refusal, Resource, ResourceKind, Shown, Statement, TargetName, Verb, Verdict,
    WorkloadName,
};
use lockgate_config::{Mask, Mode, Protocol, Target};
use lockgate_mask::Key;
use lockgate_mask::postgres::Masker;
use lockgate_policy::{Deciding, Explanation, Policies};
use lockgate_sql::{
    Analyser, AnalyserSettings, Analysis, Catalogue, Reading, SearchPath, SessionNames, TagMask,
    Tags, resolve,
};
use serde_json::{Value, json};

use super::server;
use crate::checked::{self, Checked};
use crate::cli::Explain;
use crate::exit::Exit;

/// The answer to `policy explain`.
struct Answer<'a> {
    workload: WorkloadName,
    target: &'a Target,
    /// None where nothing but a connection was asked about.
    database: Option<String>,
    names: Names,
    refusal: Option<Refusal>,
    accesses: Vec<(Access, Explanation)>,
    /// Outputs that show a tagged column as it is stored.
    outputs: Vec<Output>,
    verdict: Verdict,
}

/// One column of the result, and what becomes of it.
struct Output {
    shown: Shown,
    /// Of `view` on the column.
    why: Explanation,
    /// What is shown to who may not view it, or why there is nothing.
    mask: Result<Mask, String>,
}

/// Whose names the statement's were taken for.
enum Names {
    /// Only a connection was asked about.
    None,
    /// The server's own.
    Server(Box<server::Database>),
    /// Those of policies and tags, and why the server was not asked.
    Configuration(String),
}

/// Says what the policies say of a statement, and why.
pub(crate) fn explain(asked: &Explain) -> anyhow::Result<Exit> {
    let Checked { loaded, policies } = match checked::load(&asked.config.config, 1) {
        Ok(checked) => checked,
        Err(findings) => {
            super::print_findings(&findings);
            return Ok(Exit::Usage);
        }
    };
    let config = &loaded.bundle.config;
    let target = server::target(config, &asked.target)?;
    let workload = server::workload(config, &asked.workload)?;
    let mut answer = Answer {
        workload,
        target,
        database: None,
        names: Names::None,
        refusal: None,
        accesses: Vec::new(),
        outputs: Vec::new(),
        verdict: Verdict::Allow,
    };
    let mut shown = Vec::new();
    let mut beneath = Vec::new();
    let mut accesses = vec![Access::new(Verb::Connect, Resource::target())];
    match &asked.sql {
        Some(_) if target.protocol == Protocol::Tcp => bail!(
            "target `{}` is of protocol tcp: only connections are decided there; leave the statement out",
            target.name
        ),
        Some(sql) => {
            let database = database_of(asked, &policies, target)?;
            answer.names = names_of(asked, config.agent.run_dir.as_path(), &database)?;
            let analysis = read(sql, config.limits.statement_bytes as usize);
            let statement = match &answer.names {
                Names::Server(found) => meaning(
                    &analysis,
                    &found.catalogue,
                    &found.user,
                    &database,
                    found.path(),
                    target,
                ),
                _ => assume(&analysis, &policies, target, &database),
            };
            answer.database = Some(database);
            answer.refusal.clone_from(&statement.refusal);
            accesses.extend(statement.accesses.iter().cloned());
            beneath.clone_from(&statement.beneath);
            shown.clone_from(&statement.shown);
        }
        None => {}
    }
    let name = TargetName::from(target.name.as_str());
    let tags = Tags::new(&target.tags);
    let workload = &answer.workload;
    let decision = policies.decide(workload, &name, &accesses);
    answer.verdict = decision.verdict;
    if answer.verdict == Verdict::Allow
        && let Some(denial) = policies.forbids(workload, &name, &beneath)
    {
        answer.verdict = Verdict::Deny(denial);
    }
    if answer.verdict == Verdict::Allow {
        let permits = decision.policies;
        let mask = |shown: &Shown| mask_of(&tags, &answer.names, shown);
        answer.verdict = policies
            .decide_shown(permits, workload, &name, &shown, mask)
            .verdict;
    }
    let explained = |access: Access| {
        let why = policies.explain(workload, &name, &access);
        (access, why)
    };
    // What is reached unnamed needs no permit: it matters where it is forbidden.
    let forbids = |(_, why): &(Access, Explanation)| {
        matches!(
            why,
            Explanation::Forbidden { .. } | Explanation::Failed { .. }
        )
    };
    let named = accesses.into_iter().map(explained);
    let unnamed = beneath.into_iter().map(explained).filter(forbids);
    answer.accesses = named.chain(unnamed).collect();
    let output = |shown: Shown| Output {
        why: explained(Access::new(Verb::View, shown.column.clone())).1,
        mask: mask_of(&tags, &answer.names, &shown).map(|mask| mask.mask),
        shown,
    };
    answer.outputs = shown.into_iter().map(output).collect();
    match asked.json.json {
        true => println!("{}", answer.json()),
        false => answer.print(),
    }
    Ok(match answer.is_denied() {
        false => Exit::Yes,
        true => Exit::No,
    })
}

/// What is shown in the place of a column's values. Where the server was not
/// asked, types are not known, and every mask is taken to fit.
fn mask_of<'a>(tags: &'a Tags, names: &Names, shown: &Shown) -> Result<TagMask<'a>, String> {
    let mask = tags.mask(&shown.column);
    let mask = mask.ok_or("its tags have no mask, or several")?;
    if matches!(names, Names::Server(_)) {
        // Nothing is hashed here.
        let key = mask.key.map(|tag| Key::of_tag(&[], tag));
        let masker = Masker::new(mask.mask, &shown.type_name, key.as_ref());
        masker.map_err(|misfit| misfit.to_string())?;
    }
    Ok(mask)
}

fn database_of(asked: &Explain, policies: &Policies, target: &Target) -> anyhow::Result<String> {
    if let Some(database) = &asked.database {
        return Ok(database.clone());
    }
    let named: Vec<String> = server::databases(policies, target).into_iter().collect();
    match named.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("say which database is meant: --database NAME"),
        several => bail!(
            "say which database is meant: --database NAME; policies speak of {}",
            several.join(", ")
        ),
    }
}

fn names_of(asked: &Explain, run_dir: &std::path::Path, database: &str) -> anyhow::Result<Names> {
    if asked.offline {
        return Ok(Names::Configuration("--offline".into()));
    }
    let found = server::database(
        run_dir,
        &asked.target,
        &asked.workload,
        database,
        asked.server,
    );
    match found {
        Ok(found) => Ok(Names::Server(Box::new(found))),
        Err(error) if asked.live => Err(error),
        Err(error) => Ok(Names::Configuration(format!("{error:#}"))),
    }
}

fn read(sql: &str, statement_bytes: usize) -> Arc<Analysis> {
    let analyser = Analyser::new(AnalyserSettings {
        statement_bytes,
        cache_bytes: 1 << 16,
        threads: 1,
    });
    let (done, waits) = mpsc::channel();
    let deliver = Box::new(move |analysis| {
        // The receiver below waits for it.
        let _ = done.send(analysis);
    });
    analyser.analyse(sql.as_bytes(), Reading::default(), deliver);
    waits.recv().unwrap_or_else(|_| {
        Arc::new(Analysis::refused(Refusal {
            construct: "a statement that lockgate failed to read".into(),
            hint: "report it with the statement".into(),
        }))
    })
}

fn meaning(
    analysis: &Analysis,
    catalogue: &Catalogue,
    user: &str,
    database: &str,
    search_path: SearchPath,
    target: &Target,
) -> Arc<Statement> {
    let names = SessionNames {
        database: database.to_owned(),
        user: user.to_owned(),
        search_path,
    };
    let tags = Tags::new(&target.tags);
    resolve(analysis, catalogue, &names, &tags).statement
}

/// What a statement does where nothing but the configuration is known: a table
/// that it does not name is taken to be in `public`.
fn assume(
    analysis: &Analysis,
    policies: &Policies,
    target: &Target,
    database: &str,
) -> Arc<Statement> {
    let mut tables = server::tables(policies, target, database);
    let mean = |tables: &BTreeMap<(String, String), BTreeSet<String>>| {
        let known = tables.iter().map(|((schema, table), columns)| {
            let columns = columns.iter().cloned().collect();
            (schema.clone(), table.clone(), columns)
        });
        let catalogue = Catalogue::assumed(known);
        let path = SearchPath::Known(vec!["pg_catalog".into(), "public".into()]);
        meaning(analysis, &catalogue, "", database, path, target)
    };
    let first = mean(&tables);
    let mut more = false;
    for access in &first.accesses {
        if let (ResourceKind::Table, [_, schema, table]) =
            (access.resource.kind(), access.resource.path())
            && schema == "?"
        {
            let schema = match table.starts_with("pg_") {
                true => "pg_catalog",
                false => "public",
            };
            tables
                .entry((schema.to_owned(), table.clone()))
                .or_default();
            more = true;
        }
    }
    match more {
        true => mean(&tables),
        false => first,
    }
}

impl Answer<'_> {
    fn is_denied(&self) -> bool {
        self.refusal.is_some() || matches!(self.verdict, Verdict::Deny(_) | Verdict::Hold(_))
    }

    fn json(&self) -> Value {
        let target = TargetName::from(self.target.name.as_str());
        let accesses = self.accesses.iter().map(|(access, why)| {
            let mut row = json!({
                "verb": access.verb,
                "kind": access.resource.kind(),
                "resource": access.resource.entity_id(&target),
            });
            if let (Value::Object(row), Ok(Value::Object(why))) =
                (&mut row, serde_json::to_value(why))
            {
                row.extend(why);
            }
            row
        });
        let mut answer = json!({
            "verdict": match (self.is_denied(), &self.verdict) {
                (true, _) => "deny",
                (false, Verdict::Mask(_)) => "mask",
                (false, _) => "allow",
            },
            "workload": self.workload,
            "target": self.target.name,
            "mode": self.target.mode,
            "database": self.database,
            "refusal": self.refusal,
            "accesses": accesses.collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(|output| json!({
                "output": output.shown.output,
                "column": output.shown.column.entity_id(&target),
                "view": output.why,
                "mask": output.mask.as_ref().ok(),
                "no_mask": output.mask.as_ref().err(),
            })).collect::<Vec<_>>(),
        });
        match &self.names {
            Names::None => {}
            Names::Server(found) => {
                answer["names_from"] = "server".into();
                answer["server"] = found.server.to_string().into();
                answer["user"] = found.user.clone().into();
                answer["search_path"] = found.search_path.clone().into();
            }
            Names::Configuration(why) => {
                answer["names_from"] = "configuration".into();
                answer["server_not_asked"] = why.clone().into();
            }
        }
        answer
    }

    fn print(&self) {
        let Self {
            workload, target, ..
        } = self;
        let name = &target.name;
        let place = match &self.database {
            Some(database) => format!("`{name}`, database `{database}`"),
            None => format!("`{name}`"),
        };
        match (self.is_denied(), &self.verdict) {
            (true, _) => println!("DENIED: `{workload}` may not do this at {place}.\n"),
            (false, Verdict::Mask(_)) => {
                println!("ALLOWED, with masked values: `{workload}` may do this at {place}.\n")
            }
            (false, _) => println!("ALLOWED: `{workload}` may do this at {place}.\n"),
        }
        if let Some(Refusal { construct, hint }) = &self.refusal {
            println!("  Nobody may, whatever the policies say: {construct}.\n  {hint}.\n");
        }
        let what: Vec<String> = self
            .accesses
            .iter()
            .map(|(access, _)| said(access))
            .collect();
        let width = what
            .iter()
            .map(|what| what.chars().count())
            .max()
            .unwrap_or(0);
        for ((_, why), what) in self.accesses.iter().zip(&what) {
            println!("  {what:<width$}  {}", reason(why));
            if let Explanation::Unpermitted {
                command: Some(command),
            } = why
            {
                println!("  {:<width$}  to permit it: {command}", "");
            }
        }
        for Output { shown, why, mask } in &self.outputs {
            let column = escaped(&shown.column.path().get(1..).unwrap_or_default().join("."));
            let number = u32::from(shown.output) + 1;
            let becomes = match (why, mask) {
                (Explanation::Permitted { .. }, _) => "as it is stored".to_owned(),
                (_, Ok(mask)) => format!("masked by {mask}"),
                (_, Err(no_mask)) => format!("so that it is denied ({no_mask})"),
            };
            println!(
                "  column {number} of the result shows {column}, {becomes}: `view` is {}",
                reason(why)
            );
        }
        if self.is_denied() && self.refusal.is_none() {
            println!(
                "\nAll of it must be permitted by some policy and forbidden by none; a forbid wins over every permit."
            );
        }
        if target.mode == Mode::Observe {
            println!("\n`{name}` is only observed: what is denied is recorded, not refused.");
        }
        match &self.names {
            Names::None => {}
            Names::Server(found) => println!(
                "\nNames are the server's: {} was asked now, as `{}`; unqualified names are looked for in {}.",
                found.server,
                found.user,
                found.search_path.join(", ")
            ),
            Names::Configuration(why) => println!(
                "\nNames are those of policies and tags, and a table that they do not name is taken to be in\n`public`: the server was not asked ({why})."
            ),
        }
    }
}

/// `delete  table public.orders`
fn said(access: &Access) -> String {
    let path = access.resource.path();
    let inner = path.get(1..).unwrap_or_default().join(".");
    let what = match access.resource.kind() {
        ResourceKind::Target => "the target".to_owned(),
        ResourceKind::Database => format!("database {}", path[0]),
        ResourceKind::Schema => format!("schema {inner}"),
        ResourceKind::Table => format!("table {inner}"),
        ResourceKind::Column => format!("column {inner}"),
        ResourceKind::Function => format!("function {inner}"),
    };
    format!("{:<12} {}", access.verb.as_str(), escaped(&what))
}

/// Names come from the statement: nothing in them may move the cursor.
fn escaped(name: &str) -> String {
    name.escape_debug().take(80).collect()
}

fn reason(why: &Explanation) -> String {
    match why {
        Explanation::Permitted { policies } => format!("permitted by {}", listed(policies)),
        Explanation::Forbidden { policies } => format!("FORBIDDEN by {}", listed(policies)),
        Explanation::Unpermitted { .. } => "NOT PERMITTED by any policy".into(),
        Explanation::Failed { reason } => format!("CANNOT BE DECIDED: {reason}"),
    }
}

fn listed(policies: &[Deciding]) -> String {
    let one = |deciding: &Deciding| {
        let policy = &deciding.policy;
        let place = format!("`{}` ({}:{})", policy.id, policy.file, policy.line);
        match &deciding.reason {
            Some(reason) => format!("{place}: {reason}"),
            None => place,
        }
    };
    policies.iter().map(one).collect::<Vec<_>>().join("; ")
}
