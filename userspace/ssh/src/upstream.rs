use std::sync::Arc;

use russh::Channel;
use russh::client::{self, Handle, Msg};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::SshError;

/// As whom lockgate logs in at the server, and which server it must be.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The account at the server.
    pub user: String,
    /// Its key. The client's own is never forwarded.
    pub key: Arc<PrivateKey>,
    /// The only host key that is accepted.
    pub host_key: PublicKey,
}

impl Upstream {
    /// Logs in over a connected stream.
    pub(crate) async fn login<S>(&self, stream: S) -> Result<Handle<HostKey>, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = Arc::new(client::Config::default());
        let expected = HostKey(self.host_key.clone());
        let mut handle = client::connect_stream(config, stream, expected).await?;
        let key = PrivateKeyWithHashAlg::new(self.key.clone(), None);
        match handle
            .authenticate_publickey(&self.user, key)
            .await?
            .success()
        {
            true => Ok(handle),
            false => Err(SshError::Login(self.user.clone())),
        }
    }
}

/// Starts a command; the server has agreed when this returns.
pub(crate) async fn exec(
    handle: &Handle<HostKey>,
    command: Vec<u8>,
) -> Result<Channel<Msg>, SshError> {
    let mut channel = handle.channel_open_session().await?;
    channel.exec(true, command).await?;
    loop {
        match channel.wait().await {
            Some(russh::ChannelMsg::Success) => return Ok(channel),
            Some(russh::ChannelMsg::WindowAdjusted { .. }) => {}
            _ => return Err(SshError::Exec),
        }
    }
}

/// Accepts one host key.
pub(crate) struct HostKey(PublicKey);

impl client::Handler for HostKey {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        presented: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.key_data() == self.0.key_data(),
            PublicKeyOrCertificate::Certificate(_) => false,
        })
    }
}
