mod clients;
mod listeners;

use std::path::Path;

use lockgate_config::{Agent, Config, Severity};
use lockgate_gate::preflight::{Check, State, checks};
use owo_colors::{OwoColorize, Stream};
use serde::Serialize;

use super::counted;
use crate::checked;
use crate::cli::Json;
use crate::exit::Exit;

/// One line of the report.
#[derive(Serialize)]
struct Line {
    name: String,
    state: State,
    found: String,
    advice: String,
}

/// How the host is as a whole.
#[derive(Serialize)]
struct Summary {
    grade: char,
    meaning: &'static str,
    good: usize,
    limited: usize,
    open: usize,
    broken: usize,
}

impl Summary {
    fn of(lines: &[Line]) -> Self {
        let count = |state| lines.iter().filter(|line| line.state == state).count();
        let (limited, open) = (count(State::Limited), count(State::Open));
        let broken = count(State::Broken);
        let (grade, meaning) = match (broken, open, limited) {
            (0, 0, 0) => ('A', "nothing that was looked at is open"),
            (0, 0, _) => ('B', "no way around is open to a process without rights"),
            (0, _, _) => ('C', "a way around is open to a process without rights"),
            _ => ('F', "lockgate cannot run here"),
        };
        Self {
            grade,
            meaning,
            good: count(State::Good),
            limited,
            open,
            broken,
        }
    }
}

/// Looks at this host and says what it has, lacks and leaves open.
pub(crate) fn doctor(config: &Path, json: Json) -> anyhow::Result<Exit> {
    let mut lines: Vec<Line> = checks()
        .into_iter()
        .map(
            |Check {
                 name,
                 state,
                 found,
                 advice,
             }| Line {
                name: name.into(),
                state,
                found,
                advice,
            },
        )
        .collect();
    // What is wrong with it as a whole is said below.
    let text = std::fs::read_to_string(config).unwrap_or_default();
    let parsed: Option<Config> = toml::from_str(&text).ok();
    let agent = parsed.as_ref().map(|parsed| parsed.agent.clone());
    let agent = agent.unwrap_or_default();
    lines.extend(part_of_the_host(parsed.as_ref()));
    lines.extend(users(&agent));
    lines.extend(local_servers());
    lines.extend(listeners::beside(parsed.as_ref()));
    lines.extend(clients::libpq(
        parsed.as_ref(),
        &agent.run_dir.join("host-ca.pem"),
    ));
    lines.push(configuration(config));
    let summary = Summary::of(&lines);
    if json.json {
        for line in &lines {
            println!("{}", serde_json::to_string(line)?);
        }
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        for Line {
            name,
            state,
            found,
            advice,
        } in &lines
        {
            let mark = match state {
                State::Good => "ok  "
                    .if_supports_color(Stream::Stdout, |m| m.green())
                    .to_string(),
                State::Limited => "note"
                    .if_supports_color(Stream::Stdout, |m| m.yellow())
                    .to_string(),
                State::Open => "open"
                    .if_supports_color(Stream::Stdout, |m| m.yellow())
                    .to_string(),
                State::Broken => "FAIL"
                    .if_supports_color(Stream::Stdout, |m| m.red())
                    .to_string(),
            };
            println!("{mark}  {name}: {found}");
            if *state != State::Good {
                println!("      {advice}");
            }
        }
        let Summary {
            grade,
            meaning,
            good,
            limited,
            open,
            broken,
        } = &summary;
        println!(
            "grade {grade}: {meaning} ({good} ok, {limited} to note, {open} open, {broken} failed)"
        );
    }
    Ok(match summary.broken {
        0 => Exit::Yes,
        _ => Exit::No,
    })
}

/// A cgroup that is configured leaves the others out.
fn part_of_the_host(config: Option<&Config>) -> Option<Line> {
    let cgroup = config?.kernel.cgroup.as_deref()?;
    let is_root = lockgate_gate::v2_root().is_ok_and(|root| root == cgroup);
    (!is_root).then(|| Line {
        name: "kernel.cgroup".into(),
        state: State::Open,
        found: format!("only processes in {} are intercepted", cgroup.display()),
        advice: "take `cgroup` out of [kernel], so that all processes of the host are".into(),
    })
}

fn users(agent: &Agent) -> Vec<Line> {
    [&agent.proxy_user, &agent.keeper_user]
        .into_iter()
        .map(|name| {
            let there = nix::unistd::User::from_name(name).ok().flatten().is_some();
            Line {
                found: if there { "exists" } else { "missing" }.into(),
                state: if there { State::Good } else { State::Broken },
                advice: format!(
                    "make it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, or name another in [agent]"
                ),
                name: format!("user {name}"),
            }
        })
        .collect()
}

/// Servers on this host can be reached past TCP.
fn local_servers() -> Vec<Line> {
    let mut found = Vec::new();
    for folder in ["/run/postgresql", "/var/run/postgresql", "/tmp"] {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".s.PGSQL.") && !name.ends_with(".lock") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found.sort();
    found.dedup_by_key(|path| path.replace("/var/run/", "/run/"));
    found
        .into_iter()
        .map(|path| Line {
            name: "local server".into(),
            state: State::Open,
            found: path,
            advice: "unix sockets are not redirected: let the server accept only lockgate's roles, or set unix_socket_directories to a folder that workloads cannot enter".into(),
        })
        .collect()
}

fn configuration(config: &Path) -> Line {
    let (state, found, advice) = match checked::load(config, 1) {
        Ok(checked) => (
            State::Good,
            format!(
                "{}: {}, {}, {}",
                config.display(),
                counted(checked.loaded.bundle.config.targets.len(), "target"),
                counted(checked.policies.len(), "policy"),
                counted(checked.loaded.warnings.len(), "warning")
            ),
            String::new(),
        ),
        Err(findings) => {
            let first = findings
                .iter()
                .find(|finding| finding.severity == Severity::Error);
            let found = first.map(ToString::to_string).unwrap_or_default();
            (
                State::Broken,
                found,
                "`lockgate check` shows all of it".into(),
            )
        }
    };
    Line {
        name: "configuration".into(),
        state,
        found,
        advice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grade_is_of_the_worst_that_was_found() {
        let grade = |states: &[State]| {
            let line = |state: &State| Line {
                name: String::new(),
                state: *state,
                found: String::new(),
                advice: String::new(),
            };
            Summary::of(&states.iter().map(line).collect::<Vec<_>>()).grade
        };
        assert_eq!(grade(&[State::Good, State::Good]), 'A');
        assert_eq!(grade(&[State::Good, State::Limited]), 'B');
        assert_eq!(grade(&[State::Open, State::Limited]), 'C');
        assert_eq!(grade(&[State::Open, State::Broken]), 'F');
    }
}
