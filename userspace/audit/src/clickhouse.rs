use std::time::Duration;

use clickhouse::{Client, Compression};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};

mod row;
mod schema;

use crate::Batch;
use row::EventRow;

/// How long is waited for the server, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where ClickHouse is.
#[derive(Clone)]
pub struct ClickHouseSettings {
    /// HTTP interface, such as `http://10.0.9.1:8123`.
    pub url: String,
    /// Created if it is missing.
    pub database: String,
    /// `default` if absent.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

/// The copy of the record that a fleet shares. Each batch is inserted exactly
/// once: its token is its name, the server forgets the second of two, and the
/// views show one row for each event even where the server forgot the token.
#[derive(Clone)]
pub struct ClickHouse {
    /// Outside of any database, to make ours.
    server: Client,
    /// Within ours. Kept, since it remembers the columns of the table.
    client: Client,
    database: String,
    patience: Duration,
}

/// Why ClickHouse did not take or answer something. Nothing is lost: the batch
/// is shipped again.
#[derive(Debug, thiserror::Error)]
pub enum ClickHouseError {
    /// No connection, or it broke.
    #[error("ClickHouse cannot be reached: {0}; the record is kept and shipped later")]
    Away(String),
    /// It took too long.
    #[error("ClickHouse did not answer within {} ms; the record is kept and shipped later", .after.as_millis())]
    Slow {
        /// How long it was waited for.
        after: Duration,
    },
    /// The server said no.
    #[error("ClickHouse refused: {0}")]
    Refused(String),
    /// The tables were made by a later lockgate.
    #[error(
        "the tables in ClickHouse have version {found}, this lockgate knows {known}; upgrade lockgate on this host"
    )]
    Newer {
        /// Version of the tables.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// A name that could change the meaning of a statement.
    #[error("`{0}` is no name for a database: letters, digits and _ only")]
    Name(String),
}

impl std::fmt::Debug for ClickHouseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            url,
            database,
            user,
            password: _,
        } = self;
        write!(f, "ClickHouseSettings({url}, {database}, {user:?}, ..)")
    }
}

impl std::fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClickHouse({})", self.database)
    }
}

#[derive(Debug, clickhouse::Row, Serialize, Deserialize)]
struct Version {
    version: u32,
}

impl ClickHouse {
    /// Over TCP of this process's own.
    pub fn new(settings: ClickHouseSettings) -> Result<Self, ClickHouseError> {
        Self::over(HttpConnector::new(), settings)
    }

    /// Over connections that `connector` makes.
    pub fn over<C>(connector: C, settings: ClickHouseSettings) -> Result<Self, ClickHouseError>
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let ClickHouseSettings {
            url,
            database,
            user,
            password,
        } = settings;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if database.is_empty() || !database.bytes().all(plain) {
            return Err(ClickHouseError::Name(database));
        }
        let http = HttpClient::builder(TokioExecutor::new())
            // Below the server's own 3 s, so that it never closes first.
            .pool_idle_timeout(Duration::from_secs(2))
            .build(connector);
        let mut server = Client::with_http_client(http)
            .with_url(url)
            .with_compression(Compression::Lz4);
        if let Some(user) = user {
            server = server.with_user(user);
        }
        if let Some(password) = password {
            server = server.with_password(password);
        }
        Ok(Self {
            client: server.clone().with_database(&database),
            server,
            database,
            patience: PATIENCE,
        })
    }

    /// Waits up to `patience` for each answer, instead of 30 s.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Brings database, tables and views to the newest version. Several hosts
    /// may do so at once: every step can be repeated.
    pub async fn migrate(&self) -> Result<(), ClickHouseError> {
        let create = format!("CREATE DATABASE IF NOT EXISTS {}", self.database);
        self.execute(&self.server, &create).await?;
        self.execute(&self.client, schema::VERSIONS).await?;
        let query = self
            .client
            .query("SELECT max(version) AS version FROM lockgate_schema");
        let found = self.patiently(query.fetch_one::<Version>()).await?.version;
        let known = schema::MIGRATIONS.len() as u32;
        if found > known {
            return Err(ClickHouseError::Newer { found, known });
        }
        for (version, statements) in (1..).zip(schema::MIGRATIONS).skip(found as usize) {
            for statement in *statements {
                self.execute(&self.client, statement).await?;
            }
            let done = format!("INSERT INTO lockgate_schema (version) VALUES ({version})");
            self.execute(&self.client, &done).await?;
        }
        Ok(())
    }

    /// Inserts a batch. To be repeated with the same batch until it is `Ok`;
    /// then, and only then, [`crate::Store::shipped`].
    pub async fn insert(&self, batch: &Batch) -> Result<(), ClickHouseError> {
        let ship = async {
            let mut insert = self
                .client
                .insert::<EventRow>("events")
                .await?
                .with_setting("insert_deduplication_token", batch.token())
                .with_setting("insert_deduplicate", "1")
                .with_setting("async_insert", "0");
            for row in &batch.rows {
                insert.write(&EventRow::new(&batch.key, row)).await?;
            }
            insert.end().await
        };
        self.patiently(ship).await
    }

    async fn execute(&self, client: &Client, statement: &str) -> Result<(), ClickHouseError> {
        // Raw: `?` is no placeholder here.
        self.patiently(client.query_raw(statement).execute()).await
    }

    async fn patiently<T>(
        &self,
        work: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, ClickHouseError> {
        use clickhouse::error::Error;
        match tokio::time::timeout(self.patience, work).await {
            Err(_) | Ok(Err(Error::TimedOut)) => Err(ClickHouseError::Slow {
                after: self.patience,
            }),
            Ok(Err(Error::Network(why))) => Err(ClickHouseError::Away(chain_of(&*why))),
            Ok(Err(other)) => Err(ClickHouseError::Refused(other.to_string())),
            Ok(Ok(value)) => Ok(value),
        }
    }
}

/// An error and what caused it: hyper says "client error (Connect)" alone.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
