use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use lockgate_audit::Claims;
use lockgate_command::{
    Access, Command, Denial, Judge, Outcome, Refusal, Statement, TextId, Ticket, Verdict,
};
use lockgate_config::Mode;
use lockgate_sql::{
    Analysis, Catalogue, Reading, Resolved, SearchPath, SessionNames, refused, resolve_executing,
};
use lockgate_wire_postgres::{
    CancelKey, DenialText, LoginDone, ProtocolError, Relay, RelaySettings, Request, ResponseEvent,
    StartupMessage, error_response, greet,
};
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::cancel::CancelGuard;
use super::error::StartupError;
use super::names::{Database, Scope};
use super::options;
use super::upstream::{self, Established};
use crate::counters;
use crate::judge::SessionJudge;
use crate::links::KeeperError;
use crate::recorder::RecordError;
use crate::settings::{Settings, TargetSettings};
use crate::stream::{Side, progress};
use crate::worker::{Intercepted, Worker};

/// Portals whose command is remembered for a later Execute.
const BOUND: usize = 1024;

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
    /// How often commands have changed what names mean, those of prepared
    /// statements among them.
    changes: u64,
    reading: Reading,
    scope: Option<(Rc<Scope>, Arc<Catalogue>)>,
    catalogue: CatalogueState,
    /// A command has reached a tagged column.
    tagged_in_reach: bool,
    bound: BTreeMap<u64, Bound>,
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

