use std::rc::Rc;

use lockgate_wire_postgres::{CancelKey, ClientStartup, StartupEvent, StartupMessage};
use tokio::net::TcpStream;

use super::ALPN;
use super::error::StartupError;
use crate::stream::{Side, Stream};
use crate::tls;
use crate::worker::{Intercepted, Worker};

/// What a client came for.
pub(super) enum Greeting {
    /// A session.
    Session(StartupMessage),
    /// To cancel a command of another connection.
    Cancel(CancelKey, Side),
}

/// First byte of a TLS record that holds a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Reads the client's first messages and gives it TLS if it asks. `client` is
/// set as soon as the client could read an error.
pub(super) async fn greet(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
    socket: TcpStream,
    client: &mut Option<Side>,
) -> Result<Greeting, StartupError> {
    let mut startup = ClientStartup::new();
    let mut first = [0];
    if socket
        .peek(&mut first)
        .await
        .map_err(StartupError::Client)?
        == 0
    {
        return Err(StartupError::ClientGone);
    }
    let mut side = if first[0] == TLS_HANDSHAKE {
        let side = encrypt(worker, intercepted, socket, true).await?;
        startup.tls_done();
        side
    } else {
        Side::new(Stream::Plain(socket))
    };
    loop {
        match startup.feed(&mut side.input) {
            Ok(StartupEvent::NeedMore) => match side.receive().await {
                Ok(true) => {}
                Ok(false) => return Err(StartupError::ClientGone),
                Err(error) => return Err(StartupError::Client(error)),
            },
            Ok(StartupEvent::Reply(reply)) => {
                side.output.extend_from_slice(reply);
                side.flush().await.map_err(StartupError::Client)?;
            }
            Ok(StartupEvent::StartTls { reply, .. }) => {
                side.output.extend_from_slice(reply);
                side.flush().await.map_err(StartupError::Client)?;
                let Stream::Plain(socket) = side.stream else {
                    return Err(StartupError::ClientGone);
                };
                side = encrypt(worker, intercepted, socket, false).await?;
                startup.tls_done();
            }
            Ok(StartupEvent::Startup(message)) => {
                *client = Some(side);
                return Ok(Greeting::Session(message));
            }
            Ok(StartupEvent::Cancel(key)) => return Ok(Greeting::Cancel(key, side)),
            Err(error) => {
                *client = Some(side);
                return Err(StartupError::ClientProtocol(error));
            }
        }
    }
}

async fn encrypt(
    worker: &Rc<Worker>,
    intercepted: &Intercepted,
    socket: TcpStream,
    direct: bool,
) -> Result<Side, StartupError> {
    let tls = tls::accept(
        socket,
        &worker.shared.keeper,
        intercepted.connection,
        &intercepted.target.name,
        ALPN,
        direct,
    )
    .await?;
    Ok(Side::new(Stream::Server(Box::new(tls))))
}
