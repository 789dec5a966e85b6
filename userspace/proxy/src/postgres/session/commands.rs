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

use super::masking::{
    AMBIGUOUS, AMBIGUOUS_HINT, BESIDE, BESIDE_HINT, Masked, NAMED, NAMED_HINT, unmaskable,
};
use super::{Bound, CatalogueState, Prepared, Session, SessionError};

/// Portals whose command is remembered for a later Execute.
const BOUND: usize = 1024;

/// May go, masked or as it is; or not.
pub(super) type Permit = Result<Option<Masked>, Arc<Denial>>;

impl Session {
    pub(super) async fn query(&mut self, text: Bytes) -> Result<(), SessionError> {
        let (analysis, mut resolved) = self.understand(&text).await?;
        let denial = self.denied_by_cursors(&analysis, &mut resolved).await?;
        let text = TextId::of(&text);
        let command = Command {
            statement: resolved.statement.clone(),
            text,
            digest: self.digest(text, &analysis),
        };
        let (ticket, verdict) = self.decide(&command, &resolved, denial).await?;
        match verdict {
            Ok(permitted) => {
                self.takes_effect(&resolved, &analysis, &command);
                let masking = permitted.map(|Masked { masking, .. }| masking);
                self.relay
                    .allow_query(ticket, masking, &mut self.server.output);
            }
            Err(denial) => self.deny(Some(ticket), &denial),
        }
        Ok(())
    }

