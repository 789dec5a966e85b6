//! Makes a fresh Debian 12 with rustup able to build and test everything, and
//! says what it installs before it does so. Done once, it costs milliseconds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use lockgate_tests::{root, run as output};

use crate::{apt, ebpf, step};

mod go;
mod regress;

/// For building: C for pg_query and SQLite, libclang for its bindings, LLVM for
/// bpf-linker. For testing: servers, clients and other proxies.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "clang",
    "ecj",
    "g++",
    "gcc",
    "haproxy",
    "iproute2",
    "libclang-dev",
    "libpostgresql-jdbc-java",
    "make",
    "nftables",
    "openssh-client",
    "openssh-server",
    "openssl",
    "pgbouncer",
    "pkg-config",
    "postgresql",
    "postgresql-client",
    "postgresql-contrib",
    "procps",
    "python3",
    "python3-venv",
    "util-linux",
];

/// The linker's own needs, where it has to be built.
const LINKER_PACKAGES: &[&str] = &["libpolly-22-dev", "libzstd-dev", "llvm-22-dev"];

/// A compiler with the source of `core`, where no nightly of rustup's has it.
const COMPILER_PACKAGES: &[&str] = &["cargo-web", "rust-web-src", "rustc-web"];

/// What brings the programs that run drivers, where they are not on PATH.
const RUNTIMES: &[(&str, &[&str])] = &[
    ("java", &["default-jre-headless"]),
    ("npm", &["nodejs", "npm"]),
];

const LINKER_VERSION: &str = "0.13.0";

/// Drivers and tools that the tests of clients run, from PyPI.
const PYTHON_CLIENTS: &[&str] = &[
    "asyncpg==0.32.0",
    "Django==5.2.19",
    "greenlet==3.5.6",
    "psycopg[binary]==3.3.9",
    "psycopg2-binary==2.9.13",
    "SQLAlchemy==2.1.9",
];

/// The same from npm.
const NODE_CLIENTS: &[&str] = &[
    "drizzle-orm@0.45.4",
    "pg@8.23.1",
    "pg-cursor@2.22.0",
    "pg-query-stream@4.17.0",
    "postgres@3.4.9",
];

/// The ClickHouse that tests and the demo talk to is inside this package. The
/// way in is internal to it, so the version is exact.
const CHDB: &str = "chdb-core==26.9.0";

/// System users that proxy and keeper run as.
const USERS: &[&str] = &["lockgate-proxy", "lockgate-keeper"];

/// What is still being downloaded while other things are built.
#[derive(Debug)]
pub struct Downloads(Option<JoinHandle<Result<()>>>);

