//! `cargo xtask dist`: the binary and what belongs to it, in one archive.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use lockgate_tests::root;

use crate::step;

/// Builds `target/release/lockgate`.
pub fn build_binary() -> Result<()> {
    step::timed("lockgate, release build", || {
        let mut cargo = Command::new("cargo");
        // Of the whole workspace, so that features, and with them everything
        // built, are the same as for the tests.
        cargo.args(["build", "--release", "--workspace", "--bin", "lockgate"]);
        step::shown(cargo.current_dir(root()))
    })
}

/// Writes `target/dist/lockgate-VERSION-ARCH.tar.gz` and its SHA-256.
pub fn run() -> Result<()> {
    build_binary()?;
    let name = format!(
        "lockgate-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH
    );
    let dist = root().join("target/dist");
    let folder = dist.join(&name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("bin"))?;
    let binary = folder.join("bin/lockgate");
    fs::copy(root().join("target/release/lockgate"), &binary)?;
    step::quiet(Command::new("strip").arg("--strip-debug").arg(&binary))?;
    for part in [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs",
        "policies",
        "packaging",
    ] {
        let from = root().join(part);
        if from.exists() {
            step::quiet(Command::new("cp").arg("-r").arg(from).arg(&folder))?;
        }
    }
    archive(&dist, &name)
}

fn archive(dist: &Path, name: &str) -> Result<()> {
    let archive = format!("{name}.tar.gz");
    // Names, owners and times alike everywhere, so that two builds compare.
    step::quiet(
        Command::new("tar")
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime=@0",
            ])
            .args(["-czf", &archive, name])
            .current_dir(dist),
    )?;
    let line =
        lockgate_tests::run(Command::new("sha256sum").arg(&archive).current_dir(dist))?.stdout;
    fs::write(dist.join(format!("{archive}.sha256")), &line)?;
    println!("{}\n{}", dist.join(&archive).display(), line.trim());
    Ok(())
}