/// A command that was bound to a portal.
struct Bound {
    analysis: Arc<Analysis>,
    /// [`Session::changes`] of then.
    changes: u64,
    /// Under which settings it was permitted.
    settings: Arc<Settings>,
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
    /// Decides whether there may be a session, logs in at the server and
    /// greets the client.
    pub(super) async fn begin(
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
            changes: 0,
            asked: Asked {
                changed: false,
                at: known.as_deref().map(Asked::at),
            },
            reading,
            scope: None,
            catalogue: CatalogueState::Current,
            tagged_in_reach: false,
            bound: BTreeMap::new(),
            copying: None,
            execute_is_opaque: false,
            ended: Vec::new(),
            _cancel: guard,
        })
    }

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
                Some(Request::Parse { text }) => self.parse(text).await?,
                Some(Request::Bind {
                    candidates,
                    parameters,
                }) => {
                    self.bind(&candidates, &parameters).await?;
                }
                Some(Request::Execute { tickets }) => self.execute(&tickets).await?,
                Some(Request::FunctionCall) => self.function_call(),
                Some(Request::Terminate) => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn query(&mut self, text: Bytes) -> Result<(), SessionError> {
        let (analysis, resolved) = self.understand(&text).await?;
        let text = TextId::of(&text);
        let command = Command {
            statement: resolved.statement.clone(),
            text,
            digest: self.digest(text, &analysis),
        };
        let (ticket, verdict) = self.judge(&command).await?;
        match verdict {
            Ok(()) => {
                self.takes_effect(&resolved, &analysis, text);
                self.relay.allow_query(ticket, &mut self.server.output);
            }
            Err(denial) => self.deny(Some(ticket), &denial),
        }
        Ok(())
    }

    /// A text is refused here already if its execution would be: the client
    /// hears of it where it prepares. What is permitted here is decided again
    /// at each Bind.
    async fn parse(&mut self, text: Bytes) -> Result<(), SessionError> {
        let (analysis, resolved) = self.understand(&text).await?;
        let text = TextId::of(&text);
        let prepared = Prepared { text, analysis };
        match self.judge.preview(&resolved.statement) {
            Verdict::Allow => self.relay.allow_parse(prepared, &mut self.server.output),
            Verdict::Deny(_) | Verdict::Hold(_) | Verdict::Mask(_) => {
                let command = whole(&resolved.statement, text);
                let (ticket, verdict) = self.judge(&command).await?;
                match verdict {
                    Err(denial) => self.deny(Some(ticket), &denial),
                    // The policy changed in between; Bind decides.
                    Ok(()) => {
                        self.judge.close(Ticket(ticket), &Outcome::Aborted);
                        self.relay.allow_parse(prepared, &mut self.server.output);
                    }
                }
            }
        }
        Ok(())
    }

    /// The verdict falls here, since Bind alone can run code. Every text that
    /// the statement's name may stand for must be permitted.
    async fn bind(
        &mut self,
        candidates: &[Prepared],
        parameters: &Bytes,
    ) -> Result<(), SessionError> {
        let mut chosen: Option<(Prepared, Rc<Resolved>)> = None;
        for prepared in candidates {
            let resolved = self.meaning(&prepared.analysis).await?;
            let refused = !matches!(self.judge.preview(&resolved.statement), Verdict::Allow);
            if chosen.is_none() || refused {
                chosen = Some((prepared.clone(), resolved));
            }
            if refused {
                break;
            }
        }
        let Some((Prepared { text, analysis }, resolved)) = chosen else {
            self.refuse(
                parameters,
                "Bind of a statement that was not prepared through lockgate",
                "prepare it on this connection, with Parse or PREPARE",
            )
            .await?;
            return Ok(());
        };
        let mut digest = Sha256::new();
        digest.update(self.digest(text, &analysis));
        digest.update(parameters);
        let command = Command {
            statement: resolved.statement.clone(),
            text,
            digest: digest.finalize().into(),
        };
        let (ticket, verdict) = self.judge(&command).await?;
        match verdict {
            Ok(()) => {
                self.takes_effect(&resolved, &analysis, text);
                if self.bound.len() >= BOUND {
                    self.bound.pop_first();
                }
                self.bound.insert(
                    ticket,
                    Bound {
                        analysis,
                        changes: self.changes,
                        settings: self.settings.clone(),
                    },
                );
                self.relay.allow_bind(ticket, &mut self.server.output);
            }
            Err(denial) => self.deny(Some(ticket), &denial),
        }
        Ok(())
    }

    /// Permitted at Bind; looked at again if the policy has changed since, or
    /// what names mean for a statement that looks them up only now.
    async fn execute(&mut self, tickets: &[u64]) -> Result<(), SessionError> {
        self.follow_settings()?;
        let mut denial = None;
        for ticket in tickets {
            let Some(bound) = self.bound.get(ticket) else {
                denial = Some(Arc::new(unknown_portal()));
                break;
            };
            let same_names = bound.changes == self.changes || !bound.analysis.is_late();
            if Arc::ptr_eq(&bound.settings, &self.settings) && same_names {
                continue;
            }
            let analysis = bound.analysis.clone();
            let resolved = self.meaning(&analysis).await?;
            denial = match self.judge.preview(&resolved.statement) {
                Verdict::Allow => None,
                Verdict::Deny(why) | Verdict::Hold(why) => Some(why),
                Verdict::Mask(_) => Some(Arc::new(unmaskable())),
            };
            if denial.is_some() {
                break;
            }
        }
        if tickets.is_empty() {
            denial = Some(Arc::new(unknown_portal()));
        }
        match denial.filter(|_| self.target.config.mode == Mode::Enforce) {
            None => self.relay.allow_execute(&mut self.server.output),
            Some(denial) => self.deny(None, &denial),
        }
        Ok(())
    }

    /// A COPY that takes data goes on only for as long as it is permitted: a
    /// changed policy ends it before its next data.
    async fn reconsider_copy(&mut self) -> Result<(), SessionError> {
        let Some(copying) = &self.copying else {
            return Ok(());
        };
        if self.worker.is_current(&copying.settings) || !self.relay.is_copying_in() {
            return Ok(());
        }
        let analysis = copying.analysis.clone();
        let resolved = self.meaning(&analysis).await?;
        match self.judge.preview(&resolved.statement) {
            Verdict::Allow => {
                let settings = self.settings.clone();
                let changes = self.changes;
                self.copying = Some(Bound {
                    analysis,
                    changes,
                    settings,
                });
            }
            Verdict::Deny(denial) | Verdict::Hold(denial) => self.end_copy(&denial),
            // Nothing comes back of it that could be masked.
            Verdict::Mask(_) => self.end_copy(&unmaskable()),
        }
        Ok(())
    }

    fn end_copy(&mut self, denial: &Denial) {
        self.copying = None;
        let (text, nonce) = refusal_of(denial);
        self.relay.fail_copy(text, nonce, &mut self.server.output);
    }

    fn function_call(&mut self) {
        let denial = Denial {
            message: "lockgate: refused: FunctionCall message".into(),
            hint: "call the function in a SELECT".into(),
            policies: Vec::new(),
            access: None,
        };
        let refusal = Refusal {
            construct: "FunctionCall message".into(),
            hint: "call the function in a SELECT".into(),
        };
        let command = whole(&refused(refusal), TextId::of(b""));
        let ticket = self.judge.judge(&command).ticket;
        self.deny(Some(ticket.0), &denial);
    }

    async fn refuse(
        &mut self,
        content: &[u8],
        construct: &str,
        hint: &str,
    ) -> Result<(), SessionError> {
        let refusal = Refusal {
            construct: construct.into(),
            hint: hint.into(),
        };
        let command = whole(&refused(refusal), TextId::of(content));
        let ruling = self.judge.judge(&command);
        // Even where the target is only observed: there is nothing to forward
        // that would mean the same at the server.
        let denial = match ruling.verdict {
            Verdict::Deny(denial) | Verdict::Hold(denial) => denial,
            Verdict::Allow | Verdict::Mask(_) => Arc::new(Denial {
                message: format!("lockgate: refused: {construct}"),
                hint: hint.into(),
                policies: Vec::new(),
                access: None,
            }),
        };
        self.deny(Some(ruling.ticket.0), &denial);
        Ok(())
    }

    fn deny(&mut self, ticket: Option<u64>, denial: &Denial) {
        let (text, nonce) = refusal_of(denial);
        self.relay
            .deny(ticket, text, nonce, &mut self.server.output);
    }

    /// Decides, records, and waits for the disk where that is asked for.
    async fn judge(
        &mut self,
        command: &Command,
    ) -> Result<(u64, Result<(), Arc<Denial>>), SessionError> {
        let ruling = self.judge.judge(command);
        if let Some(position) = ruling.durable_at {
            // What was decided before may go on meanwhile.
            self.server.flush().await?;
            self.worker.recorder.durable(position).await?;
        }
        let verdict = match ruling.verdict {
            Verdict::Allow => Ok(()),
            // People are not asked yet, so there is nobody to wait for.
            Verdict::Deny(denial) | Verdict::Hold(denial) => Err(denial),
            Verdict::Mask(_) => Err(Arc::new(unmaskable())),
        };
        Ok((ruling.ticket.0, verdict))
    }

    /// A permitted command may change what the next ones mean. It counts from
    /// now, whether or not the server will do it.
    fn takes_effect(&mut self, resolved: &Resolved, analysis: &Arc<Analysis>, text: TextId) {
        if resolved.effects.copy_in {
            self.copying = Some(Bound {
                analysis: analysis.clone(),
                changes: self.changes,
                settings: self.settings.clone(),
            });
        }
        let effects = &resolved.effects;
        if effects.names_change || effects.catalogue_changes || !analysis.prepares().is_empty() {
            self.changes += 1;
        }
        if resolved.effects.names_change {
            self.names.search_path = SearchPath::Unknown;
            self.asked.changed = true;
            self.scope = None;
        }
        if resolved.effects.catalogue_changes {
            self.catalogue = CatalogueState::Changed;
            self.scope = None;
        }
        for (name, analysis) in analysis.prepares() {
            let name = name.as_bytes();
            let same =
                |known: &Prepared| known.text == text && Arc::ptr_eq(&known.analysis, analysis);
            if !self.relay.prepared(name).iter().any(same) {
                let analysis = analysis.clone();
                let known = self.relay.prepares(name, Prepared { text, analysis });
                self.execute_is_opaque |= !known;
            }
        }
        self.execute_is_opaque |= resolved.effects.runs_code;
        if resolved.effects.declares {
            self.relay.forget_portals();
        }
        if resolved.effects.touches_tagged_relation && !self.tagged_in_reach {
            self.tagged_in_reach = true;
            self.scrub_errors();
        }
    }

    /// Errors and notices of the server may show values of tagged columns from
    /// the first command that reaches one: a cursor or a prepared statement has
    /// them in reach for as long as the session lasts.
    fn scrub_errors(&mut self) {
        let views = || {
            let views = self.target.tags.view_accesses(&self.names.database);
            self.judge.permits(&views)
        };
        let enforced = self.target.config.mode == Mode::Enforce;
        self.relay
            .set_scrub_errors(self.tagged_in_reach && enforced && !views());
    }

    async fn understand(
        &mut self,
        text: &[u8],
    ) -> Result<(Arc<Analysis>, Rc<Resolved>), SessionError> {
        let analysis = match self.worker.shared.analyser.cached(text, self.reading) {
            Some(analysis) => analysis,
            None => self.analyse(text).await,
        };
        let resolved = self.meaning(&analysis).await?;
        Ok((analysis, resolved))
    }

    async fn analyse(&self, text: &[u8]) -> Arc<Analysis> {
        analyse(&self.worker, text, self.reading).await
    }

    /// What an analysed text does in this session, now.
    async fn meaning(&mut self, analysis: &Arc<Analysis>) -> Result<Rc<Resolved>, SessionError> {
        self.follow_settings()?;
        let catalogue = match self.catalogue {
            CatalogueState::Current => self.current_catalogue().await?,
            CatalogueState::Changed if self.relay.is_idle_outside_transaction() => {
                let catalogue = self.read_catalogue(true).await?;
                self.catalogue = CatalogueState::Current;
                catalogue
            }
            CatalogueState::Changed => return self.meaning_without_relations(analysis).await,
        };
        self.follow_names(&catalogue).await?;
        let scope = match &self.scope {
            Some((scope, known)) if Arc::ptr_eq(known, &catalogue) => scope.clone(),
            _ => {
                let scope = self.worker.databases.scope(
                    &self.target.name,
                    self.settings.bundle.epoch,
                    &catalogue,
                    &self.names,
                );
                self.scope = Some((scope.clone(), catalogue));
                scope
            }
        };
        let executed = self.executed(analysis);
        Ok(scope.resolve(analysis, executed.as_deref(), &self.target.tags))
    }

    fn executed(&self, analysis: &Analysis) -> Option<Vec<Arc<Analysis>>> {
        let executed = self.prepared_for(analysis)?.into_iter();
        Some(executed.map(|prepared| prepared.analysis).collect())
    }

    /// All that the names of a text's EXECUTE may stand for, if it has one and
    /// that is known.
    fn prepared_for(&self, analysis: &Analysis) -> Option<Vec<Prepared>> {
        // What one statement of several prepares, another may execute.
        if self.execute_is_opaque || !analysis.prepares().is_empty() {
            return None;
        }
        let mut executed = Vec::new();
        for name in analysis.executes() {
            let known = self.relay.prepared(name.as_bytes());
            if known.is_empty() {
                return None;
            }
            executed.extend(known);
        }
        Some(executed).filter(|executed| !executed.is_empty())
    }

    /// What an approval would be for: a text, and those that it executes.
    fn digest(&self, text: TextId, analysis: &Analysis) -> [u8; 32] {
        match self.prepared_for(analysis) {
            None => text.digest,
            Some(executed) => {
                let mut digest = Sha256::new();
                digest.update(text.digest);
                for prepared in executed {
                    digest.update(prepared.text.digest);
                }
                digest.finalize().into()
            }
        }
    }

    /// Asks the server what names mean, where the session or a change of the
    /// catalogue may have changed that. Within a transaction it cannot be asked
    /// without taking part: until that has ended, a name that may mean another
    /// relation means every relation of that name.
    async fn follow_names(&mut self, catalogue: &Catalogue) -> Result<(), SessionError> {
        let same = |(epoch, _)| epoch == catalogue.epoch;
        if !self.asked.changed && self.asked.at.is_some_and(same) {
            return Ok(());
        }
        let now = Asked::at(catalogue);
        if self.relay.is_idle_outside_transaction() {
            let names = self.ask_names().await?;
            if names != self.names {
                self.names = names;
                self.scope = None;
            }
            self.asked = Asked {
                changed: false,
                at: Some(now),
            };
        } else if self.asked.at.is_some_and(|(_, schemas)| schemas != now.1) {
            // A schema that its path names may be there now.
            self.names.search_path = SearchPath::Unknown;
            self.asked.changed = true;
            self.scope = None;
        }
        Ok(())
    }

    /// What the server says that names mean; what it does not say is unknown.
    async fn ask_names(&mut self) -> Result<SessionNames, SessionError> {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        self.relay
            .ask(upstream::NAMES, nonce, &mut self.server.output);
        let rows = loop {
            self.server.flush().await?;
            if !self.server.receive().await? {
                // The client is told what the server said last.
                break None;
            }
            if let Some(rows) = self.responses()? {
                break rows;
            }
        };
        let row = rows.as_deref().and_then(|rows| rows.first());
        let names = row.and_then(|row| names_of(row, self.reading).ok());
        Ok(names.unwrap_or_else(|| SessionNames {
            search_path: SearchPath::Unknown,
            ..self.names.clone()
        }))
    }

    /// After a change of definitions that nobody else can see yet, a name may
    /// stand for anything: it is decided as one that the catalogue does not
    /// have. Where columns are tagged, that could hide one; there, such a
    /// command needs the right to see them all.
    async fn meaning_without_relations(
        &mut self,
        analysis: &Arc<Analysis>,
    ) -> Result<Rc<Resolved>, SessionError> {
        let catalogue = self.current_catalogue().await?;
        let bare = catalogue.without_relations();
        let executed = self.executed(analysis);
        let tags = &self.target.tags;
        let resolved = resolve_executing(analysis, executed.as_deref(), &bare, &self.names, tags);
        if self.target.tags.is_empty() || resolved.statement.accesses.iter().all(is_harmless) {
            return Ok(Rc::new(resolved));
        }
        let mut statement = Statement::clone(&resolved.statement);
        statement
            .accesses
            .extend(self.target.tags.view_accesses(&self.names.database));
        Ok(Rc::new(Resolved {
            statement: Arc::new(statement),
            ..resolved
        }))
    }

    async fn current_catalogue(&mut self) -> Result<Arc<Catalogue>, SessionError> {
        match self.database.fresh() {
            Some(catalogue) => Ok(catalogue),
            None => self.read_catalogue(false).await,
        }
    }

    async fn read_catalogue(&mut self, anew: bool) -> Result<Arc<Catalogue>, SessionError> {
        self.server.flush().await?;
        self.database
            .read(
                &self.worker.shared.keeper,
                self.intercepted.connection,
                anew,
            )
            .await
            .map_err(SessionError::Catalogue)
    }

    /// Switches to the settings that hold now, if they are others.
    fn follow_settings(&mut self) -> Result<(), SessionError> {
        if self.worker.is_current(&self.settings) {
            return Ok(());
        }
        let settings = self.worker.settings();
        let (target, _) = settings
            .target(self.intercepted.origin.original)
            .ok_or(SessionError::TargetGone)?;
        if target.name != self.target.name {
            return Err(SessionError::TargetGone);
        }
        self.target = target.clone();
        self.settings = settings;
        self.scope = None;
        let decisions = self.worker.decisions(
            &self.settings,
            &self.intercepted.workload,
            &self.target.name,
        );
        self.judge.adopt(&self.settings, &self.target, decisions);
        self.scrub_errors();
        Ok(())
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
                    self.reading.follow(&name, &value);
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
    let reading = Reading {
        standard_conforming_strings: true,
        utf8: true,
    };
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

/// Has a text read; a long one on a thread of its own.
async fn analyse(worker: &Rc<Worker>, text: &[u8], reading: Reading) -> Arc<Analysis> {
    if let Some(analysis) = worker.shared.analyser.analyse_here(text, reading) {
        return analysis;
    }
    let (done, waits) = tokio::sync::oneshot::channel();
    let deliver = Box::new(move |analysis| {
        // The session may have ended meanwhile.
        let _ = done.send(analysis);
    });
    worker.shared.analyser.analyse(text, reading, deliver);
    match waits.await {
        Ok(analysis) => analysis,
        Err(_) => Arc::new(Analysis::refused(Refusal {
            construct: "a statement whose reading was given up".into(),
            hint: "send it again; if it is refused again, report it with its text".into(),
        })),
    }
}

/// What the client is told, and what the server's answer is known by.
fn refusal_of(denial: &Denial) -> (DenialText, [u8; 16]) {
    let mut nonce = [0; 16];
    rand::rng().fill_bytes(&mut nonce);
    let text = DenialText {
        message: denial.message.clone(),
        hint: Some(denial.hint.clone()),
        detail: None,
    };
    (text, nonce)
}

/// A command whose text is all that runs.
fn whole(statement: &Arc<Statement>, text: TextId) -> Command {
    Command {
        statement: statement.clone(),
        text,
        digest: text.digest,
    }
}

/// For a result whose values may only be seen masked, where that cannot be done.
fn unmaskable() -> Denial {
    Denial {
        message: "lockgate: refused: the result shows values that may only be seen masked".into(),
        hint: "leave the tagged columns out of the result, or ask for `view` on them".into(),
        policies: Vec::new(),
        access: None,
    }
}

fn unknown_portal() -> Denial {
    Denial {
        message:
            "lockgate: refused: Execute of a portal that was not bound through lockgate with Bind"
                .into(),
        hint: "use FETCH for a cursor that was declared in SQL".into(),
        policies: Vec::new(),
        access: None,
    }
}

fn is_harmless(access: &Access) -> bool {
    access.verb.group() == "use"
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
    };
    for (name, value) in &done.parameters {
        reading.follow(name, value);
    }
    let names = names_of(row, reading).map_err(StartupError::Names)?;
    Ok((names, reading))
}

/// The answer to [`upstream::NAMES`].
fn names_of(row: &[Option<String>], reading: Reading) -> Result<SessionNames, &'static str> {
    let [Some(database), Some(user), Some(path)] = row else {
        return Err("the server's answer has another form");
    };
    let schemas: Vec<String> =
        serde_json::from_str(path).map_err(|_| "the server's search path cannot be read")?;
    // Temporary relations are in no catalogue, and come before all others.
    let temporary = schemas.iter().any(|schema| schema.starts_with("pg_temp"));
    let legible = reading.utf8 || path.is_ascii();
    Ok(SessionNames {
        database: database.clone(),
        user: user.clone(),
        search_path: match legible && !temporary {
            true => SearchPath::Known(schemas),
            false => SearchPath::Unknown,
        },
    })
}
