//! `cargo xtask test`: suites of tests by the name of what they are for.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use lockgate_tests::root;

use crate::setup::Downloads;
use crate::step;

/// A suite of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Everything
    All,
    /// Each crate by itself; needs no server
    Unit,
    /// The eBPF programs, loaded in this kernel
    Kernel,
    /// The running agent between real clients and real servers
    E2e,
    /// Commands that try to get past the decision
    Evasions,
    /// Connections that try to get past the redirect
    Bypass,
    /// Drivers and tools, unmodified
    Clients,
    /// Malformed input, broken files, full disks, dead processes
    BadInput,
}

impl Suite {
    /// What cargo is asked for; what follows `--` chooses among the tests. Always
    /// of the whole workspace: a part of it by itself has other features, and
    /// would be built anew.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::All => &["--workspace"],
            Self::Unit => &["--workspace", "--lib", "--bins"],
            Self::Kernel => &["--workspace", "--test", "gate"],
            Self::E2e => &["--workspace", "--test", "e2e"],
            Self::Evasions => &[
                "--workspace",
                "--test",
                "e2e",
                "--",
                "evasions::",
                "denial::",
                // A line per attack.
                "--nocapture",
            ],
            Self::Bypass => &[
                "--workspace",
                "--test",
                "gate",
                "--test",
                "e2e",
                "--",
                "bypass::",
                "namespaces::",
                "disguise::",
                "others::",
                "authority::",
                // A line per way.
                "--nocapture",
            ],
            // Without a target, so that examples are built: one is a client.
            Self::Clients => &["--workspace", "--", "clients::", "trust::"],
            Self::BadInput => &[
                "--workspace",
                "--test",
                "e2e",
                "--",
                "misfortune::",
                "crash::",
            ],
        }
    }
}

/// Builds the binary and all tests.
pub fn build_all() -> Result<()> {
    step::timed("build", || {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--workspace", "--exclude", "xtask"]);
        step::shown(cargo.current_dir(root()))
    })
}

/// Runs a suite and closes with the sum of what passed and what failed.
pub fn run(suite: Suite, downloads: Downloads) -> Result<()> {
    run_with(suite.arguments(), &[], downloads)
}

/// Runs for longer what `test` runs for seconds: kills under load, and a storm of
/// processes.
pub fn soak(minutes: u32, downloads: Downloads) -> Result<()> {
    let arguments = &[
        "--workspace",
        "--test",
        "gate",
        "--test",
        "e2e",
        "--",
        "a_storm_of_processes",
        "kills_at_random",
        "--nocapture",
    ];
    let longer = [
        ("LOCKGATE_SOAK_SECONDS", (minutes * 60).to_string()),
        ("LOCKGATE_STORM_PROCESSES", (minutes * 10_000).to_string()),
    ];
    run_with(arguments, &longer, downloads)
}

fn run_with(
    arguments: &'static [&'static str],
    environment: &[(&str, String)],
    downloads: Downloads,
) -> Result<()> {
    crate::dist::build_binary()?;
    let (cargo, chosen) = split(arguments);
    step::timed("build of the tests", || {
        let mut build = Command::new("cargo");
        build.args(["test", "--release", "--no-run"]).args(cargo);
        step::shown(build.current_dir(root()))
    })?;
    downloads.finish()?;

    let mut tests = Command::new("cargo");
    tests
        .args(["test", "--release", "--no-fail-fast"])
        .args(cargo);
    if !chosen.is_empty() {
        tests.arg("--").args(chosen);
    }
    let mut child = tests
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be started")?;
    let stdout = child.stdout.take().context("a pipe was asked for")?;
    let mut sum = Sum::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let mut out = std::io::stdout().lock();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        sum.add(&String::from_utf8_lossy(&line));
    }
    let status = child.wait()?;
    // A binary that died has no result line; its death is a failure all the same.
    if !status.success() && sum.failed == 0 {
        sum.failed = 1;
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    sum.verdict()
}

fn split(arguments: &'static [&'static str]) -> (&'static [&'static str], &'static [&'static str]) {
    match arguments.iter().position(|argument| *argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[]),
    }
}

/// The sum over the result lines of libtest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub passed: u64,
    pub failed: u64,
}

impl Sum {
    /// `test result: ok. 3 passed; 0 failed; 0 ignored; …`
    pub fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<&str> = result.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1] {
                "passed;" => self.passed += number,
                "failed;" => self.failed += number,
                _ => {}
            }
        }
    }

    /// Nothing is good by not being there.
    pub fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("tests failed");
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn the_sum_is_over_result_lines_alone() {
        let mut sum = Sum::default();
        sum.add("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.1s");
        sum.add("test a::b ... ok");
        sum.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        assert_eq!(
            sum,
            Sum {
                passed: 13,
                failed: 2
            }
        );
    }
}
