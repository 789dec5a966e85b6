//! Go and pgx, from Debian's packages and unpacked beside the other drivers:
//! installed, they would bring some seventy more, systemd's newest among them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::step;

/// The compiler, pgx, and what pgx is built from.
pub const PACKAGES: &[&str] = &[
    "golang-1.19-go",
    "golang-1.19-src",
    "golang-github-jackc-chunkreader-v2-dev",
    "golang-github-jackc-pgconn-dev",
    "golang-github-jackc-pgio-dev",
    "golang-github-jackc-pgpassfile-dev",
    "golang-github-jackc-pgproto3-v2-dev",
    "golang-github-jackc-pgservicefile-dev",
    "golang-github-jackc-pgtype-dev",
    "golang-github-jackc-pgx-v4-dev",
    "golang-github-jackc-puddle-dev",
    "golang-golang-x-crypto-dev",
    "golang-golang-x-text-dev",
];

/// Unpacks them into `folder`, as if it were the root of the file system.
pub fn fetch(folder: &Path) -> Result<()> {
    let packages = folder.join("packages");
    let _ = fs::remove_dir_all(&packages);
    fs::create_dir_all(&packages)?;
    let download = || {
        let mut apt = Command::new("apt-get");
        // As root: apt's own user may not write into a contributor's folder.
        apt.args(["download", "-q", "-o", "APT::Sandbox::User=root"]);
        step::quiet(apt.args(PACKAGES).current_dir(&packages))
    };
    // Lists that are old, or that an image was made without, know of none.
    if download().is_err() {
        step::quiet(Command::new("apt-get").args(["update", "-q"]))?;
        download()?;
    }
    for package in fs::read_dir(&packages)? {
        let mut dpkg = Command::new("dpkg-deb");
        step::quiet(dpkg.arg("-x").arg(package?.path()).arg(folder))?;
    }
    Ok(fs::remove_dir_all(&packages)?)
}
