//! A real ClickHouse, and a wire to it that can be cut.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Ends when it is dropped, its data with it.
pub struct Server {
    pub port: u16,
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (child, port) = launch(dir.path(), None).await;
        Self { port, child, dir }
    }

    /// Kills it as a power cut would, and starts it again on the same data and
    /// the same port.
    pub async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        let (child, port) = launch(self.dir.path(), Some(self.port)).await;
        assert_eq!(port, self.port);
        self.child = child;
    }

    /// Returns when nothing listens any more.
    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The answer in TabSeparated, by the plainest HTTP there is.
    pub async fn ask(&self, database: &str, sql: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!(
            "POST /?database={database} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{sql}",
            sql.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{sql}\n{response}");
        body.to_owned()
    }
}

async fn launch(dir: &Path, port: Option<u16>) -> (Child, u16) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new("python3");
    command
        .arg(root.join("tests/support/clickhouse_server.py"))
        .arg(dir);
    command.args(port.map(|port| port.to_string()));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("python3 runs the ClickHouse of the tests");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let read = tokio::time::timeout(Duration::from_secs(120), stdout.read_line(&mut line)).await;
    let port = line
        .strip_prefix("ready ")
        .and_then(|port| port.trim().parse().ok());
    let Some(port) = port else {
        let _ = child.start_kill();
        let mut text = String::new();
        let _ = child.stderr.take().unwrap().read_to_string(&mut text).await;
        panic!("ClickHouse did not start ({read:?}); has `cargo xtask setup` run?\n{text}");
    };
    // Nobody reads it further, and it must not block on a full pipe.
    drop(child.stderr.take());
    (child, port)
}

/// What happens to an INSERT on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The server did it, but says 500.
    FailAfter,
    /// The server did it, but the connection is closed without an answer.
    CloseAfter,
    /// The connection is closed before the server has all of it.
    CloseBefore,
}

/// Stands between a client and the server. Does what `fault` says to the next
/// `times` INSERTs.
pub struct Wire {
    pub port: u16,
    pub inserts: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub async fn start(server: u16, fault: Fault, times: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inserts = Arc::new(AtomicUsize::new(0));
        let counter = inserts.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let counter = counter.clone();
                // An error is a connection that ended; the client sees it.
                tokio::spawn(async move { carry(client, server, fault, times, counter).await });
            }
        });
        Self {
            port,
            inserts,
            task,
        }
    }
}

async fn carry(
    mut client: TcpStream,
    port: u16,
    fault: Fault,
    times: usize,
    inserts: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    loop {
        // One request: up to the end of its chunked body.
        let mut request = Vec::new();
        while !is_whole(&request) {
            if client.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&request[..request.len().min(600)]).into_owned();
        let hit = head.contains("INSERT") && inserts.fetch_add(1, SeqCst) < times;
        if hit && fault == Fault::CloseBefore {
            server.write_all(&request[..request.len() - 7]).await?;
            return Ok(());
        }
        server.write_all(&request).await?;
        let mut response = Vec::new();
        while !is_whole(&response) {
            if server.read_buf(&mut response).await? == 0 {
                break;
            }
        }
        match (hit, fault) {
            (true, Fault::FailAfter) => {
                let failure = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nlost";
                client.write_all(failure.as_bytes()).await?;
            }
            (true, _) => return Ok(()),
            (false, _) => client.write_all(&response).await?,
        }
    }
}

/// Whether an HTTP message ended, as far as this client and server write them.
fn is_whole(message: &[u8]) -> bool {
    let Some(end) = message.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&message[..end]).to_ascii_lowercase();
    let body = &message[end + 4..];
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next());
    body.len() >= length.map_or(0, |length| length.trim().parse().unwrap())
}
