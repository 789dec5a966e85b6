//! Steps that tell what they are and what they took.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Runs `work`; prints its name and, at its end, the time it took.
pub fn timed<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let spinner = spinner(name);
    let result = work();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let mark = if result.is_ok() { "ok" } else { "failed" };
    eprintln!(
        "[xtask] {name}: {mark}, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    result
}

/// A sign of life for people; a log gets none.
fn spinner(name: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("[xtask] {msg} {elapsed}").ok()?;
    let spinner = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(name.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(500));
    Some(spinner)
}

/// Runs `command` with its output shown; an error if it fails.
pub fn shown(command: &mut Command) -> Result<()> {
    let name = line(command);
    eprintln!("[xtask] $ {name}");
    let status = command
        .status()
        .with_context(|| format!("`{name}` cannot be started"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Runs `command` and shows what it prints only if it fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    let name = line(command);
    let output = command
        .output()
        .with_context(|| format!("`{name}` cannot be started"))?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("`{name}` failed ({})", output.status);
    }
    Ok(())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
