//! `cargo xtask bench`: what lockgate costs, beside what other proxies cost.
//! What the redirect costs is measured by itself first.
//!
//! All contenders lead to one PostgreSQL and are measured in turns, round by
//! round, so that what else the machine does falls on all of them. A ratio is
//! the median of the ratios within rounds.

mod contender;
mod gate;
mod measure;
mod reading;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::contender::{Contender, Stand};
use self::report::Report;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// pgbench's `-M`.
    pub modes: &'static [&'static str],
    /// Concurrent clients.
    pub clients: &'static [u32],
    /// How often each is measured.
    pub rounds: u32,
    /// How long one measurement takes.
    pub duration: Duration,
    /// Idle connections to weigh.
    pub idle: u32,
    /// What is measured of the redirect.
    pub gate: gate::Extent,
    /// Only cases whose name has this in it; all without.
    pub only: Option<String>,
}

impl Plan {
    /// The whole, or a quick one of about two minutes.
    pub fn new(quick: bool, only: Option<String>) -> Self {
        Self {
            modes: &["simple", "extended", "prepared"],
            clients: if quick { &[1, 8, 32] } else { &[1, 8, 32, 64] },
            rounds: if quick { 2 } else { 3 },
            duration: Duration::from_secs(if quick { 1 } else { 3 }),
            idle: if quick { 100 } else { 200 },
            gate: gate::Extent {
                rounds: if quick { 10 } else { 40 },
                live: if quick { 5_000 } else { 20_000 },
                duration: Duration::from_secs(if quick { 3 } else { 10 }),
            },
            only,
        }
    }

    fn has(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only))
    }

    /// Whether it is about the redirect alone, which needs no PostgreSQL.
    pub fn is_of_gate(&self) -> bool {
        self.only.as_deref() == Some("gate")
    }
}

/// Measures, prints tables, and writes the numbers where they are wanted.
pub fn run(plan: &Plan, json: Option<&Path>, docs: bool) -> Result<()> {
    if docs && plan.only.is_some() && !plan.is_of_gate() {
        bail!("--docs writes whole tables: without --only, or with --only gate");
    }
    let mut report = Report::new(plan)?;
    if plan.has("gate") {
        report.gate(gate::measure(&plan.gate).context("what the redirect costs")?);
    }
    if !plan.is_of_gate() {
        before_a_server(plan, &mut report)?;
    }
    println!("{}", report.text());
    if docs {
        report.write_docs()?;
    }
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&report.json())? + "\n")
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Everything that has PostgreSQL at its end.
fn before_a_server(plan: &Plan, report: &mut Report) -> Result<()> {
    let stand = Stand::build()?;
    report.server(stand.server_version()?);

    // First, while no allocator has kept anything from earlier connections.
    for contender in stand.contenders() {
        if !contender.pids.is_empty() && plan.has("idle") {
            let kib = measure::idle(&stand, contender, plan.idle)
                .with_context(|| format!("idle connections over {}", contender.name))?;
            report.idle(contender.name, kib);
        }
    }
    for round in 0..plan.rounds {
        for mode in plan.modes {
            for clients in plan.clients {
                let case = format!("{mode}.c{clients}");
                if !plan.has(&case) {
                    continue;
                }
                in_turns(&stand, round, &case, report, |contender| {
                    measure::pgbench(&stand, contender, mode, *clients, plan.duration, false)
                })?;
            }
        }
        if plan.has("connect") {
            in_turns(&stand, round, "connect", report, |contender| {
                measure::pgbench(&stand, contender, "simple", 8, plan.duration, true)
            })?;
        }
        if plan.has("copy_out") {
            in_turns(&stand, round, "copy_out", report, |contender| {
                measure::copy_out(&stand, contender)
            })?;
        }
    }

    if plan.has("bulk") {
        let lockgate = stand.lockgate()?;
        for round in 0..plan.rounds {
            let measure = |table| measure::bulk(lockgate, table, plan.duration);
            // Another one begins in each round.
            let (open, masked) = match round % 2 {
                0 => (measure("bulk_open")?, measure("bulk_tagged")?),
                _ => {
                    let masked = measure("bulk_tagged")?;
                    (measure("bulk_open")?, masked)
                }
            };
            eprintln!(
                "[bench] round {}, bulk: {open}; masked: {masked}",
                round + 1
            );
            report.bulk(open, masked);
        }
    }

    let reading = reading::cost().context("what reading a statement costs")?;
    eprintln!("[bench] reading new statements: {reading:?}");
    report.reading(reading);

    Ok(())
}

/// Measures each contender once; another one begins in each round.
fn in_turns(
    stand: &Stand,
    round: u32,
    case: &str,
    report: &mut Report,
    mut measure: impl FnMut(&Contender) -> Result<measure::Sample>,
) -> Result<()> {
    let contenders = stand.contenders();
    for turn in 0..contenders.len() {
        let contender = &contenders[(turn + round as usize) % contenders.len()];
        let sample = measure(contender).with_context(|| {
            format!(
                "{case} over {}; lockgate's log:\n{}",
                contender.name,
                stand.log()
            )
        })?;
        eprintln!(
            "[bench] round {}, {case}, {}: {sample}",
            round + 1,
            contender.name
        );
        report.add(case, contender.name, sample);
    }
    Ok(())
}
