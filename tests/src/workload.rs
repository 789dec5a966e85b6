use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use anyhow::{Context, Result};

use crate::{Output, root, run};

/// A cgroup that stands for a host: an agent is attached to it, workloads run
/// in units below it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one below the cgroup-v2 root.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "lockgate-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, SeqCst)
        );
        let path = Path::new(&v2_root()?).join(name);
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A system unit in it.
    pub fn unit(&self, name: &str) -> Result<Workload> {
        self.at(&format!("system.slice/{name}"))
    }

    /// Any cgroup in it.
    pub fn at(&self, path: &str) -> Result<Workload> {
        let cgroup = self.path.join(path);
        fs::create_dir_all(&cgroup)?;
        Ok(Workload { cgroup })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that are being reaped keep a cgroup for a moment.
        for _ in 0..100 {
            if remove(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Where the cgroup-v2 hierarchy is mounted: on hybrid hosts below v1's.
pub(crate) fn v2_root() -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .context("no cgroup v2 is mounted")
}

pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.path().is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// Programs in one cgroup.
#[derive(Clone, Debug)]
pub struct Workload {
    cgroup: PathBuf,
}

impl Workload {
    /// `program`, in this cgroup from before its first instruction.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!(
                "echo $$ > {}/cgroup.procs && exec \"$@\"",
                self.cgroup.display()
            ))
            .arg("sh")
            .arg(program)
            .env("PGCONNECT_TIMEOUT", "20")
            .env("HOME", "/nonexistent");
        command
    }

    /// Moves the calling process here, with all its threads, until what is
    /// returned is dropped. Sockets belong to where they were made.
    pub fn join(&self) -> Result<Joined> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let before = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = Path::new(&v2_root()?).join(before.context("no cgroup v2")?);
        enter(&self.cgroup)?;
        Ok(Joined { before })
    }

    /// psql with `connection` (a libpq connection string) and commands.
    pub fn psql(&self, connection: &str, commands: &[&str]) -> Result<Output> {
        let mut psql = self.command("psql");
        psql.args(["-XqAt", "-d", connection]);
        for command in commands {
            psql.args(["-c", command]);
        }
        run(&mut psql)
    }

    /// A Python program with psycopg.
    pub fn python(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        run(self.command(python()).args(["-c", program]).args(arguments))
    }
}

/// The calling process is in a workload's cgroup.
#[derive(Debug)]
pub struct Joined {
    before: PathBuf,
}

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = enter(&self.before);
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    let path = cgroup.join("cgroup.procs");
    fs::write(&path, "0").with_context(|| path.display().to_string())
}

/// Python with psycopg, as `cargo xtask setup` makes it.
pub fn python() -> PathBuf {
    root().join("target/tools/venv/bin/python")
}
