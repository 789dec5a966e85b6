//! From a startup message to a session.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use lockgate_audit::Claims;
use lockgate_command::Verdict;
use lockgate_sql::{Catalogue, Reading, SearchPath, SessionNames};
use lockgate_wire_postgres::{CancelKey, LoginDone, Relay, RelaySettings, StartupMessage, greet};
use rand::RngCore;

use super::cursors::Cursors;
use super::masking::unmaskable;
use super::meaning::{analyse, names_of};
use super::{Asked, CatalogueState, Session};
use crate::counters;
use crate::judge::SessionJudge;
use crate::postgres::error::StartupError;
use crate::postgres::options;
use crate::postgres::upstream::{self, Established};
use crate::settings::Settings;
use crate::stream::Side;
use crate::worker::{Intercepted, Worker};

impl Session {
    /// Decides whether there may be a session, logs in at the server and
    /// greets the client.
    pub(in crate::postgres) async fn begin(
        worker: &Rc<Worker>,
        settings: &Arc<Settings>,
        intercepted: &Intercepted,
        message: StartupMessage,
        client: &mut Option<Side>,
    ) -> Result<Self, StartupError> {
        let started = Instant::now();
        let judge = SessionJudge::new(worker, settings, intercepted);
        let claims = Claims {
            user: Some(message.user().to_owned()),
            database: Some(message.database().to_owned()),
            application: message.get("application_name").map(str::to_owned),
        };
        judge.connected(&intercepted.origin, claims)?;
        judge.may_connect().map_err(StartupError::Denied)?;
        decide_settings(worker, &judge, &message).await?;
        // As it is before the server says what names mean: what changes from
        // here on is seen as a change.
        let target = &intercepted.target.name;
        let before = worker.databases.database(target, message.database());
        let known = before.fresh();
        let Established { server, done } = upstream::log_in(worker, intercepted, &message).await?;
        let (names, reading) = read_names(&done)?;
        let database = worker.databases.database(target, &names.database);
        let known = known.filter(|_| Rc::ptr_eq(&before, &database));
        if database.fresh().is_none() {
            let connection = intercepted.connection;
            database
                .read(&worker.shared.keeper, connection, false)
                .await
                .map_err(StartupError::Catalogue)?;
        }
        let key = CancelKey::generate(message.protocol().1, |bytes| rand::rng().fill_bytes(bytes));
        let server_key = done.key.clone().unwrap_or_else(|| key.clone());
        let guard = worker
            .shared
            .cancel_keys
            .register(key.clone(), intercepted, server_key);
        let mut client = client.take().ok_or(StartupError::ClientGone)?;
        greet(&mut client.output, &done, &key, &message);
        worker.shared.counters.session_begins(
            intercepted.connection,
            counters::Session::new(intercepted, names.user.clone(), names.database.clone()),
        );
        let limits = &settings.bundle.config.limits;
        let relay = Relay::new(RelaySettings {
            message_bytes: limits.message_bytes as usize,
            scrub_errors: false,
        });
        Ok(Self {
            worker: worker.clone(),
            intercepted: intercepted.clone(),
            started,
            client,
            server,
            relay,
            judge,
            settings: settings.clone(),
            target: intercepted.target.clone(),
            database,
            names,
            asked: Asked {
                changed: false,
                at: known.as_deref().map(Asked::at),
            },
            reading,
            scope: None,
            catalogue: CatalogueState::Current,
            tagged_in_reach: false,
            bound: BTreeMap::new(),
            masked: None,
            cursors: Cursors::default(),
            copying: None,
            execute_is_opaque: false,
            ended: Vec::new(),
            _cancel: guard,
        })
    }
}

/// Decides the settings of the startup message as the SETs that they are. They
/// have no names of the database in them, so that no catalogue is needed.
async fn decide_settings(
    worker: &Rc<Worker>,
    judge: &SessionJudge,
    message: &StartupMessage,
) -> Result<(), StartupError> {
    let text = options::as_statements(message).map_err(|found| StartupError::Options(found.0))?;
    if text.is_empty() {
        return Ok(());
    }
    let reading = Reading::default();
    let analysis = match worker.shared.analyser.cached(text.as_bytes(), reading) {
        Some(analysis) => analysis,
        None => analyse(worker, text.as_bytes(), reading).await,
    };
    let names = SessionNames {
        database: message.database().to_owned(),
        user: message.user().to_owned(),
        search_path: SearchPath::Unknown,
    };
    let tags = lockgate_sql::Tags::default();
    let resolved = lockgate_sql::resolve(&analysis, &Catalogue::default(), &names, &tags);
    match judge.preview(&resolved.statement) {
        Verdict::Allow => Ok(()),
        Verdict::Deny(denial) | Verdict::Hold(denial) => Err(StartupError::Denied(denial)),
        Verdict::Mask(_) => Err(StartupError::Denied(Arc::new(unmaskable()))),
    }
}

/// What the server said at login of how it reads text and names.
fn read_names(done: &LoginDone) -> Result<(SessionNames, Reading), StartupError> {
    let row = done
        .setup_rows
        .first()
        .and_then(|rows| rows.first())
        .ok_or(StartupError::Names("the server gave no answer"))?;
    let mut reading = Reading {
        standard_conforming_strings: true,
        utf8: false,
        utf8_names: false,
    };
    for (name, value) in &done.parameters {
        reading.follow(name, value);
    }
    let names = names_of(row, reading).map_err(StartupError::Names)?;
    Ok((names, reading))
}
