//! `cargo xtask vm`: the kernel's tests on the kernels of others than this
//! machine. Each is booted in qemu, from memory alone, and leaves nothing.

mod debian;
mod guest;
mod image;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use lockgate_tests::{root, run as output};

use crate::step;
use guest::Guest;

/// Which tests, and on what.
#[derive(Debug, Args)]
pub struct Plan {
    /// Debian's kernel of this series
    #[arg(long, value_enum, default_value_t = Kernels::All)]
    kernel: Kernels,
    /// How its control groups are mounted
    #[arg(long, value_enum, default_value_t = Cgroups::Unified)]
    cgroups: Cgroups,
    /// Only tests whose name has this in it: takeover::, redirect …
    #[arg(long, value_name = "PART", default_value = "", value_parser = part)]
    only: String,
    /// Seconds that all tests of one kernel may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kernels {
    #[value(name = "6.1")]
    Bookworm,
    #[value(name = "6.12")]
    Trixie,
    All,
}

impl Kernels {
    fn series(self) -> &'static [&'static str] {
        match self {
            Self::Bookworm => &["6.1"],
            Self::Trixie => &["6.12"],
            Self::All => &["6.1", "6.12"],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cgroups {
    /// Version 2 alone
    Unified,
    /// Version 2 beside version 1, as older hosts have it
    Hybrid,
}

/// The kernel's command line and the guest's shell take it as one word.
fn part(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:".contains(&byte);
    match text.bytes().all(is_name) {
        true => Ok(text.to_owned()),
        false => Err("a part of a test's name has letters, digits, `_` and `:`".into()),
    }
}

/// Runs the tests of the gate on each kernel, the next also where one fails.
pub fn test(plan: &Plan) -> Result<()> {
    let folder = root().join("target/vm");
    let tests = step::timed("build of the tests", built_tests)?;
    let mut failed = Vec::new();
    for series in plan.kernel.series() {
        if let Err(error) = test_on(series, &folder, &tests, plan) {
            eprintln!("error: Linux {series}: {error:#}");
            failed.push(*series);
        }
    }
    if !failed.is_empty() {
        bail!("failed on Linux {}", failed.join(" and "));
    }
    Ok(())
}

fn test_on(series: &str, folder: &Path, tests: &Path, plan: &Plan) -> Result<()> {
    let (qemu, kernel, initrd) = step::timed(&format!("a guest with Linux {series}"), || {
        let qemu = debian::qemu(folder)?;
        let kernel = debian::kernel(folder, series)?;
        let busybox = debian::busybox(folder)?;
        let initrd = image::build(&folder.join(series), &kernel, &busybox, tests)?;
        Ok((qemu, kernel, initrd))
    })?;
    let cgroups = match plan.cgroups {
        Cgroups::Unified => "unified",
        Cgroups::Hybrid => "hybrid",
    };
    let guest = Guest {
        qemu: &qemu,
        kernel: &kernel.image,
        initrd: &initrd,
        folder: &folder.join(series),
        settings: &format!("cgroups={cgroups} only={} limit={}", plan.only, plan.limit),
        limit: Duration::from_secs(plan.limit),
    };
    let (version, sum) = guest.run()?;
    println!(
        "{} passed, {} failed on {version}, {cgroups} cgroups",
        sum.passed, sum.failed
    );
    if !version.starts_with(&format!("{series}.")) {
        bail!("{version} is another kernel");
    }
    sum.verdict()
}

/// The integration tests of the gate. Built as the suites build them.
fn built_tests() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--workspace", "--test", "gate"]);
    let quietly = ["--no-run", "--quiet", "--message-format=json"];
    let built = output(cargo.args(quietly).current_dir(root()))?;
    if !built.ok() {
        // Compilers' messages are among what is for programs.
        let mut again = Command::new("cargo");
        again.args(["test", "--release", "--workspace", "--test", "gate"]);
        step::shown(again.arg("--no-run").current_dir(root()))?;
    }
    let messages = built.stdout.lines();
    messages
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "gate")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .context("cargo names no executable of the tests")
}
