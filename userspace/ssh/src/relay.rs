use lockgate_command::Outcome;
use russh::server::Handle;
use russh::{Channel, ChannelId, ChannelMsg, client, server};

use crate::SshError;

/// Relays a running command until the server closes its channel or the client
/// is gone, and says how it ended.
pub(crate) async fn relay(
    handle: &Handle,
    downstream: Channel<server::Msg>,
    upstream: Channel<client::Msg>,
) -> Result<Outcome, SshError> {
    let id = downstream.id();
    let (mut from_client, to_client) = downstream.split();
    let (mut from_server, to_server) = upstream.split();

    // One future each, so that a full window in one direction does not stop
    // the other.
    let requests = async {
        while let Some(message) = from_client.wait().await {
            match message {
                ChannelMsg::Data { data } => to_server.data_bytes(data).await?,
                ChannelMsg::Eof => to_server.eof().await?,
                ChannelMsg::Signal { signal } => to_server.signal(signal).await?,
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        to_server.close().await?;
        Ok::<(), SshError>(())
    };
    let responses = async {
        let mut bytes = 0;
        let mut code = None;
        while let Some(message) = from_server.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    bytes += data.len() as u64;
                    to_client.data_bytes(data).await?;
                }
                ChannelMsg::ExtendedData { data, ext } => {
                    bytes += data.len() as u64;
                    to_client.extended_data_bytes(ext, data).await?;
                }
                ChannelMsg::ExitStatus { exit_status } => {
                    code = Some(exit_status.to_string());
                    to_client.exit_status(exit_status).await?;
                }
                ChannelMsg::ExitSignal {
                    signal_name,
                    core_dumped,
                    error_message,
                    lang_tag,
                } => {
                    code = Some(format!("signal {signal_name:?}"));
                    pass_signal(
                        handle,
                        id,
                        signal_name,
                        core_dumped,
                        error_message,
                        lang_tag,
                    )
                    .await?;
                }
                ChannelMsg::Eof => to_client.eof().await?,
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        Ok::<Outcome, SshError>(match code {
            Some(code) if code == "0" => Outcome::Done { rows: 0, bytes },
            Some(code) => Outcome::Failed { code },
            None => Outcome::Aborted,
        })
    };
    let mut responses = std::pin::pin!(responses);
    let outcome = tokio::select! {
        outcome = &mut responses => outcome,
        // The client has gone, or the server takes no more input. What the
        // server says of the end still counts.
        _ = requests => responses.await,
    };
    to_client.close().await?;
    outcome
}

async fn pass_signal(
    handle: &Handle,
    id: ChannelId,
    signal: russh::Sig,
    core_dumped: bool,
    message: String,
    language: String,
) -> Result<(), SshError> {
    handle
        .exit_signal_request(id, signal, core_dumped, message, language)
        .await
        .map_err(|()| SshError::Protocol(russh::Error::SendError))
}
