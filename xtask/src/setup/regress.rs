//! PostgreSQL's own regression tests, which the tests of reading SQL read, from
//! Debian's source package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use lockgate_tests::run as output;

use crate::step;

/// The package, and the server that is built from it.
const PACKAGE: &str = "postgresql-15";

pub fn folder(tools: &Path) -> PathBuf {
    tools.join("postgresql-regress")
}

/// Fetches the tests, with apt's lists in a folder of their own, since few
/// machines are set up for source packages.
pub fn fetch(tools: &Path) -> Result<()> {
    if folder(tools).exists() {
        return Ok(());
    }
    let apt = tools.join("apt");
    for folder in [
        "lists/partial",
        "cache/archives/partial",
        "sources",
        "files",
    ] {
        fs::create_dir_all(apt.join(folder))?;
    }
    source_lists(&apt.join("sources"))?;
    step::quiet(apt_get(&apt).args(["update", "-q"]))?;
    let tarball = tarball(&apt)?;
    // Renamed when whole, so that an interrupted one is begun anew.
    let part = tools.join("postgresql-regress.part");
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&tarball).arg("-C").arg(&part);
    step::quiet(tar.args([
        "--strip-components=5",
        "--wildcards",
        "*/src/test/regress/sql/*.sql",
    ]))?;
    fs::rename(&part, folder(tools))?;
    fs::remove_dir_all(&apt)?;
    Ok(())
}

/// The sources as PostgreSQL's authors released them. The tests are hardly
/// another between two minor versions, so any will do: the server's own; where
/// its archive has dropped that, the one that Debian was released with last.
fn tarball(apt: &Path) -> Result<PathBuf> {
    let installed =
        output(Command::new("dpkg-query").args(["-W", "-f", "${source:Version}", PACKAGE]))?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let exact = installed
        .ok()
        .then(|| format!("{PACKAGE}={}", installed.stdout.trim()));
    let released = release.map(|release| format!("{PACKAGE}/{release}"));
    let wanted = exact.into_iter().chain(released);
    for package in wanted.chain([PACKAGE.to_owned()]) {
        let mut get = apt_get(apt);
        get.args(["source", "-q", "--download-only", "--tar-only"]);
        let got = output(get.args(["--only-source", &package]))?;
        if let Some(tarball) = downloaded(apt)?.filter(|_| got.ok()) {
            return Ok(tarball);
        }
        eprintln!("[xtask] the source {package} is not to be had:");
        eprintln!("{}", got.stderr.trim());
    }
    bail!("no archive has a source of {PACKAGE}");
}

fn downloaded(apt: &Path) -> Result<Option<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(apt.join("files"))? {
        paths.push(entry?.path());
    }
    let is_tarball = |path: &PathBuf| path.to_string_lossy().contains(".orig.tar.");
    Ok(paths.into_iter().find(is_tarball))
}

fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let options = [
        ("Dir::Etc::sourcelist", Path::new("/dev/null")),
        ("Dir::Etc::sourceparts", &apt.join("sources")),
        ("Dir::State::lists", &apt.join("lists")),
        ("Dir::Cache", &apt.join("cache")),
    ];
    for (name, path) in options {
        command.arg("-o").arg(format!("{name}={}", path.display()));
    }
    command.current_dir(apt.join("files"));
    command
}

/// Debian's own archives of this machine, asked for sources.
fn source_lists(folder: &Path) -> Result<()> {
    let parts = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten();
    let files = parts.flatten().map(|entry| entry.path());
    for path in files.chain([PathBuf::from("/etc/apt/sources.list")]) {
        let (Ok(text), Some(name)) = (fs::read_to_string(&path), path.file_name()) else {
            continue;
        };
        let line = |line: &str| match line.strip_prefix("deb ") {
            Some(rest) => format!("deb-src {rest}\n"),
            None if line.trim() == "Types: deb" => "Types: deb-src\n".to_owned(),
            None => format!("{line}\n"),
        };
        let of_debian = text.contains("debian-archive-keyring") || name == "sources.list";
        if of_debian {
            let name = Path::new(name).with_extension(match name.to_str() {
                Some(name) if name.ends_with(".sources") => "sources",
                _ => "list",
            });
            fs::write(
                folder.join(name),
                text.lines().map(line).collect::<String>(),
            )?;
        }
    }
    Ok(())
}
