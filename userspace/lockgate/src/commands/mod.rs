//! What each command does.

mod audit;
mod check;
mod doctor;
mod explain;
mod findings;
mod init;
mod policy;
mod prepare;
mod server;
mod status;
mod stop;
mod visible;

use std::path::Path;

use anyhow::{Context, bail};
use lockgate_config::Finding;
use lockgate_ipc::Role;

pub(crate) use findings::print_findings;

use crate::cli::{AuditCommand, Command, ConfigFile, Internal, Json, PolicyCommand, TargetCommand};
use crate::control::{Request, ask};
use crate::exit::Exit;
use crate::{role, sandbox, supervisor};

/// Does what was typed.
pub(crate) fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(config) => supervisor::run(&config.config),
        Command::Check {
            config,
            json,
            target,
            asked,
        } => check::check(&config, json, target.as_deref(), &asked),
        Command::Init { dir, force } => init::init(&dir, force),
        Command::Policy(PolicyCommand::Allow {
            workload,
            verb,
            resource,
            config,
            file,
            print,
        }) => match print {
            true => policy::print(&workload, &verb, &resource),
            false => policy::allow(&workload, &verb, &resource, &config.config, &file),
        },
        Command::Policy(PolicyCommand::Explain(asked)) => explain::explain(&asked),
        Command::Policy(PolicyCommand::Pack(command)) => policy::pack(command),
        Command::Target(TargetCommand::Prepare {
            target,
            config,
            json,
            asked,
        }) => prepare::prepare(&target, &config, json, &asked),
        Command::Reload { config, json } => reload(&config, json),
        Command::Status { config, json } => status::status(&config.config, json),
        Command::Stop { config, release } => stop::stop(&config.config, release),
        Command::Doctor { config, json } => doctor::doctor(&config.config, json),
        Command::Audit(AuditCommand::Search(search)) => audit::search(*search),
        Command::Audit(AuditCommand::Verify { config, json }) => {
            audit::verify(&config.config, json)
        }
        Command::Internal(internal) => run_internal(&internal),
    }
}

fn run_internal(internal: &Internal) -> anyhow::Result<Exit> {
    let setup = serde_json::from_str(&internal.setup)
        .context("`lockgate internal` is for `lockgate run` alone")?;
    let role_of = |name: &str| match name {
        "gate" => Ok(Role::Gate),
        "proxy" => Ok(Role::Proxy),
        "keeper" => Ok(Role::Keeper),
        _ => bail!("there is no role `{name}`"),
    };
    match internal.what.strip_prefix("probe-") {
        Some(name) => Ok(match sandbox::probe(role_of(name)?, &setup)? {
            true => Exit::Yes,
            false => Exit::No,
        }),
        None => role::run(role_of(&internal.what)?, setup).map(|()| Exit::Yes),
    }
}

/// A number with its noun.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {noun}s"),
    }
}

fn reload(file: &ConfigFile, json: Json) -> anyhow::Result<Exit> {
    let answer = ask(
        &Whereabouts::of(&file.config)?.agent.run_dir,
        &Request::Reload,
    )?;
    let reloaded = answer["reloaded"].as_bool() == Some(true);
    if json.json {
        println!("{answer}");
    } else {
        let findings = answer["findings"].clone();
        let findings: Vec<Finding> = serde_json::from_value(findings).unwrap_or_default();
        print_findings(&findings);
        if let Some(error) = answer["error"].as_str() {
            eprintln!("{error}");
        }
        match reloaded {
            true => println!("reloaded: epoch {}", answer["epoch"]),
            false => println!("refused: epoch {} runs on", answer["epoch"]),
        }
    }
    Ok(if reloaded { Exit::Yes } else { Exit::No })
}

/// Where the agent of a configuration is found, and its kernel side. Reads
/// only what it needs, so that a broken configuration does not keep anyone from
/// asking.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Whereabouts {
    pub(crate) agent: lockgate_config::Agent,
    pub(crate) kernel: lockgate_config::Kernel,
}

impl Whereabouts {
    pub(crate) fn of(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }
}
