use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use lockgate_command::ConnectionId;
use lockgate_config::{Bundle, TargetTls};
use lockgate_sql::{Catalogue, Rows};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::gate::{DialError, Gate};

mod connection;

/// How long a server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long a connection stays open that nobody asks over.
const IDLE: Duration = Duration::from_secs(60);

/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Databases that are read at the same time.
const AT_ONCE: usize = 8;

/// Databases that are known at the same time.
const DATABASES: usize = 512;

/// Most bytes of text that a server may answer to the catalogue queries.
const ANSWER: usize = 64 << 20;

/// What is needed to look into a database.
pub(crate) struct Access {
    pub(crate) via: Via,
    pub(crate) target: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) original: SocketAddr,
    pub(crate) matched_name: Option<String>,
    pub(crate) tls: TargetTls,
    /// Has the CA's certificate.
    pub(crate) bundle: Arc<Bundle>,
}

/// From where a server is dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    /// As this connection's server is.
    Connection(ConnectionId),
    /// From the host's own network namespace.
    Host,
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
    #[error("the server refused the catalogue connection: {}", in_full(.0))]
    Server(#[from] tokio_postgres::Error),
    /// The answers have another form.
    #[error(transparent)]
    Form(#[from] lockgate_sql::CatalogueError),
    /// It took too long.
    #[error("the server did not answer the catalogue queries within {} s", PATIENCE.as_secs())]
    Slow,
    /// More than a catalogue can be.
    #[error("the catalogue of the database is larger than {} MiB of text", ANSWER >> 20)]
    TooLarge,
    /// Clients ask for ever more databases.
    #[error("{DATABASES} databases are in use already")]
    TooMany,
    /// It has no encoding.
    #[error("the catalogue cannot be handed over: {0}")]
    Encode(#[from] postcard::Error),
}

/// tokio-postgres says only `db error`, and the rest one level down.
fn in_full(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Catalogues by server and database, each read over a connection that stays
/// open while it is used: a cheap fingerprint tells whether the catalogue has
/// to be read anew.
///
/// Staleness: what is given out was seen at the server after the question minus
/// the asker's `max_age`. So a change that was committed longer ago than
/// `max_age` is always in it, and with a `max_age` of 0 every change committed
/// before the question.
#[derive(Clone)]
pub(crate) struct Catalogues {
    shared: Arc<Shared>,
}

struct Shared {
    databases: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Database>>>>,
    reading: Semaphore,
    gate: Gate,
    next_epoch: AtomicU64,
}

/// Two servers of one target are two: they may differ.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    target: String,
    server: SocketAddr,
    database: String,
}

/// One database.
struct Database {
    client: Option<Client>,
    read: Option<Read>,
    used: Instant,
}

struct Read {
    epoch: u64,
    fingerprint: String,
    bytes: Arc<Vec<u8>>,
    /// Just before the server was asked.
    checked: Instant,
}

impl Catalogues {
    /// `first_epoch` must be above every epoch that earlier keepers gave out:
    /// a time in nanoseconds will do. Must be called within a tokio runtime.
    pub(crate) fn new(gate: Gate, first_epoch: u64) -> Self {
        let shared = Arc::new(Shared {
            databases: Mutex::default(),
            reading: Semaphore::new(AT_ONCE),
            gate,
            next_epoch: AtomicU64::new(first_epoch),
        });
        let swept = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                match swept.upgrade() {
                    Some(shared) => shared.close_idle(IDLE),
                    None => return,
                }
            }
        });
        Self { shared }
    }

    /// The catalogue in postcard and its epoch, seen at the server within the
    /// last `max_age`. Reads once for all who ask at the same time.
    pub(crate) async fn get(
        &self,
        access: Access,
        max_age: Duration,
    ) -> Result<(u64, Arc<Vec<u8>>), NoCatalogue> {
        let asked = Instant::now();
        let key = Key {
            target: access.target.clone(),
            server: access.original,
            database: access.database.clone(),
        };
        let database = self.shared.database(&key)?;
        let work = async {
            let mut database = database.lock().await;
            database.used = Instant::now();
            if let Some(read) = &database.read
                && (read.checked > asked || asked.duration_since(read.checked) < max_age)
            {
                return Ok((read.epoch, read.bytes.clone()));
            }
            // The semaphore is never closed.
            let _permit = self.shared.reading.acquire().await;
            self.shared.refresh(&mut database, &access).await
        };
        let result = tokio::time::timeout(PATIENCE, Box::pin(work)).await;
        let result = result.unwrap_or(Err(NoCatalogue::Slow));
        if result.is_err() {
            self.shared.forget_unread(&key, &database);
        }
        result
    }

    /// The answer to one more question, over a connection of its own.
    pub(crate) async fn ask(&self, access: &Access, query: &str) -> Result<Rows, NoCatalogue> {
        let work = async {
            let client = connection::connect(&self.shared.gate, access).await?;
            let mut room = ANSWER;
            rows(&client, query, &mut room).await
        };
        let result = tokio::time::timeout(PATIENCE, Box::pin(work)).await;
        result.unwrap_or(Err(NoCatalogue::Slow))
    }

    /// Forgets everything: connections made under another configuration are
    /// not used under this one.
    pub(crate) fn forget(&self) {
        lock(&self.shared.databases).clear();
    }

    /// For operators.
    pub(crate) fn status(&self) -> Value {
        let databases = lock(&self.shared.databases);
        let all = databases.iter().map(|(key, database)| {
            let mut row = json!({
                "target": key.target,
                "server": key.server,
                "database": key.database,
            });
            // One that is being read has nothing to say now.
            if let Ok(database) = database.try_lock() {
                row["connected"] = database.client.is_some().into();
                if let Some(read) = &database.read {
                    row["epoch"] = read.epoch.into();
                    row["checked_ms_ago"] = (read.checked.elapsed().as_millis() as u64).into();
                }
            }
            row
        });
        all.collect()
    }
}

