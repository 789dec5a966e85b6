//! A PostgreSQL server of the test's own, on a socket in its own folder.

mod wire;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockgate_sql::{Catalogue, Rows};
use tempfile::TempDir;
pub use wire::{Answer, Wire};

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Server {
    folder: TempDir,
    process: Child,
}

impl Server {
    /// Makes and starts one that logs every statement.
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("lockgate-sql-").expect("a temporary folder");
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|of| {
            use std::os::unix::fs::MetadataExt;
            of.uid() == 0
        });
        if is_root {
            run(Command::new("chown").arg("postgres:").arg(folder.path()));
        }
        // PostgreSQL refuses to run as root.
        let postgres = |program: &str| {
            let program = format!("{BIN}/{program}");
            if !is_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
            command
        };
        let data = folder.path().join("data");
        run(postgres("initdb")
            .args([
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                "postgres",
                "-D",
            ])
            .arg(&data)
            .stdout(Stdio::null()));
        let process = postgres("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-F", "-c", "listen_addresses=", "-c", "log_statement=all"])
            .args([
                "-c",
                "log_destination=jsonlog",
                "-c",
                "logging_collector=on",
            ])
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        let server = Self { folder, process };
        let start = Instant::now();
        while server.try_rows("postgres", "select 1").is_none() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the server does not answer"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Where its socket is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(format!("{BIN}/{program}"));
        command
            .env("PGHOST", self.folder.path())
            .env("PGUSER", "postgres")
            .env_remove("PGPORT");
        command.stdin(Stdio::null());
        command
    }

    /// The rows of `sql`. Where several statements give rows, a line break ends
    /// the rows of each.
    pub fn rows(&self, database: &str, sql: &str) -> Rows {
        self.try_rows(database, sql)
            .unwrap_or_else(|| panic!("failed: {sql}"))
    }

    /// The same as another role than the superuser.
    pub fn rows_as(&self, role: &str, database: &str, sql: &str) -> Rows {
        self.try_rows_as(role, database, sql)
            .unwrap_or_else(|| panic!("failed as {role}: {sql}"))
    }

    fn try_rows(&self, database: &str, sql: &str) -> Option<Rows> {
        self.try_rows_as("postgres", database, sql)
    }

    /// None where the server refuses.
    pub fn try_rows_as(&self, role: &str, database: &str, sql: &str) -> Option<Rows> {
        let output = self
            .client("psql")
            .args([
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-F",
                "\x1f",
                "-R",
                "\x1e",
                "-P",
                "null=\x1d",
            ])
            .args(["-U", role, "-d", database, "-c", sql])
            .stderr(Stdio::null())
            .output()
            .expect("psql runs");
        output.status.success().then_some(())?;
        let text = String::from_utf8(output.stdout).expect("psql answers in UTF-8");
        let value = |text: &str| (text != "\x1d").then(|| text.to_owned());
        let lines = text
            .trim_end_matches('\n')
            .split(['\x1e', '\n'])
            .filter(|line| !line.is_empty());
        Some(
            lines
                .map(|line| line.split('\x1f').map(value).collect())
                .collect(),
        )
    }

    pub fn catalogue(&self, database: &str) -> Catalogue {
        let answer =
            |query: &&str| self.rows(database, &format!("set search_path = pg_catalog; {query}"));
        let answers: Vec<Rows> = Catalogue::QUERIES.iter().map(answer).collect();
        Catalogue::from_rows(1, &answers).expect("the server answers as expected")
    }

    pub fn fingerprint(&self, database: &str) -> String {
        let query = format!("set search_path = pg_catalog; {}", Catalogue::FINGERPRINT);
        self.rows(database, &query)[0][0]
            .clone()
            .expect("one value")
    }

    /// Every statement that a program of that name has sent until now.
    pub fn statements_of(&self, program: &str) -> Vec<String> {
        let mut statements = Vec::new();
        for file in std::fs::read_dir(self.log()).expect("the server logs") {
            let path = file.expect("a readable folder").path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            for line in std::fs::read_to_string(path)
                .expect("a readable log")
                .lines()
            {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
                    continue;
                };
                let message = line["message"].as_str().unwrap_or_default();
                let sent = message.strip_prefix("statement: ").or_else(|| {
                    message
                        .strip_prefix("execute ")?
                        .split_once(": ")
                        .map(|parts| parts.1)
                });
                if let Some(text) = sent.filter(|_| line["application_name"] == program) {
                    statements.push(text.to_owned());
                }
            }
        }
        statements
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("data/log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: at once, and the server cleans up after itself.
        let _ = Command::new("kill")
            .args(["-QUIT", &self.process.id().to_string()])
            .status();
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) {
    let status = command.status().expect("the program runs");
    assert!(status.success(), "{command:?} failed");
}
