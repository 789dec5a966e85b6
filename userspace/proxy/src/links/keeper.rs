use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lockgate_ipc::{Channel, Dialogue, KeeperToProxy, ProxyToKeeper, Reply};

use super::Pending;

/// keeper answers from memory or over one round trip to a server.
const PATIENCE: Duration = Duration::from_secs(12);

/// Why keeper did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    /// keeper's own words, for the operator.
    #[error("{0}")]
    Refused(String),
    /// keeper ended or was restarted in between, or took too long.
    #[error("the keeper process does not answer; lockgate restarts it by itself")]
    Away,
    /// An answer to another question. A bug, treated as a refusal.
    #[error("the keeper process gave an answer that does not fit the question")]
    Unexpected,
}

/// The way to keeper.
#[derive(Debug, Default)]
pub(crate) struct KeeperLink {
    channel: ArcSwapOption<Channel>,
    questions: Pending<(Reply, Option<OwnedFd>)>,
}

impl KeeperLink {
    /// Uses `channel` from now; who waits for an answer over the old one is told.
    pub(crate) fn connect(&self, channel: Arc<Channel>) {
        self.channel.store(Some(channel));
        self.questions.fail_all();
    }

    /// The channel ended. Ignored if it has been replaced already.
    pub(crate) fn disconnect(&self, channel: &Arc<Channel>) {
        let current = self.channel.load();
        if current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, channel))
        {
            self.channel.store(None);
            self.questions.fail_all();
        }
    }

    /// Whether a keeper is there now.
    pub(crate) fn is_connected(&self) -> bool {
        self.channel.load().is_some()
    }

    /// keeper's answer.
    pub(crate) fn answered(&self, message: KeeperToProxy, fd: Option<OwnedFd>) {
        self.questions.answer(message.request, (message.reply, fd));
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, ask: Dialogue) -> Result<(Reply, Option<OwnedFd>), KeeperError> {
        let channel = self.channel.load_full().ok_or(KeeperError::Away)?;
        let (request, answer) = self.questions.ask();
        channel
            .send(&ProxyToKeeper { request, ask }, None)
            .await
            .map_err(|_| KeeperError::Away)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok((Reply::Refused(why), _))) => Err(KeeperError::Refused(why)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(KeeperError::Away),
        }
    }

    /// Says something that has no answer.
    pub(crate) async fn tell(&self, ask: Dialogue) {
        if let Some(channel) = self.channel.load_full() {
            let _ = channel.send(&ProxyToKeeper { request: 0, ask }, None).await;
        }
    }
}
