use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use lockgate_command::{Judge, Outcome, Shown, TextId, Ticket};
use lockgate_sql::{Analysis, Catalogue, Reading, SessionNames};
use lockgate_wire_postgres::{ProtocolError, Relay, Request, ResponseEvent, error_response};

use super::cancel::CancelGuard;
use super::names::{Database, Scope};
use crate::judge::SessionJudge;
use crate::links::KeeperError;
use crate::recorder::RecordError;
use crate::settings::{Settings, TargetSettings};
use crate::stream::{Side, progress};
use crate::worker::{Intercepted, Worker};

mod begin;
mod commands;
mod cursors;
mod masking;
mod meaning;

use cursors::Cursors;

/// One client, one server session, and the judge between them.
pub(super) struct Session {
    worker: Rc<Worker>,
    intercepted: Intercepted,
    started: Instant,
    client: Side,
    server: Side,
    relay: Relay<Prepared>,
    judge: SessionJudge,
    settings: Arc<Settings>,
    target: Arc<TargetSettings>,
    database: Rc<Database>,
    names: SessionNames,
    asked: Asked,
    reading: Reading,
    scope: Option<(Rc<Scope>, Arc<Catalogue>)>,
    catalogue: CatalogueState,
    /// A command has reached a tagged column.
    tagged_in_reach: bool,
    bound: BTreeMap<u64, Bound>,
    /// What was bound last of what is masked.
    masked: Option<u64>,
    cursors: Cursors,
    /// What was permitted last of what may take COPY data.
    copying: Option<Bound>,
    /// What is behind the names of prepared statements is not known.
    execute_is_opaque: bool,
    ended: Vec<ResponseEvent>,
    _cancel: CancelGuard,
}

/// Whether the catalogue can be trusted in this session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CatalogueState {
    /// It says what the server has.
    Current,
    /// This session has changed definitions; until its transaction has ended
    /// and the catalogue was read anew, no name is known.
    Changed,
}

/// A statement as it was prepared.
#[derive(Clone)]
struct Prepared {
    text: TextId,
    analysis: Arc<Analysis>,
}

/// When the server was asked last what names mean.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// The session has changed that since, or may have.
    changed: bool,
    /// The catalogue of then, as [`Asked::at`] has it; none if that is not
    /// known.
    at: Option<(u64, u64)>,
}

impl Asked {
    /// The catalogue's epoch, and its schemas.
    fn at(catalogue: &Catalogue) -> (u64, u64) {
        (catalogue.epoch, catalogue.schemas_key())
    }
}

/// A command that was permitted, and goes on later: bound to a portal, declared,
/// copying.
struct Bound {
    analysis: Arc<Analysis>,
    text: TextId,
    /// As in [`lockgate_command::Command`].
    digest: [u8; 32],
    /// Under which settings it was permitted.
    settings: Arc<Settings>,
    /// Which columns are masked.
    masked: Option<Arc<[Shown]>>,
}

/// The rows of an answer of the server to a question of our own.
type Answer = Option<Vec<Vec<Option<String>>>>;

/// Why a session ended before its client said so.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the client broke the protocol: {0}")]
    Client(ProtocolError),
    #[error("the server broke the protocol: {0}")]
    Server(ProtocolError),
    #[error("a connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("what the database's names mean cannot be read: {0}")]
    Catalogue(KeeperError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the target is not in the configuration any more")]
    TargetGone,
}

impl Session {
    /// Relays until one side ends.
    pub(super) async fn run(mut self) {
        let reason = match self.relay().await {
            Ok(reason) => reason.to_owned(),
            Err(error) => {
                self.say_goodbye(&error).await;
                error.to_string()
            }
        };
        let connection = self.intercepted.connection;
        tracing::debug!(%connection, %reason, "session ended");
        let Self {
            worker,
            client,
            server,
            judge,
            started,
            ..
        } = self;
        // Closes what is open, before the connection's own end.
        drop(judge);
        worker
            .recorder
            .closed(connection, &reason, &client, &server, started);
        client.close().await;
    }

