use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use lockgate_command::ConnectionId;
use lockgate_sql::{Catalogue, Rows};
use lockgate_tls::Upstream;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::gate::{DialError, Gate};

/// How long a server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is needed to look into a database.
pub(crate) struct Access {
    pub(crate) connection: ConnectionId,
    pub(crate) target: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) upstream: Upstream,
    pub(crate) original: SocketAddr,
    pub(crate) matched_name: Option<String>,
}

/// Why there is no catalogue.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCatalogue {
    /// No socket.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] lockgate_tls::UpstreamTlsError),
    /// The connection broke.
    #[error("the catalogue connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server refused.
    #[error("the server refused the catalogue connection: {0}")]
    Server(#[from] tokio_postgres::Error),
    /// The answers have another form.
    #[error(transparent)]
    Form(#[from] lockgate_sql::CatalogueError),
    /// It took too long.
    #[error("the server did not answer the catalogue queries within {} s", PATIENCE.as_secs())]
    Slow,
    /// It has no encoding.
    #[error("the catalogue cannot be handed over: {0}")]
    Encode(#[from] postcard::Error),
}

/// Catalogues by target and database, each read over a connection that stays
/// open: a cheap fingerprint tells whether the catalogue has to be read anew.
/// So what is given out is not older than what the asker allows.
#[derive(Clone)]
pub(crate) struct Catalogues {
    databases: Arc<Mutex<HashMap<(String, String), Arc<tokio::sync::Mutex<Database>>>>>,
    gate: Gate,
    first_epoch: u64,
}

/// One database.
#[derive(Default)]
struct Database {
    client: Option<Client>,
    read: Option<Read>,
}

struct Read {
    epoch: u64,
    fingerprint: String,
    bytes: Arc<Vec<u8>>,
    checked: Instant,
}

impl Catalogues {
    /// `first_epoch` must be above every epoch that earlier keepers gave out:
    /// a time in nanoseconds will do.
    pub(crate) fn new(gate: Gate, first_epoch: u64) -> Self {
        Self {
            databases: Arc::default(),
            gate,
            first_epoch,
        }
    }

    /// The catalogue in postcard and its epoch, seen at the server within the
    /// last `max_age`. Reads once for all who ask at the same time.
    pub(crate) async fn get(
        &self,
        access: Access,
        max_age: Duration,
    ) -> Result<(u64, Arc<Vec<u8>>), NoCatalogue> {
        let asked = Instant::now();
        let key = (access.target.clone(), access.database.clone());
        let database = {
            let mut databases = self
                .databases
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            databases.entry(key).or_default().clone()
        };
        let mut database = database.lock().await;
        if let Some(read) = &database.read
            && (read.checked > asked || read.checked.elapsed() < max_age)
        {
            return Ok((read.epoch, read.bytes.clone()));
        }
        let result = tokio::time::timeout(PATIENCE, self.refresh(&mut database, &access)).await;
        match result.unwrap_or(Err(NoCatalogue::Slow)) {
            Ok(()) => {}
            Err(error) => {
                // The next one begins with a new connection.
                database.client = None;
                return Err(error);
            }
        }
        match &database.read {
            Some(read) => Ok((read.epoch, read.bytes.clone())),
            None => Err(NoCatalogue::Slow),
        }
    }

    async fn refresh(&self, database: &mut Database, access: &Access) -> Result<(), NoCatalogue> {
        let open = database.client.take().filter(|client| !client.is_closed());
        // A connection of before may have died without notice: try once more.
        let mut retry = open.is_some();
        let mut client = match open {
            Some(client) => client,
            None => connect(&self.gate, access).await?,
        };
        loop {
            let started = Instant::now();
            match self.read(&client, database.read.as_ref()).await {
                Ok(Some(read)) => database.read = Some(read),
                Ok(None) => {
                    if let Some(read) = &mut database.read {
                        read.checked = started;
                    }
                }
                Err(NoCatalogue::Server(_)) if retry => {
                    retry = false;
                    client = connect(&self.gate, access).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            database.client = Some(client);
            return Ok(());
        }
    }

    /// None if nothing has changed.
    async fn read(
        &self,
        client: &Client,
        known: Option<&Read>,
    ) -> Result<Option<Read>, NoCatalogue> {
        let checked = Instant::now();
        // One snapshot for the fingerprint and all that it stands for.
        client
            .batch_execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog",
            )
            .await?;
        let fingerprint = rows(client, Catalogue::FINGERPRINT).await?;
        let fingerprint = fingerprint
            .into_iter()
            .flatten()
            .flatten()
            .next()
            .unwrap_or_default();
        if known.is_some_and(|known| known.fingerprint == fingerprint) {
            client.batch_execute("COMMIT").await?;
            return Ok(None);
        }
        let mut answers = Vec::with_capacity(Catalogue::QUERIES.len());
        for query in Catalogue::QUERIES {
            answers.push(rows(client, query).await?);
        }
        client.batch_execute("COMMIT").await?;
        let epoch = known.map_or(self.first_epoch, |known| known.epoch + 1);
        let catalogue = Catalogue::from_rows(epoch, &answers)?;
        let bytes = Arc::new(postcard::to_stdvec(&catalogue)?);
        Ok(Some(Read {
            epoch,
            fingerprint,
            bytes,
            checked,
        }))
    }
}

async fn rows(client: &Client, query: &str) -> Result<Rows, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|column| row.get(column).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        })
        .collect())
}

async fn connect(gate: &Gate, access: &Access) -> Result<Client, NoCatalogue> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&access.user)
        .dbname(&access.database)
        .application_name("lockgate catalogue")
        .options("-c statement_timeout=8s -c standard_conforming_strings=on");
    if let Some(password) = &access.password {
        config.password(password.expose_secret());
    }
    let mut socket = gate.dial_for(access.connection).await?;
    if !access.upstream.is_on() {
        return establish(&config, socket, false).await;
    }
    /// SSLRequest (PostgreSQL protocol, section 54.7).
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    socket.write_all(&SSL_REQUEST).await?;
    if socket.read_u8().await? != b'S' {
        return Err(io::Error::other("the server offers no TLS").into());
    }
    let name = access.matched_name.as_deref();
    let tls = access
        .upstream
        .connect(socket, name, access.original.ip())
        .await?;
    establish(&config, tls, access.upstream.verifies_in_full()).await
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