    /// A text is refused here already if its execution would be: the client
    /// hears of it where it prepares. What is permitted here is decided again
    /// at each Bind.
    pub(super) async fn parse(&mut self, text: Bytes, types: &[u32]) -> Result<(), SessionError> {
        let (mut analysis, mut resolved) = self.understand(&text).await?;
        if let Some(taking) = analysis.taking(types) {
            analysis = Arc::new(taking);
            resolved = self.meaning(&analysis).await?;
        }
        let text = TextId::of(&text);
        let prepared = Prepared { text, analysis };
        match self.judge.preview(&resolved.statement) {
            Verdict::Allow | Verdict::Mask(_) => {
                self.relay.allow_parse(prepared, &mut self.server.output);
            }
            Verdict::Deny(_) | Verdict::Hold(_) => {
                let command = whole(&resolved.statement, text);
                let (ticket, verdict) = self.decide(&command, &resolved, None).await?;
                match verdict {
                    Err(denial) => self.deny(Some(ticket), &denial),
                    // The policy changed in between; Bind decides.
                    Ok(_) => {
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
        named: bool,
        parameters: &Bytes,
    ) -> Result<(), SessionError> {
        let mut chosen: Option<(Prepared, Rc<Resolved>)> = None;
        for prepared in candidates {
            let resolved = self.meaning(&prepared.analysis).await?;
            let refused = match self.judge.preview(&resolved.statement) {
                Verdict::Allow => false,
                Verdict::Deny(_) | Verdict::Hold(_) => true,
                Verdict::Mask(_) if named => {
                    return self.refuse(parameters, NAMED, NAMED_HINT).await;
                }
                // Whose rows come is not known, so neither is how to mask them.
                Verdict::Mask(_) if candidates.len() > 1 => {
                    return self.refuse(parameters, AMBIGUOUS, AMBIGUOUS_HINT).await;
                }
                Verdict::Mask(_) => false,
            };
            if chosen.is_none() || refused {
                chosen = Some((prepared.clone(), resolved));
            }
            if refused {
                break;
            }
        }
        let Some((Prepared { text, analysis }, mut resolved)) = chosen else {
            self.refuse(
                parameters,
                "Bind of a statement that was not prepared through lockgate",
                "prepare it on this connection, with Parse or PREPARE",
            )
            .await?;
            return Ok(());
        };
        let denial = self.denied_by_cursors(&analysis, &mut resolved).await?;
        let mut digest = Sha256::new();
        digest.update(self.digest(text, &analysis));
        digest.update(parameters);
        let command = Command {
            statement: resolved.statement.clone(),
            text,
            digest: digest.finalize().into(),
        };
        let (ticket, verdict) = self.decide(&command, &resolved, denial).await?;
        match verdict {
            // The policy changed since it was looked at above.
            Ok(Some(_)) if named || candidates.len() > 1 => {
                self.deny(Some(ticket), &unmaskable());
            }
            Ok(permitted) => {
                self.takes_effect(&resolved, &analysis, &command);
                if self.bound.len() >= BOUND {
                    self.bound.pop_first();
                }
                if !named {
                    // It takes the place of what was bound before.
                    self.masked = permitted.as_ref().map(|_| ticket);
                }
                let mut bound = self.bound_now(&analysis, &command);
                let masking = permitted.map(|Masked { masking, columns }| {
                    bound.masked = Some(columns);
                    masking
                });
                self.bound.insert(ticket, bound);
                self.relay
                    .allow_bind(ticket, masking, &mut self.server.output);
            }
            Err(denial) => self.deny(Some(ticket), &denial),
        }
        Ok(())
    }

    /// Permitted at Bind; looked at again if the policy has changed since, or
    /// what names mean for a statement that looks them up only now.
    pub(super) async fn execute(&mut self, tickets: &[u64]) -> Result<(), SessionError> {
        self.follow_settings()?;
        if self.is_beside_a_masked_portal(tickets) {
            return self.refuse(b"", BESIDE, BESIDE_HINT).await;
        }
        let mut denied = None;
        for ticket in tickets {
            let Some(bound) = self.bound.get(ticket) else {
                return self.execute_unknown().await;
            };
            // What is looked up only now may be another's doing, too.
            if Arc::ptr_eq(&bound.settings, &self.settings) && !bound.analysis.is_late() {
                continue;
            }
            let (analysis, text, digest) = (bound.analysis.clone(), bound.text, bound.digest);
            let resolved = self.meaning(&analysis).await?;
            let denial = match self.judge.preview(&resolved.statement) {
                Verdict::Allow => continue,
                Verdict::Deny(why) | Verdict::Hold(why) => why,
                Verdict::Mask(columns) => match self.is_masked_so(*ticket, &columns) {
                    true => continue,
                    false => Arc::new(unmaskable()),
                },
            };
            let statement = resolved.statement.clone();
            denied = Some((
                Command {
                    statement,
                    text,
                    digest,
                },
                denial,
            ));
            break;
        }
        match denied {
            _ if tickets.is_empty() => self.execute_unknown().await?,
            None => self.relay.allow_execute(&mut self.server.output),
            Some((command, denial)) => {
                let ticket = self.judge.deny(&command, denial.clone()).ticket;
                self.deny(Some(ticket.0), &denial);
            }
        }
        Ok(())
    }

    /// Whatever such a portal is, it was not decided on here.
    async fn execute_unknown(&mut self) -> Result<(), SessionError> {
        if self.target.config.mode == Mode::Observe {
            self.relay.allow_execute(&mut self.server.output);
            return Ok(());
        }
        self.refuse(
            b"",
            "Execute of a portal that was not bound through lockgate with Bind",
            "use FETCH for a cursor that was declared in SQL",
        )
        .await
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
                if let Some(copying) = &mut self.copying {
                    copying.settings = self.settings.clone();
                }
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

    /// Decides, unless it has been: then there is a denial. Records, and waits
    /// for the disk where that is asked for.
    async fn decide(
        &mut self,
        command: &Command,
        resolved: &Resolved,
        denial: Option<Arc<Denial>>,
    ) -> Result<(u64, Permit), SessionError> {
        // What cannot be masked is denied, and must be recorded so.
        let permit = match (denial, self.judge.preview(&command.statement)) {
            (Some(denial), _) => Err(denial),
            (None, Verdict::Mask(columns)) => self.masked(resolved, columns).map(Some),
            (None, _) => Ok(None),
        };
        let ruling = match &permit {
            Ok(_) => self.judge.judge(command),
            Err(denial) => self.judge.deny(command, denial.clone()),
        };
        if let Some(position) = ruling.durable_at {
            // What was decided before may go on meanwhile.
            self.server.flush().await?;
            self.worker.recorder.durable(position).await?;
        }
        let verdict = match ruling.verdict {
            Verdict::Allow => Ok(None),
            // People are not asked yet, so there is nobody to wait for.
            Verdict::Deny(denial) | Verdict::Hold(denial) => Err(denial),
            // Never as it is, whatever was thought before.
            Verdict::Mask(_) => permit.and_then(|masked| {
                let masked = masked.ok_or_else(|| Arc::new(unmaskable()));
                masked.map(Some)
            }),
        };
        Ok((ruling.ticket.0, verdict))
    }

    /// A permitted command may change what the next ones mean. It counts from
    /// now, whether or not the server will do it.
    pub(super) fn takes_effect(
        &mut self,
        resolved: &Resolved,
        analysis: &Arc<Analysis>,
        command: &Command,
    ) {
        if resolved.effects.copy_in {
            self.copying = Some(self.bound_now(analysis, command));
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
        let text = command.text;
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
            let declared = self.bound_now(analysis, command);
            self.cursors.declare(declared);
        }
        if resolved.effects.touches_tagged_relation && !self.tagged_in_reach {
            self.tagged_in_reach = true;
            self.scrub_errors();
        }
    }

    /// What was permitted just now, for when it goes on.
    fn bound_now(&self, analysis: &Arc<Analysis>, command: &Command) -> Bound {
        Bound {
            analysis: analysis.clone(),
            text: command.text,
            digest: command.digest,
            settings: self.settings.clone(),
            masked: None,
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