    async fn relay(&mut self) -> Result<&'static str, SessionError> {
        loop {
            self.reconsider_copy().await?;
            if !self.requests().await? {
                self.server.flush().await?;
                return Ok("closed by the client");
            }
            self.responses()?;
            if self.server.ended && self.client.output.is_empty() {
                return Ok("closed by the server");
            }
            if self.client.ended {
                // As at the server itself: nobody is left to read an answer.
                return Ok("the client went away");
            }
            progress(&mut self.client, &mut self.server).await?;
        }
    }

    /// Takes the client's messages one by one. False after Terminate.
    async fn requests(&mut self) -> Result<bool, SessionError> {
        while !self.server.is_full() {
            let request = self
                .relay
                .next_request(&mut self.client.input, &mut self.server.output)
                .map_err(SessionError::Client)?;
            match request {
                None => break,
                Some(Request::Query { text }) => self.query(text).await?,
                Some(Request::Parse { text, types }) => self.parse(text, &types).await?,
                Some(Request::Bind {
                    candidates,
                    named,
                    parameters,
                }) => {
                    self.bind(&candidates, named, &parameters).await?;
                }
                Some(Request::Execute { tickets }) => self.execute(&tickets).await?,
                Some(Request::FunctionCall) => self.function_call(),
                Some(Request::Terminate) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes what the server has sent. The answer to a question of our own is
    /// given back; its rows are none if the server failed.
    fn responses(&mut self) -> Result<Option<Answer>, SessionError> {
        let mut answer = None;
        if self.server.input.is_empty() {
            return Ok(answer);
        }
        self.relay
            .responses(
                &mut self.server.input,
                &mut self.client.output,
                &mut self.ended,
            )
            .map_err(SessionError::Server)?;
        for event in self.ended.drain(..) {
            let (ticket, outcome) = match event {
                ResponseEvent::Completed {
                    ticket,
                    rows,
                    bytes,
                } => (ticket, Outcome::Done { rows, bytes }),
                ResponseEvent::Failed { ticket, sqlstate } => {
                    let code = String::from_utf8_lossy(&sqlstate).into_owned();
                    (ticket, Outcome::Failed { code })
                }
                ResponseEvent::Denied { ticket } => (ticket, Outcome::Denied),
                ResponseEvent::Skipped { ticket } => (
                    ticket,
                    Outcome::Failed {
                        code: "skipped".into(),
                    },
                ),
                ResponseEvent::Parameter { name, value } => {
                    // RESET and ROLLBACK go back to what the session began
                    // with, and the next text is read before that is heard of:
                    // what was not UTF8 once never is again.
                    let utf8 = self.reading.utf8;
                    self.reading.follow(&name, &value);
                    self.reading.utf8 &= utf8;
                    continue;
                }
                ResponseEvent::Answered { rows } => {
                    answer = Some(rows);
                    continue;
                }
                ResponseEvent::Idle { .. } => continue,
            };
            self.judge.close(Ticket(ticket), &outcome);
        }
        Ok(answer)
    }

    /// What the client is told when its session ends by an error. Not after
    /// the server's own bytes broke off in the middle of a message.
    async fn say_goodbye(&mut self, error: &SessionError) {
        let code = match error {
            SessionError::Client(error) => error.sqlstate(),
            SessionError::TargetGone => "57P01",
            SessionError::Catalogue(_) | SessionError::Record(_) => "58000",
            SessionError::Server(_) | SessionError::Io(_) => return,
        };
        let mut answer = BytesMut::new();
        let message = format!("lockgate: {error}");
        error_response(&mut answer, "FATAL", code, &message, None, None);
        self.client.output.extend_from_slice(&answer);
        let patience = std::time::Duration::from_secs(2);
        // The client may be gone, or never read again; it is over either way.
        let _ = tokio::time::timeout(patience, self.client.flush()).await;
    }
}