impl Shared {
    fn database(&self, key: &Key) -> Result<Arc<tokio::sync::Mutex<Database>>, NoCatalogue> {
        let mut databases = lock(&self.databases);
        if let Some(known) = databases.get(key) {
            return Ok(known.clone());
        }
        if databases.len() >= DATABASES {
            // Those in use, or used lately, stay.
            databases.retain(|_, database| {
                database
                    .try_lock()
                    .map_or(true, |database| database.client.is_some())
            });
            if databases.len() >= DATABASES {
                return Err(NoCatalogue::TooMany);
            }
        }
        let fresh = Arc::new(tokio::sync::Mutex::new(Database {
            client: None,
            read: None,
            used: Instant::now(),
        }));
        databases.insert(key.clone(), fresh.clone());
        Ok(fresh)
    }

    /// Clients may ask for databases that do not exist.
    fn forget_unread(&self, key: &Key, database: &Arc<tokio::sync::Mutex<Database>>) {
        let mut databases = lock(&self.databases);
        let unread = database
            .try_lock()
            .is_ok_and(|database| database.read.is_none());
        let same = databases
            .get(key)
            .is_some_and(|known| Arc::ptr_eq(known, database));
        if unread && same {
            databases.remove(key);
        }
    }

    fn close_idle(&self, idle: Duration) {
        for database in lock(&self.databases).values() {
            if let Ok(mut database) = database.try_lock()
                && database.used.elapsed() >= idle
            {
                database.client = None;
            }
        }
    }

    async fn refresh(
        &self,
        database: &mut Database,
        access: &Access,
    ) -> Result<(u64, Arc<Vec<u8>>), NoCatalogue> {
        // Whatever goes wrong, the next one begins with a new connection.
        let open = database.client.take().filter(|client| !client.is_closed());
        // A connection of before may have died without notice: try once more.
        let mut retry = open.is_some();
        let mut client = match open {
            Some(client) => client,
            None => connection::connect(&self.gate, access).await?,
        };
        loop {
            match self.read(&client, database.read.as_mut()).await {
                Ok(None) => {}
                Ok(Some(read)) => database.read = Some(read),
                Err(NoCatalogue::Server(_)) if retry => {
                    retry = false;
                    client = connection::connect(&self.gate, access).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            database.client = Some(client);
            return match &database.read {
                Some(read) => Ok((read.epoch, read.bytes.clone())),
                None => Err(NoCatalogue::Slow),
            };
        }
    }

    /// None if nothing has changed; `known` is marked as seen then.
    async fn read(
        &self,
        client: &Client,
        known: Option<&mut Read>,
    ) -> Result<Option<Read>, NoCatalogue> {
        let checked = Instant::now();
        // One snapshot for the fingerprint and all that it stands for.
        client
            .batch_execute(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog",
            )
            .await?;
        let mut room = ANSWER;
        let fingerprint = rows(client, Catalogue::FINGERPRINT, &mut room).await?;
        let fingerprint = fingerprint
            .into_iter()
            .flatten()
            .flatten()
            .next()
            .unwrap_or_default();
        if let Some(known) = known
            && known.fingerprint == fingerprint
        {
            client.batch_execute("COMMIT").await?;
            known.checked = checked;
            return Ok(None);
        }
        let mut answers = Vec::with_capacity(Catalogue::QUERIES.len());
        for query in Catalogue::QUERIES {
            answers.push(rows(client, query, &mut room).await?);
        }
        client.batch_execute("COMMIT").await?;
        let epoch = self.next_epoch.fetch_add(1, Relaxed);
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

/// The rows of `query`; their text is taken off `room`.
async fn rows(client: &Client, query: &str, room: &mut usize) -> Result<Rows, NoCatalogue> {
    let mut messages = std::pin::pin!(client.simple_query_raw(query).await?);
    let mut rows = Rows::new();
    while let Some(message) = messages.try_next().await? {
        let SimpleQueryMessage::Row(row) = message else {
            continue;
        };
        let values = (0..row.len()).map(|column| row.get(column).map(str::to_owned));
        let values: Vec<Option<String>> = values.collect();
        let text: usize = values.iter().flatten().map(String::len).sum();
        *room = room.checked_sub(text).ok_or(NoCatalogue::TooLarge)?;
        rows.push(values);
    }
    Ok(rows)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
