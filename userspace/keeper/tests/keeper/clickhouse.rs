//! Shipping to a real ClickHouse, over sockets that gate dialled.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use lockgate_audit::{Event, EventKind, SpoolWriter};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::agent::{Agent, bundle, until};

/// Ends when it is dropped.
struct ClickHouse {
    port: u16,
    _child: Child,
}

impl ClickHouse {
    async fn start(data: &std::path::Path, port: Option<u16>) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/support/clickhouse_server.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(data)
            .args(port.map(|port| port.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::time::timeout(Duration::from_secs(120), stdout.read_line(&mut line));
        read.await.expect("it starts").unwrap();
        let port = line
            .trim()
            .strip_prefix("ready ")
            .and_then(|port| port.parse().ok());
        Self {
            port: port.expect("ClickHouse starts; has `cargo xtask setup` run?"),
            _child: child,
        }
    }

    async fn ask(&self, sql: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!(
            "POST /?database=lockgate HTTP/1.0\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await.ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.0 200")
            .then(|| body.trim().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shipped_once_and_wait_while_clickhouse_is_away() {
    let data = tempfile::tempdir().unwrap();
    let server = ClickHouse::start(data.path(), None).await;
    let port = server.port;
    let config = format!("[audit.clickhouse]\nurl = 'http://127.0.0.1:{port}'\n");
    let state = Arc::new(tempfile::tempdir().unwrap());
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let agent = Agent::start_in(state, bundle(&config), nowhere, None).await;
    let (_, fd) = agent.proxy.segment(0).await;
    let mut writer = SpoolWriter::open(fd.into()).unwrap();
    let mut append = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let kind = EventKind::Agent {
                role: "proxy".into(),
                what: format!("n {number}"),
            };
            writer.append(&Event::now(None, kind)).unwrap();
        }
    };
    let count =
        "SELECT count(), uniqExact(message) FROM events_latest WHERE startsWith(message, 'n ')";
    append(0..1000);
    until("the first are there", async || {
        (server.ask(count).await? == "1000\t1000").then_some(())
    })
    .await;
    drop(server);
    // Away: what is recorded is sealed and waits.
    append(1000..2000);
    until("it is said that ClickHouse is away", async || {
        let record = agent.status().await["record"].clone();
        let waits = record["unshipped"].as_u64()? >= 1000;
        (waits && record["clickhouse_error"].is_string()).then_some(())
    })
    .await;
    agent.proxy.segment(1).await;
    let server = ClickHouse::start(data.path(), Some(port)).await;
    until("all are there", async || {
        (server.ask(count).await? == "2000\t2000").then_some(())
    })
    .await;
    until("nothing waits", async || {
        let record = agent.status().await["record"].clone();
        (record["unshipped"] == 0 && record["clickhouse_error"].is_null()).then_some(())
    })
    .await;
}
