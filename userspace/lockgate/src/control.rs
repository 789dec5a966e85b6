//! The socket that `status`, `reload`, `stop` and questions about servers talk
//! to: one JSON line each way, for root alone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use crate::exit::AgentAway;

/// Longest request, in bytes.
const MAX_REQUEST: u64 = 4096;

/// What the agent is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub(crate) enum Request {
    /// How is it?
    Status,
    /// Take the changed configuration into use.
    Reload,
    /// End.
    Stop {
        /// Detach from the kernel, too.
        release: bool,
    },
    /// What is in a database, or what a role may do there?
    Look(lockgate_ipc::Look),
}

/// A request and where its answer goes: JSON in one line.
pub(crate) type Call = (Request, oneshot::Sender<String>);

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Asks the agent whose `run_dir` this is.
pub(crate) fn ask(run_dir: &Path, request: &Request) -> anyhow::Result<serde_json::Value> {
    let path = path(run_dir);
    let mut stream = UnixStream::connect(&path).map_err(|why| {
        AgentAway(format!(
            "no agent answers at {}: {why}; is `lockgate run` running, and are you root?",
            path.display()
        ))
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(|why| AgentAway(format!("the agent does not answer: {why}")))?;
    serde_json::from_str(&line)
        .map_err(|_| AgentAway("the agent ended before it answered".into()).into())
}

/// Listens in `run_dir`.
pub(crate) fn listen(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let path = path(run_dir);
    // A socket of an agent that was killed; a running one holds the lock file.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Passes requests on until the agent ends.
pub(crate) async fn serve(listener: UnixListener, calls: mpsc::UnboundedSender<Call>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, for example; that passes.
                tracing::warn!(%error, "the control socket does not accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let calls = calls.clone();
        tokio::spawn(async move {
            let (read, mut write) = stream.into_split();
            let mut line = String::new();
            let mut reader = tokio::io::BufReader::new(read.take(MAX_REQUEST));
            if reader.read_line(&mut line).await.is_err() {
                return;
            }
            let answer = match serde_json::from_str(&line) {
                Ok(request) => {
                    let (sender, answer) = oneshot::channel();
                    if calls.send((request, sender)).is_err() {
                        return;
                    }
                    let Ok(answer) = answer.await else { return };
                    answer
                }
                Err(why) => serde_json::json!({ "error": why.to_string() }).to_string(),
            };
            // Who asked may have gone.
            let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
        });
    }
}
