//! `cargo xtask fuzz`: a short run of each fuzz target.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lockgate_tests::{root, run as output};

use crate::step;

/// Runs each target for `minutes`; a crash ends it with an error.
pub fn run(minutes: u32) -> Result<()> {
    let ready = output(Command::new("cargo").args(["+nightly", "fuzz", "--version"]));
    if !ready.is_ok_and(|ready| ready.ok()) {
        bail!(
            "cargo-fuzz and a nightly compiler are needed and are not here; \
             `rustup toolchain install nightly && cargo install cargo-fuzz` brings them. \
             The same properties are tested on random input, without them, by `cargo xtask test unit`"
        );
    }
    for folder in folders() {
        for target in targets(&folder)? {
            step::timed(&format!("fuzzing {target} for {minutes} min"), || {
                let mut fuzz = Command::new("cargo");
                fuzz.args(["+nightly", "fuzz", "run", &target, "--"])
                    .arg(format!("-max_total_time={}", minutes * 60))
                    .current_dir(&folder);
                step::shown(&mut fuzz)
            })?;
        }
    }
    Ok(())
}

/// Fuzz crates stand beside what they test.
fn folders() -> Vec<PathBuf> {
    ["userspace/sql/fuzz", "userspace/wire/postgres/fuzz"]
        .iter()
        .map(|folder| root().join(folder))
        .filter(|folder| folder.exists())
        .collect()
}

fn targets(folder: &std::path::Path) -> Result<Vec<String>> {
    let targets = folder.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&targets).with_context(|| targets.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_stem().context("a file has a name")?;
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