impl Downloads {
    /// Waits for the rest. To be called before anything needs it.
    pub fn finish(self) -> Result<()> {
        let Some(thread) = self.0 else { return Ok(()) };
        if thread.is_finished() {
            return joined(thread);
        }
        step::timed("downloads, the rest of them", || joined(thread))
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the thread that downloads has panicked"))?
}

/// Installs what is missing. Long downloads go on behind.
pub fn run() -> Result<Downloads> {
    packages()?;
    users()?;
    if ebpf::linker().is_err() {
        step::timed("bpf-linker", install_linker)?;
    }
    let tools = root().join("target/tools");
    let python = Installed::new(&tools, "venv", PYTHON_CLIENTS);
    let node = Installed::new(&tools, "node", NODE_CLIENTS);
    let go = Installed::new(&tools, "go", go::PACKAGES);
    let drivers_done = python.is_done() && node.is_done() && go.is_done();
    let regress_done = regress::folder(&tools).exists();
    if drivers_done && chdb_done(&tools) && regress_done {
        return Ok(Downloads(None));
    }
    eprintln!("[xtask] into {}, and nowhere else:", tools.display());
    eprintln!("[xtask]   {}", PYTHON_CLIENTS.join(" "));
    eprintln!("[xtask]   {}", NODE_CLIENTS.join(" "));
    eprintln!("[xtask]   Go and pgx, from Debian's packages (85 MB)");
    eprintln!("[xtask]   {CHDB}, ClickHouse for tests and the demo (182 MB)");
    eprintln!("[xtask]   the source of PostgreSQL, for its regression tests (23 MB)");
    Ok(Downloads(Some(std::thread::spawn(move || {
        step::timed("drivers from PyPI", || {
            python.install(|_| python_clients(&tools))
        })?;
        step::timed("drivers from npm", || node.install(node_clients))?;
        step::timed("Go and pgx", || go.install(go::fetch))?;
        // The tests that read them say so where they are not there.
        if let Err(error) = step::timed("regression tests of PostgreSQL", || regress::fetch(&tools))
        {
            eprintln!("[xtask] going on without PostgreSQL's regression tests: {error:#}");
        }
        step::timed("ClickHouse", || chdb(&tools))
    }))))
}

fn packages() -> Result<()> {
    let mut wanted: BTreeSet<&str> = PACKAGES.iter().copied().collect();
    if ebpf::linker().is_err() {
        wanted.extend(LINKER_PACKAGES);
    }
    if ebpf::Compiler::find().is_err() {
        wanted.extend(COMPILER_PACKAGES);
    }
    for (program, packages) in RUNTIMES {
        if !is_on_path(program) {
            wanted.extend(*packages);
        }
    }
    let installed = output(
        Command::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
            .args(&wanted),
    )
    .context("dpkg-query: only Debian and what is made of it are supported")?
    .stdout;
    let installed: BTreeSet<&str> = installed
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    let missing: Vec<&str> = wanted.difference(&installed).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("[xtask] apt-get will install: {}", missing.join(" "));
    eprintln!("[xtask] Debian may start servers of these; nothing here uses those or stops them.");
    step::timed("apt-get update", || {
        step::quiet(apt::get().args(["update", "-q"]))
    })?;
    step::timed("apt-get install", || {
        let options = ["install", "-y", "-q", "--no-install-recommends"];
        step::quiet(apt::get().args(options).args(&missing))
    })
}

fn users() -> Result<()> {
    for user in USERS {
        if output(Command::new("id").arg(user))?.ok() {
            continue;
        }
        eprintln!("[xtask] adding the system user {user}: lockgate runs a part of itself as it");
        let options = ["--system", "--no-create-home", "--home-dir", "/nonexistent"];
        let shell = ["--shell", "/usr/sbin/nologin", "--user-group"];
        step::quiet(Command::new("useradd").args(options).args(shell).arg(user))?;
    }
    Ok(())
}

fn install_linker() -> Result<()> {
    eprintln!("[xtask] cargo will install: bpf-linker {LINKER_VERSION}");
    step::quiet(
        Command::new("cargo")
            .args([
                "install",
                "--locked",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
            ])
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .current_dir("/"),
    )
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).exists())
}

/// A folder of packages, and a file in it that says which of them are there:
/// another list means another installation.
struct Installed {
    folder: PathBuf,
    packages: String,
}

impl Installed {
    fn new(tools: &Path, folder: &str, packages: &[&str]) -> Self {
        Self {
            folder: tools.join(folder),
            packages: packages.join("\n"),
        }
    }

    fn list(&self) -> PathBuf {
        self.folder.join("installed.txt")
    }

    fn is_done(&self) -> bool {
        fs::read_to_string(self.list()).is_ok_and(|list| list == self.packages)
    }

    fn install(&self, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        install(&self.folder)?;
        Ok(fs::write(self.list(), &self.packages)?)
    }
}

fn python_clients(tools: &Path) -> Result<()> {
    let venv = tools.join("venv");
    step::quiet(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    step::quiet(
        pip(tools)
            .args(["install", "--quiet", "--only-binary", ":all:"])
            .args(PYTHON_CLIENTS),
    )
}

fn node_clients(folder: &Path) -> Result<()> {
    step::quiet(
        Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund"])
            .args(["--no-package-lock", "--ignore-scripts"])
            .args(NODE_CLIENTS)
            .current_dir(folder),
    )
}

fn pip(tools: &Path) -> Command {
    let mut pip = Command::new(tools.join("venv/bin/python"));
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    pip
}

fn chdb_done(tools: &Path) -> bool {
    tools
        .join("chdb")
        .join(format!(
            "{}.dist-info",
            CHDB.replace("==", "-").replacen('-', "_", 1)
        ))
        .exists()
}

fn chdb(tools: &Path) -> Result<()> {
    if chdb_done(tools) {
        return Ok(());
    }
    // Renamed when whole, so that an interrupted one is begun anew.
    let part = tools.join("chdb.part");
    let _ = fs::remove_dir_all(&part);
    let wheels = tools.join("wheels");
    step::quiet(
        pip(tools)
            .args([
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                CHDB,
                "--dest",
            ])
            .arg(&wheels),
    )?;
    let wheel = only_wheel(&wheels)?;
    let mut unpack = Command::new(tools.join("venv/bin/python"));
    step::quiet(unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&part))?;
    let _ = fs::remove_dir_all(tools.join("chdb"));
    fs::rename(&part, tools.join("chdb"))?;
    fs::remove_dir_all(&wheels)?;
    Ok(())
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("pip said nothing and left no wheel in {}", folder.display())
}
