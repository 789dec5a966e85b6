use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Output, run, sh};

/// A real PostgreSQL in a folder of its own, whose superuser `postgres` gets in
/// by its unix socket. As long as nothing else is wanted of it, it needs no
/// root.
#[derive(Debug)]
pub struct Cluster {
    dir: TempDir,
    /// Where it listens; none if only its socket leads to it.
    namespace: Option<String>,
}

/// Where Debian has the newest server.
pub(crate) fn bin() -> Result<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .context("no PostgreSQL here; run `cargo xtask setup`")?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found
        .pop()
        .context("no PostgreSQL here; run `cargo xtask setup`")
}

/// What a line of shell that runs PostgreSQL begins with: it refuses to be root.
fn as_postgres() -> &'static str {
    let root = fs::metadata("/proc/self").is_ok_and(|of| of.uid() == 0);
    if root { "runuser -u postgres --" } else { "" }
}

/// `path` becomes the server's own.
fn give(path: &Path) -> Result<()> {
    match as_postgres() {
        "" => Ok(()),
        _ => sh(&format!("chown postgres {}", path.display())).map(drop),
    }
}

/// A cluster that was initialised once and is copied for each server.
fn template() -> Result<&'static Path> {
    static TEMPLATE: OnceLock<Result<TempDir, String>> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| {
        let make = || {
            let dir = folder("lockgate-pg-template-")?;
            let data = dir.path().join("data");
            fs::create_dir(&data)?;
            give(&data)?;
            sh(&format!(
                "{} {}/initdb -D {} -A trust -U postgres -E UTF8 --no-locale -N >/dev/null",
                as_postgres(),
                bin()?.display(),
                data.display()
            ))?;
            Ok::<_, anyhow::Error>(dir)
        };
        make().map_err(|error| format!("{error:#}"))
    });
    match made {
        Ok(dir) => Ok(dir.path()),
        Err(error) => bail!("{error}"),
    }
}

/// With the pid in its name, so that [`crate::sweep`] knows whose it was.
fn folder(prefix: &str) -> Result<TempDir> {
    let prefix = format!("{prefix}{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

impl Cluster {
    /// Starts one that listens to its socket alone, with these lines in its
    /// postgresql.conf.
    pub fn start(settings: &str) -> Result<Self> {
        let cluster = Self::make(None)?;
        cluster.configure("", &format!("listen_addresses = ''\n{settings}\n"))?;
        cluster.resume()?;
        Ok(cluster)
    }

    /// One that is not started yet.
    pub(crate) fn make(namespace: Option<String>) -> Result<Self> {
        let dir = folder("lockgate-pg-")?;
        let at = dir.path().display();
        sh(&format!("cp -a {}/data {at}/data", template()?.display()))?;
        let socket = dir.path().join("socket");
        fs::create_dir(&socket)?;
        give(&socket)?;
        Ok(Self { dir, namespace })
    }

    /// With these lines in pg_hba.conf and postgresql.conf.
    pub(crate) fn configure(&self, hba: &str, settings: &str) -> Result<()> {
        let data = self.data();
        let hba = format!("local all all trust\n{hba}");
        fs::write(data.join("pg_hba.conf"), hba)?;
        let mut text = fs::read_to_string(data.join("postgresql.conf"))?;
        let socket = self.socket();
        text.push_str(&format!(
            "\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 200\n{settings}",
            socket.display()
        ));
        fs::write(data.join("postgresql.conf"), text)?;
        Ok(())
    }

    fn control(&self, what: &str) -> Result<()> {
        let within = match &self.namespace {
            Some(name) => format!("ip netns exec {name}"),
            None => String::new(),
        };
        let started = sh(&format!(
            "{within} {} {}/pg_ctl -D {} -l {}/log -w -t 30 -m fast {what} >/dev/null",
            as_postgres(),
            bin()?.display(),
            self.data().display(),
            self.socket().display(),
        ));
        started.with_context(|| self.log()).map(drop)
    }

    /// Stops it; [`Cluster::resume`] starts it again.
    pub fn stop(&self) -> Result<()> {
        self.control("stop")
    }

    /// Starts it, again.
    pub fn resume(&self) -> Result<()> {
        self.control("start")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of its data.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The folder of its socket, which is its own user's.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A client of the server's own version that finds its socket and is the
    /// superuser.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(bin()?.join(program));
        command
            .env("PGHOST", self.socket())
            .env("PGPORT", "5432")
            .env("PGUSER", "postgres");
        Ok(command)
    }

    /// Runs SQL as the superuser, past the network; what it returns, unaligned.
    pub fn admin(&self, database: &str, sql: &str) -> Result<String> {
        let output = self.admin_output(database, sql)?;
        if !output.ok() {
            bail!("`{sql}` failed: {}", output.stderr);
        }
        Ok(output.stdout.trim().to_owned())
    }

    fn admin_output(&self, database: &str, sql: &str) -> Result<Output> {
        run(self.client("psql")?.args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
            "-c",
            sql,
        ]))
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.socket().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(self.dir.path());
    }
}

/// Ends the server in a folder, if one runs there.
pub(crate) fn end(dir: &Path) {
    let Ok(bin) = bin() else { return };
    // It may be stopped already.
    let _ = sh(&format!(
        "{} {}/pg_ctl -D {}/data -w -m immediate stop >/dev/null 2>&1 || true",
        as_postgres(),
        bin.display(),
        dir.display()
    ));
}
