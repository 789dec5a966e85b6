//! Debian's packages, installed or only unpacked.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step;

/// apt-get, without questions.
pub fn get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    // As root, since the folder may be out of reach for apt's own user.
    apt.args([
        "-o",
        "APT::Sandbox::User=root",
        "-o",
        "DPkg::Lock::Timeout=120",
    ]);
    apt
}

/// Once more with new lists where the lists are missing or old.
pub fn updated<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    if let Ok(done) = attempt() {
        return Ok(done);
    }
    step::quiet(get().args(["update", "-q"]))?;
    attempt()
}

/// Downloads packages, and nothing that they need.
pub fn download(packages: &[&str], at: &Path) -> Result<()> {
    step::quiet(
        get()
            .args(["download", "-q"])
            .args(packages)
            .current_dir(at),
    )
}

/// With whatever it needs that this machine does not have.
pub fn download_with_needs(package: &str, at: &Path) -> Result<()> {
    fs::create_dir_all(at.join("partial"))?;
    let archives = format!("Dir::Cache::archives={}", at.display());
    let only = ["install", "-y", "-q", "--download-only"];
    step::quiet(
        get()
            .args(["-o", &archives])
            .args(only)
            .args(["--no-install-recommends", package]),
    )
}

/// Unpacks what `download` brings. Renamed when whole, so that an interrupted
/// one is begun anew.
pub fn unpack(into: &Path, download: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let part = into.with_extension("part");
    let packages = part.join("packages");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&packages)?;
    download(&packages)?;
    for entry in fs::read_dir(&packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "deb") {
            step::quiet(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&part))?;
        }
    }
    fs::remove_dir_all(&packages)?;
    let _ = fs::remove_dir_all(into);
    Ok(fs::rename(&part, into)?)
}
