//! What a guest is made of, from Debian's packages: downloaded by apt and
//! unpacked below target/vm. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use lockgate_tests::{Output, run as output};

use crate::apt;

/// A kernel with its modules.
#[derive(Debug)]
pub struct Kernel {
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// The newest kernel of a series that this machine's apt can get.
pub fn kernel(folder: &Path, series: &str) -> Result<Kernel> {
    let into = folder.join(format!("linux-{series}"));
    if !into.exists() {
        let packages = apt::updated(|| {
            let found = candidates(series)?;
            (!found.is_empty()).then_some(found).with_context(|| {
                format!(
                    "apt knows no package linux-image-{series}.…-cloud-amd64; it looked in\n{}",
                    sources().unwrap_or_default()
                )
            })
        })?;
        apt::unpack(&into, |at| {
            apt::updated(|| apt::download(&[&packages[0]], at))
        })?;
    }
    Ok(Kernel {
        image: entry(&into.join("boot"), "vmlinuz-")?,
        modules: entry(&into.join("lib/modules"), "")?,
    })
}

/// A static one: the guest's init, and what loads its modules.
pub fn busybox(folder: &Path) -> Result<PathBuf> {
    let into = folder.join("busybox");
    if !into.exists() {
        apt::unpack(&into, |at| {
            apt::updated(|| apt::download(&["busybox-static"], at))
        })?;
    }
    Ok(into.join("bin/busybox"))
}

/// The machine's own where there is one; else one that is not installed.
pub fn qemu(folder: &Path) -> Result<Vec<String>> {
    const PROGRAM: &str = "qemu-system-x86_64";
    if output(Command::new(PROGRAM).arg("--version")).is_ok_and(|it| it.ok()) {
        return Ok(vec![PROGRAM.into()]);
    }
    let into = folder.join("qemu");
    if !into.exists() {
        eprintln!("[xtask] into {}, and nowhere else: qemu", into.display());
        apt::unpack(&into, |at| {
            apt::updated(|| apt::download_with_needs("qemu-system-x86", at))
        })?;
    }
    let text = |path: &str| into.join(path).display().to_string();
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(text);
    let program = text(&format!("usr/bin/{PROGRAM}"));
    let mut words = vec!["env".into()];
    words.push(format!("LD_LIBRARY_PATH={}", libraries.join(":")));
    words.push(program);
    for data in ["usr/share/qemu", "usr/share/seabios"] {
        words.extend(["-L".into(), text(data)]);
    }
    Ok(words)
}

/// Packages of the series, the newest first.
fn candidates(series: &str) -> Result<Vec<String>> {
    let pattern = format!(
        "^linux-image-{}\\.[0-9].*-cloud-amd64$",
        series.replace('.', "\\.")
    );
    let found = ok(output(Command::new("apt-cache").args([
        "search",
        "--names-only",
        &pattern,
    ]))?)?;
    let names = found.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
    Ok(names)
}

fn numbers(name: &str) -> Vec<u32> {
    let numbers = name.split(|byte: char| !byte.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Where apt looks, as it says itself.
fn sources() -> Result<String> {
    let policy = ok(output(Command::new("apt-cache").arg("policy"))?)?;
    let is_source = |line: &&str| line.ends_with(" Packages");
    let sources: Vec<&str> = policy.lines().filter(is_source).collect();
    if sources.is_empty() {
        return Ok("no source at all: /etc/apt names none, or none answered".into());
    }
    Ok(sources.join("\n"))
}

/// The entry of a folder with such a beginning.
fn entry(folder: &Path, beginning: &str) -> Result<PathBuf> {
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(beginning)
    };
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(named)
        .with_context(|| format!("{} has no {beginning}", folder.display()))
}

fn ok(output: Output) -> Result<String> {
    if !output.ok() {
        bail!("{}", output.all().trim().to_owned());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn the_newest_is_by_numbers() {
        let newer = numbers("linux-image-6.12.100+deb12-cloud-amd64");
        assert!(newer > numbers("linux-image-6.12.99+deb12-cloud-amd64"));
        assert_eq!(
            numbers("linux-image-6.1.0-56-cloud-amd64"),
            [6, 1, 0, 56, 64]
        );
    }
}
