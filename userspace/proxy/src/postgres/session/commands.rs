//! The client's messages that need a verdict.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use lockgate_command::{
    Command, Denial, Judge, Outcome, Refusal, Statement, TextId, Ticket, Verdict,
};
use lockgate_config::Mode;
use lockgate_sql::{Analysis, Resolved, SearchPath, refused};
use lockgate_wire_postgres::DenialText;
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::{Bound, CatalogueState, Prepared, Session, SessionError};

/// Portals whose command is remembered for a later Execute.
const BOUND: usize = 1024;

impl Session {
    pub(super) async fn query(&mut self, text: Bytes) -> Result<(), SessionError> {
        let (analysis, resolved) = self.understand(&text).await?;
        let text = TextId::of(&text);
        let command = Command {
            statement: resolved.statement.clone(),
            text,
            digest: self.digest(text, &analysis),
        };
        let (ticket, verdict) = self.decide(&command, &resolved).await?;
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
    pub(super) async fn parse(&mut self, text: Bytes) -> Result<(), SessionError> {
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
    pub(super) async fn bind(
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
        let (ticket, verdict) = self.decide(&command, &resolved).await?;
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
    pub(super) async fn execute(&mut self, tickets: &[u64]) -> Result<(), SessionError> {
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
    pub(super) async fn reconsider_copy(&mut self) -> Result<(), SessionError> {
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

    pub(super) fn end_copy(&mut self, denial: &Denial) {
        self.copying = None;
        let (text, nonce) = refusal_of(denial);
        self.relay.fail_copy(text, nonce, &mut self.server.output);
    }

    pub(super) fn function_call(&mut self) {
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

    pub(super) async fn refuse(
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

    pub(super) fn deny(&mut self, ticket: Option<u64>, denial: &Denial) {
        let (text, nonce) = refusal_of(denial);
        self.relay
            .deny(ticket, text, nonce, &mut self.server.output);
    }

    /// Decides, records, and waits for the disk where that is asked for.
    pub(super) async fn judge(
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
    pub(super) fn takes_effect(
        &mut self,
        resolved: &Resolved,
        analysis: &Arc<Analysis>,
        text: TextId,
    ) {
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
            self.cursors.declare(Bound {
                analysis: analysis.clone(),
                changes: self.changes,
                settings: self.settings.clone(),
            });
        }
        if resolved.effects.touches_tagged_relation && !self.tagged_in_reach {
            self.tagged_in_reach = true;
            self.scrub_errors();
        }
    }

    /// Errors and notices of the server may show values of tagged columns from
    /// the first command that reaches one: a cursor or a prepared statement has
    /// them in reach for as long as the session lasts.
    pub(super) fn scrub_errors(&mut self) {
        let views = || {
            let views = self.target.tags.view_accesses(&self.names.database);
            self.judge.permits(&views)
        };
        let enforced = self.target.config.mode == Mode::Enforce;
        self.relay
            .set_scrub_errors(self.tagged_in_reach && enforced && !views());
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
pub(super) fn unmaskable() -> Denial {
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
