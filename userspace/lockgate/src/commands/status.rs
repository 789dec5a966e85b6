use std::path::Path;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::Value;

use super::visible::{json as json_line, visible};
use crate::cli::Json;
use crate::control::{Request, ask};
use crate::exit::Exit;

/// Shows how the agent is.
pub(crate) fn status(config: &Path, json: Json) -> anyhow::Result<Exit> {
    let status = ask(
        &super::Whereabouts::of(config)?.agent.run_dir,
        &Request::Status,
    )?;
    if json.json {
        println!("{}", json_line(&status)?);
        return Ok(Exit::Yes);
    }
    let at = |path: &str| status.pointer(path).cloned().unwrap_or(Value::Null);
    let number = |path: &str| at(path).as_u64().unwrap_or(0);
    println!(
        "lockgate {}  configuration epoch {}  {} policies",
        at("/version").as_str().unwrap_or("?"),
        number("/epoch"),
        number("/policies")
    );
    let held = at("/gate/lease_held").as_bool() == Some(true);
    println!(
        "kernel   {} programs attached, {}; {} redirected, {} refused by the kernel, {} stray, {} ended",
        number("/gate/links"),
        if held {
            "redirecting"
        } else {
            "REFUSING (a process is missing)"
        },
        number("/gate/accepted"),
        at("/gate/kernel_refused")
            .as_object()
            .map_or(0, |reasons| reasons
                .values()
                .filter_map(Value::as_u64)
                .sum::<u64>()),
        number("/gate/stray"),
        number("/gate/ended"),
    );
    println!(
        "record   {} events stored, spool {} of {} segments{}",
        number("/keeper/record/stored"),
        number("/keeper/record/spool_segments"),
        number("/keeper/record/spool_max_segments"),
        match at("/keeper/record/unshipped").as_u64() {
            Some(waiting) => format!(", {waiting} events wait for ClickHouse"),
            None => String::new(),
        }
    );
    for path in ["/keeper/record/error", "/keeper/record/clickhouse_error"] {
        if let Some(error) = at(path).as_str() {
            println!("         {}", visible(error));
        }
    }
    let mut verdicts = table(&["WORKLOAD", "TARGET", "ALLOWED", "DENIED", "OBSERVED"]);
    for entry in at("/proxy/verdicts").as_array().into_iter().flatten() {
        verdicts.add_row(cells(
            entry,
            &["workload", "target", "allowed", "denied", "observed"],
        ));
    }
    println!("\n{verdicts}");
    let mut sessions = table(&[
        "SESSION", "WORKLOAD", "TARGET", "DATABASE", "AS", "PID", "UID", "CLIENT",
    ]);
    for entry in at("/proxy/sessions").as_array().into_iter().flatten() {
        let keys = [
            "connection",
            "workload",
            "target",
            "database",
            "user",
            "tgid",
            "uid",
            "client",
        ];
        sessions.add_row(cells(entry, &keys));
    }
    println!("\n{sessions}");
    Ok(if held { Exit::Yes } else { Exit::No })
}

/// A table that reads well and greps well.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(head);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn cells(entry: &Value, keys: &[&str]) -> Vec<String> {
    keys.iter()
        .map(|key| match &entry[*key] {
            Value::String(text) => visible(text),
            Value::Null => String::new(),
            other => other.to_string(),
        })
        .collect()
}
