use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use lockgate_command::ConnectionId;
use lockgate_ipc::{Channel, KeeperToGate};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long gate may take; it gives up on connect(2) after ten seconds itself.
const PATIENCE: Duration = Duration::from_secs(12);

/// Port of ClickHouse's HTTP interface, where the URL names none.
const CLICKHOUSE_PORT: u16 = 8123;

/// Sockets. keeper opens none of its own: gate's are exempt from the redirect,
/// and gate alone decides from which namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    channel: Option<Arc<Channel>>,
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<OwnedFd, DialError>>>,
}

/// Why there is no socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DialError {
    /// The kernel said no.
    #[error("{0}")]
    Failed(String),
    /// gate ended or was restarted in between.
    #[error("the gate process is not there; lockgate restarts it by itself")]
    Away,
}

impl Gate {
    /// Uses `channel` from now; who waits over the old one is told.
    pub(crate) fn connect(&self, channel: Arc<Channel>) {
        let mut shared = self.lock();
        shared.channel = Some(channel);
        shared.waiting.clear();
    }

    /// The channel ended. True if it was the current one.
    pub(crate) fn disconnect(&self, channel: &Arc<Channel>) -> bool {
        let current = self.is_current(channel);
        if current {
            let mut shared = self.lock();
            shared.channel = None;
            shared.waiting.clear();
        }
        current
    }

    /// Whether `channel` leads to the gate of now.
    pub(crate) fn is_current(&self, channel: &Arc<Channel>) -> bool {
        let shared = self.lock();
        let current = shared.channel.as_ref();
        current.is_some_and(|current| Arc::ptr_eq(current, channel))
    }

    /// Whether there is a gate.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().channel.is_some()
    }

    /// gate's answer.
    pub(crate) fn answered(&self, dial: u64, result: Result<OwnedFd, DialError>) {
        if let Some(waiting) = self.lock().waiting.remove(&dial) {
            // Who asked may have given up.
            let _ = waiting.send(result);
        }
    }

    /// Where a connection goes.
    pub(crate) async fn dial_for(&self, connection: ConnectionId) -> Result<TcpStream, DialError> {
        self.ask(|dial| KeeperToGate::DialFor { dial, connection })
            .await
    }

    /// A host by name or address.
    pub(crate) async fn dial(&self, host: String, port: u16) -> Result<TcpStream, DialError> {
        self.ask(|dial| KeeperToGate::Dial { dial, host, port })
            .await
    }

    async fn ask(&self, ask: impl FnOnce(u64) -> KeeperToGate) -> Result<TcpStream, DialError> {
        let (sender, answer) = oneshot::channel();
        let (channel, dial) = {
            let mut shared = self.lock();
            let channel = shared.channel.clone().ok_or(DialError::Away)?;
            shared.next += 1;
            let dial = shared.next;
            shared.waiting.insert(dial, sender);
            (channel, dial)
        };
        // Whoever asked may be dropped at any await below.
        let _forget = Forget { gate: self, dial };
        channel
            .send(&ask(dial), None)
            .await
            .map_err(|_| DialError::Away)?;
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let fd = answer
            .map_err(|_| DialError::Away)?
            .map_err(|_| DialError::Away)??;
        let failed = |error: std::io::Error| DialError::Failed(error.to_string());
        let socket = std::net::TcpStream::from(fd);
        socket.set_nonblocking(true).map_err(failed)?;
        TcpStream::from_std(socket).map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Takes a question off the list, however it ended.
struct Forget<'a> {
    gate: &'a Gate,
    dial: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.gate.lock().waiting.remove(&self.dial);
    }
}

/// HTTP connections over gate's sockets.
#[derive(Clone, Debug)]
pub(crate) struct HttpConnector(pub(crate) Gate);

impl tower_service::Service<Uri> for HttpConnector {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let gate = self.0.clone();
        Box::pin(async move {
            if uri.scheme_str() != Some("http") {
                return Err(std::io::Error::other(
                    "audit.clickhouse.url must begin with http://; put TLS in front of it where the network is not trusted",
                ));
            }
            let host = uri.host().unwrap_or_default();
            let host = host.trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(CLICKHOUSE_PORT);
            let socket = gate.dial(host, port).await;
            Ok(TokioIo::new(socket.map_err(std::io::Error::other)?))
        })
    }
}
