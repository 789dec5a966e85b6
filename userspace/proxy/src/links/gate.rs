use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use lockgate_command::ConnectionId;
use lockgate_ipc::{Channel, ProxyToGate};

use super::Pending;

/// Why upstream could not be dialled.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The kernel said no; the text names address, namespace and reason.
    #[error("{message}")]
    Refused {
        /// errno of connect(2).
        errno: i32,
        /// For people.
        message: String,
    },
    /// gate ended or was restarted in between.
    #[error("the gate process is not there; lockgate restarts it by itself")]
    Away,
}

/// The way to gate.
#[derive(Debug, Default)]
pub(crate) struct GateLink {
    channel: ArcSwapOption<Channel>,
    dials: Pending<Result<OwnedFd, DialError>>,
}

impl GateLink {
    /// Uses `channel` from now; who waits for an answer over the old one is told.
    pub(crate) fn connect(&self, channel: Arc<Channel>) {
        self.channel.store(Some(channel));
        self.dials.fail_all();
    }

    /// The channel ended. Ignored if it has been replaced already.
    pub(crate) fn disconnect(&self, channel: &Arc<Channel>) {
        let current = self.channel.load();
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, channel))
        {
            self.channel.store(None);
            self.dials.fail_all();
        }
    }

    /// gate's answer to a dial.
    pub(crate) fn dialled(&self, dial: u64, result: Result<OwnedFd, DialError>) {
        self.dials.answer(dial, result);
    }

    /// Opens the connection's original address.
    pub(crate) async fn dial(&self, connection: ConnectionId) -> Result<TcpStream, DialError> {
        let channel = self.channel.load_full().ok_or(DialError::Away)?;
        let (dial, answer) = self.dials.ask();
        channel
            .send(&ProxyToGate::Dial { dial, connection }, None)
            .await
            .map_err(|_| DialError::Away)?;
        let fd = answer.await.map_err(|_| DialError::Away)??;
        Ok(TcpStream::from(fd))
    }

    /// Tells gate that a connection has ended. A gate that is away has
    /// forgotten it anyway.
    pub(crate) async fn closed(&self, connection: ConnectionId) {
        if let Some(channel) = self.channel.load_full() {
            let _ = channel
                .send(&ProxyToGate::Closed { connection }, None)
                .await;
        }
    }
}
