//! A PostgreSQL server of the test's own, in the words of this crate.

mod wire;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use lockgate_sql::{Catalogue, Rows};
use lockgate_tests::Cluster;
pub use wire::{Answer, Wire};

pub struct Server(Cluster);

impl Server {
    /// Makes and starts one that logs every statement.
    pub fn start() -> Self {
        let settings = "log_statement = all\nlog_destination = jsonlog\nlogging_collector = on";
        Self(Cluster::start(settings).expect("a server"))
    }

    /// Where its socket is.
    pub fn folder(&self) -> PathBuf {
        self.0.socket()
    }

    pub fn client(&self, program: &str) -> Command {
        let mut command = self.0.client(program).expect("its programs");
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
        self.0.data().join("log")
    }
}
