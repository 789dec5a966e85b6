//! Go and pgx, from Debian's packages and unpacked beside the other drivers:
//! installed, they would bring some seventy more, systemd's newest among them.

use std::path::Path;

use anyhow::Result;

use crate::apt;

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
    apt::unpack(folder, |at| apt::updated(|| apt::download(PACKAGES, at)))
}
