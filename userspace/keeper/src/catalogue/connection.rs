use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lockgate_tls::Upstream;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::{Client, NoTls};

use super::{Access, NoCatalogue, Via};
use crate::gate::Gate;

/// Most bytes of notices before the first authentication request.
const BEFORE_AUTHENTICATION: usize = 64 * 1024;

/// Logs in over a socket of gate's, as the workload would.
pub(super) async fn connect(gate: &Gate, access: &Access) -> Result<Client, NoCatalogue> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&access.user)
        .dbname(&access.database)
        .application_name("lockgate catalogue")
        .options("-c statement_timeout=8s -c standard_conforming_strings=on");
    if let Some(password) = &access.password {
        config.password(password.expose_secret());
    }
    let ca = access.tls.ca.as_ref();
    let ca = ca.and_then(|path| access.bundle.certificates.get(path));
    let upstream = Upstream::new(&access.tls, ca.map(String::as_str), None)?;
    let mut socket = match access.via {
        Via::Connection(connection) => gate.dial_for(connection).await?,
        Via::Host => {
            let address = access.original;
            gate.dial(address.ip().to_string(), address.port()).await?
        }
    };
    if !upstream.is_on() {
        return establish(&config, socket, false).await;
    }
    /// SSLRequest (PostgreSQL protocol, section 54.7).
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    socket.write_all(&SSL_REQUEST).await?;
    if socket.read_u8().await? != b'S' {
        return Err(io::Error::other("the server offers no TLS").into());
    }
    let name = access.matched_name.as_deref();
    let tls = upstream.connect(socket, name, access.original.ip()).await?;
    establish(&config, tls, upstream.verifies_in_full()).await
}

async fn establish<S>(
    config: &tokio_postgres::Config,
    stream: S,
    verified: bool,
) -> Result<Client, NoCatalogue>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Guarded {
        stream,
        state: if verified { None } else { Some(Vec::new()) },
    };
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    tokio::spawn(async move {
        // Whoever uses the client sees the same error.
        let _ = connection.await;
    });
    Ok(client)
}

/// Ends the connection before the client answers a request for the password
/// itself, or for its MD5 form, from a server that is not verified.
struct Guarded<S> {
    stream: S,
    /// What was received before the authentication request; none once it is
    /// known to be harmless.
    state: Option<Vec<u8>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(seen) = &mut this.state {
            seen.extend_from_slice(&buffer.filled()[before..]);
            if seen.len() > BEFORE_AUTHENTICATION {
                return Poll::Ready(Err(io::Error::other(
                    "the server says too much before it asks for authentication",
                )));
            }
            match harmless(seen) {
                Some(true) => this.state = None,
                Some(false) => {
                    return Poll::Ready(Err(io::Error::other(
                        "the server asks for the password itself; it is sent only over `tls.upstream = \"verify-full\"`",
                    )));
                }
                None => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether the server's first authentication request is one for neither
/// cleartext (3) nor MD5 (5); none if it is not there yet.
fn harmless(mut seen: &[u8]) -> Option<bool> {
    loop {
        let (&tag, rest) = seen.split_first()?;
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let body = rest.get(4..length.max(4))?;
        match tag {
            b'R' => {
                let code = u32::from_be_bytes(body.get(..4)?.try_into().ok()?);
                return Some(!matches!(code, 3 | 5));
            }
            // Notices and errors may come first.
            _ => seen = &rest[length.max(4)..],
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend((body.len() as u32 + 4).to_be_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn a_request_for_the_password_is_seen_however_it_is_cut() {
        for (code, expected) in [(3u32, false), (5, false), (10, true), (0, true)] {
            let mut bytes = message(b'N', b"SNOTICE\0\0");
            bytes.extend(message(b'R', &code.to_be_bytes()));
            for cut in 0..bytes.len() {
                assert_eq!(harmless(&bytes[..cut]), None, "{code} cut at {cut}");
            }
            assert_eq!(harmless(&bytes), Some(expected));
        }
    }
}
