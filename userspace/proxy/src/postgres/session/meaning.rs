//! What a text does in this session, now.

use std::rc::Rc;
use std::sync::Arc;

use lockgate_command::{Access, Refusal, Statement, TextId};
use lockgate_sql::{
    Analysis, Catalogue, Reading, Resolved, SearchPath, SessionNames, resolve_executing,
};
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::{Asked, CatalogueState, Prepared, Session, SessionError};
use crate::postgres::upstream;
use crate::worker::Worker;

impl Session {
    pub(super) async fn understand(
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

    pub(super) async fn analyse(&self, text: &[u8]) -> Arc<Analysis> {
        analyse(&self.worker, text, self.reading).await
    }

    /// What an analysed text does in this session, now.
    pub(super) async fn meaning(
        &mut self,
        analysis: &Arc<Analysis>,
    ) -> Result<Rc<Resolved>, SessionError> {
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

    pub(super) fn executed(&self, analysis: &Analysis) -> Option<Vec<Arc<Analysis>>> {
        let executed = self.prepared_for(analysis)?.into_iter();
        Some(executed.map(|prepared| prepared.analysis).collect())
    }

    /// All that the names of a text's EXECUTE may stand for, if it has one and
    /// that is known.
    pub(super) fn prepared_for(&self, analysis: &Analysis) -> Option<Vec<Prepared>> {
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
    pub(super) fn digest(&self, text: TextId, analysis: &Analysis) -> [u8; 32] {
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
    pub(super) async fn follow_names(&mut self, catalogue: &Catalogue) -> Result<(), SessionError> {
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
    pub(super) async fn ask_names(&mut self) -> Result<SessionNames, SessionError> {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        let asked = self
            .relay
            .ask(upstream::NAMES, nonce, &mut self.server.output);
        let rows = loop {
            if !asked {
                break None;
            }
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
    /// stand for something new, which the catalogue does not have, and for all
    /// that it has: whatever a name may be must be permitted. Where columns are
    /// tagged, something new could hide one; there, such a command needs the
    /// right to see them all.
    pub(super) async fn meaning_without_relations(
        &mut self,
        analysis: &Arc<Analysis>,
    ) -> Result<Rc<Resolved>, SessionError> {
        let catalogue = self.current_catalogue().await?;
        let executed = self.executed(analysis);
        let tags = &self.target.tags;
        let resolved = |catalogue: &Catalogue, names: &SessionNames| {
            resolve_executing(analysis, executed.as_deref(), catalogue, names, tags)
        };
        let new = resolved(&catalogue.without_relations(), &self.names);
        let names = SessionNames {
            search_path: SearchPath::Unknown,
            ..self.names.clone()
        };
        let known = resolved(&catalogue, &names);
        let mut statement = Statement::clone(&new.statement);
        let Statement {
            accesses, beneath, ..
        } = &*known.statement;
        let is_more = |access: &&Access| !new.statement.accesses.contains(access);
        statement
            .accesses
            .extend(accesses.iter().filter(is_more).cloned());
        statement.beneath.extend(beneath.iter().cloned());
        if !tags.is_empty() && !statement.accesses.iter().all(is_harmless) {
            let all = tags.view_accesses(&self.names.database);
            statement.accesses.extend(all);
        }
        Ok(Rc::new(Resolved {
            statement: Arc::new(statement),
            effects: new.effects.and(known.effects),
        }))
    }

    pub(super) async fn current_catalogue(&mut self) -> Result<Arc<Catalogue>, SessionError> {
        match self.database.fresh() {
            Some(catalogue) => Ok(catalogue),
            None => self.read_catalogue(false).await,
        }
    }

    pub(super) async fn read_catalogue(
        &mut self,
        anew: bool,
    ) -> Result<Arc<Catalogue>, SessionError> {
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
    pub(super) fn follow_settings(&mut self) -> Result<(), SessionError> {
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
}

/// Has a text read; a long one on a thread of its own.
pub(super) async fn analyse(worker: &Rc<Worker>, text: &[u8], reading: Reading) -> Arc<Analysis> {
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

fn is_harmless(access: &Access) -> bool {
    access.verb.group() == "use"
}

/// The answer to [`upstream::NAMES`].
pub(super) fn names_of(
    row: &[Option<String>],
    reading: Reading,
) -> Result<SessionNames, &'static str> {
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
