use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lockgate_audit::{Query, Row, Store, parse_rfc3339};

use super::status::table;
use super::visible::{json as json_line, visible};
use crate::cli::{Json, Search};
use crate::exit::Exit;

/// Finds events.
pub(crate) fn search(search: Search) -> anyhow::Result<Exit> {
    let config = search.config.config;
    let query = Query {
        workload: search.workload,
        target: search.target,
        verdict: search.verdict,
        verb: search.verb,
        object: search.object,
        user: search.user,
        kind: None,
        since_ns: search.since.as_deref().map(moment).transpose()?,
        until_ns: search.until.as_deref().map(moment).transpose()?,
        text: search.text,
        connection: search
            .connection
            .map(|id| {
                u64::from_str_radix(&id, 16).with_context(|| format!("`{id}` is not 16 hex digits"))
            })
            .transpose()?,
        limit: Some(search.limit),
    };
    let rows = open(&config)?.search(&query)?;
    if search.json.json {
        for row in &rows {
            println!("{}", json_line(row)?);
        }
    } else {
        println!("{}", render(&rows));
        println!("{}", super::counted(rows.len(), "event"));
    }
    Ok(if rows.is_empty() { Exit::No } else { Exit::Yes })
}

/// Verifies the chains.
pub(crate) fn verify(config: &Path, json: Json) -> anyhow::Result<Exit> {
    let report = open(config)?.verify()?;
    if json.json {
        println!("{}", json_line(&report)?);
    } else {
        let mut shown = table(&["HOST", "BOOT", "STREAM", "EVENTS", "ERASED", "STATE"]);
        for chain in &report.chains {
            let state = match &chain.fault {
                Some(fault) => format!("BROKEN at {}: {}", fault.seq, fault.what),
                None => "whole".into(),
            };
            shown.add_row([
                visible(&chain.host),
                visible(&chain.boot),
                chain.stream.to_string(),
                chain.events.to_string(),
                chain.erased.to_string(),
                visible(&state),
            ]);
        }
        println!("{shown}");
        if report.orphans > 0 {
            println!(
                "{} events belong to no chain: its row was removed",
                report.orphans
            );
        }
    }
    Ok(if report.is_whole() {
        Exit::Yes
    } else {
        Exit::No
    })
}

fn open(config: &Path) -> anyhow::Result<Store> {
    let path = super::Whereabouts::of(config)?
        .agent
        .state_dir
        .join("audit.sqlite");
    Ok(Store::open_read_only(&path)?)
}

fn render(rows: &[Row]) -> String {
    let mut shown = table(&[
        "TIME", "WORKLOAD", "TARGET", "VERDICT", "WHAT", "OUTCOME", "ROWS", "TEXT",
    ]);
    for row in rows {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let what = match row.verbs.is_empty() {
            true => row.kind.clone(),
            false => row.verbs.join(","),
        };
        let said = row
            .shape
            .as_ref()
            .or(row.message.as_ref())
            .cloned()
            .unwrap_or_default();
        let cells = [
            row.time.get(..23).unwrap_or(&row.time).replace('T', " "),
            text(&row.workload),
            text(&row.target),
            text(&row.verdict),
            what,
            row.error
                .clone()
                .or(row.outcome.clone())
                .unwrap_or_default(),
            row.rows.map(|rows| rows.to_string()).unwrap_or_default(),
            one_line(&said),
        ];
        shown.add_row(cells.iter().map(|cell| visible(cell)));
    }
    shown.to_string()
}

fn one_line(text: &str) -> String {
    /// Longest text of a row, in characters.
    const WIDTH: usize = 100;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// RFC 3339, or an age: 90s, 15m, 2h, 7d.
fn moment(text: &str) -> anyhow::Result<i64> {
    if let Some(time) = parse_rfc3339(text) {
        return Ok(time);
    }
    let form = "write RFC 3339 (2026-01-31T08:00:00Z) or an age (90s, 15m, 2h, 7d)";
    let Some((number, unit)) = text.split_at_checked(text.len().saturating_sub(1)) else {
        bail!("`{text}` is no time; {form}");
    };
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!("`{text}` is no time; {form}"),
    };
    let number: i64 = number
        .parse()
        .with_context(|| format!("`{text}` is no time; {form}"))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as i64;
    let age = number
        .checked_mul(seconds)
        .and_then(|age| age.checked_mul(1_000_000_000));
    match age {
        Some(age) if age >= 0 => Ok(now.saturating_sub(age)),
        _ => bail!("`{text}` is no time; {form}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_dates_or_ages() {
        assert_eq!(moment("1970-01-01T00:00:01Z").unwrap(), 1_000_000_000);
        let hour = moment("1h").unwrap() - moment("2h").unwrap();
        assert!((hour - 3_600_000_000_000).abs() < 1_000_000_000);
        for wrong in ["yesterday", "", "h", "1", "-1h", "1w", "é"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
