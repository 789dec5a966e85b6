use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::root;

/// A real ClickHouse on a loopback port.
#[derive(Debug)]
pub struct ClickHouse {
    process: Child,
    _stdin: ChildStdin,
    port: u16,
    _dir: TempDir,
}

impl ClickHouse {
    /// Starts one; ready when this returns.
    pub fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lockgate-ch-").tempdir()?;
        let mut process = Command::new("python3")
            .arg(root().join("tests/support/clickhouse_server.py"))
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().context("no stdin")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let port = line
            .trim()
            .strip_prefix("ready ")
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("ClickHouse did not start: {line}"))?;
        Ok(Self {
            process,
            _stdin: stdin,
            port,
            _dir: dir,
        })
    }

    /// For `audit.clickhouse.url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs a query over HTTP; what it returns.
    pub fn query(&self, sql: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        write!(
            stream,
            "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
            bail!("{}", body.trim());
        }
        Ok(body.trim().to_owned())
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // Our own child; its data are temporary.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
