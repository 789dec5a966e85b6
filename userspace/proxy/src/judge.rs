use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use lockgate_audit::{Claims, Event, EventKind};
use lockgate_command::{
    Access, Command, ConnectionId, Denial, Judge, Outcome, PolicyRef, Resource, Ruling, Statement,
    TargetName, Ticket, Verb, Verdict, WorkloadName,
};
use lockgate_config::Mode;
use lockgate_identity::Origin;
use lockgate_policy::Decision;
use quick_cache::unsync::Cache;

use crate::counters::VerdictCounters;
use crate::recorder::{RecordError, Recorder};
use crate::settings::{Settings, TargetSettings};
use crate::worker::{Intercepted, Worker};

/// Decisions kept per workload and target on each thread.
const KEPT: usize = 4096;

/// Decides by the policies that hold, and records each decision before it
/// takes effect. One per connection.
pub(crate) struct SessionJudge {
    recorder: Rc<Recorder>,
    settings: Arc<Settings>,
    decisions: Rc<Decisions>,
    connection: ConnectionId,
    workload: WorkloadName,
    target: Arc<TargetSettings>,
    counters: Arc<VerdictCounters>,
    next: u64,
    open: HashMap<Ticket, Instant>,
}

/// What the policy said of statements before. Shared by the connections of a
/// thread that have the same workload, target and settings.
pub(crate) struct Decisions {
    // Keyed by address: the entry holds the statement, so that the address is
    // not used again while the entry lives.
    known: RefCell<Cache<usize, Rc<Decided>>>,
}

/// One statement and what the policy says of it.
pub(crate) struct Decided {
    _statement: Arc<Statement>,
    /// Before the target's mode is looked at.
    pub(crate) verdict: Verdict,
    policies: Vec<PolicyRef>,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            known: RefCell::new(Cache::new(KEPT)),
        }
    }
}

impl SessionJudge {
    /// A judge for one connection.
    pub(crate) fn new(
        worker: &Rc<Worker>,
        settings: &Arc<Settings>,
        intercepted: &Intercepted,
    ) -> Self {
        let Intercepted {
            connection,
            workload,
            target,
            ..
        } = intercepted;
        Self {
            recorder: worker.recorder.clone(),
            settings: settings.clone(),
            decisions: worker.decisions(settings, workload, &target.name),
            connection: *connection,
            workload: workload.clone(),
            target: target.clone(),
            counters: worker.shared.counters.verdicts(workload, &target.name),
            next: 0,
            open: HashMap::new(),
        }
    }

    /// Decides by other settings from now.
    pub(crate) fn adopt(
        &mut self,
        settings: &Arc<Settings>,
        target: &Arc<TargetSettings>,
        decisions: Rc<Decisions>,
    ) {
        self.settings = settings.clone();
        self.target = target.clone();
        self.decisions = decisions;
    }

    /// Records the connection, with what the client claims about itself.
    pub(crate) fn connected(&self, origin: &Origin, claims: Claims) -> Result<(), RecordError> {
        let event = Event::now(
            Some(self.connection),
            EventKind::Connected {
                workload: self.workload.clone(),
                target: self.target.name.clone(),
                protocol: self.target.config.protocol,
                mode: self.target.config.mode,
                origin: Box::new(origin.clone()),
                claims,
            },
        );
        self.recorder.record(&event).map(|_| ())
    }

    /// Whether the workload may connect at all. In `observe`, it may.
    pub(crate) fn may_connect(&self) -> Result<(), Arc<Denial>> {
        let connect = Access::new(Verb::Connect, Resource::target());
        match self.decision(&[connect]).verdict {
            // Nothing is shown before there is a session.
            Verdict::Allow | Verdict::Mask(_) => Ok(()),
            Verdict::Deny(denial) | Verdict::Hold(denial) => match self.target.config.mode {
                Mode::Enforce => Err(denial),
                Mode::Observe => {
                    tracing::info!(connection = %self.connection, message = %denial.message, "observed");
                    Ok(())
                }
            },
        }
    }

    /// Whether the policy permits all of `accesses`, unrecorded.
    pub(crate) fn permits(&self, accesses: &[Access]) -> bool {
        accesses.is_empty() || self.decision(accesses).verdict == Verdict::Allow
    }

    fn decision(&self, accesses: &[Access]) -> Decision {
        self.settings
            .policies
            .decide(&self.workload, &self.target.name, accesses)
    }

    /// What would be said of a statement, unrecorded. In `observe`, nothing is
    /// refused.
    pub(crate) fn preview(&self, statement: &Arc<Statement>) -> Verdict {
        match self.target.config.mode {
            Mode::Enforce => self.says_of(statement),
            Mode::Observe => Verdict::Allow,
        }
    }

    /// What the policy says of a statement, in `observe`, too; unrecorded.
    pub(crate) fn says_of(&self, statement: &Arc<Statement>) -> Verdict {
        self.decided(statement).verdict.clone()
    }

    fn decided(&self, statement: &Arc<Statement>) -> Rc<Decided> {
        let key = Arc::as_ptr(statement) as usize;
        let mut known = self.decisions.known.borrow_mut();
        if let Some(decided) = known.get(&key) {
            return decided.clone();
        }
        let decided = Rc::new(self.decide(statement));
        known.insert(key, decided.clone());
        decided
    }

    fn decide(&self, statement: &Arc<Statement>) -> Decided {
        let (verdict, policies) = match &statement.refusal {
            Some(refusal) => {
                let denial = Denial {
                    message: format!("lockgate: refused: {}", refusal.construct),
                    hint: refusal.hint.clone(),
                    policies: Vec::new(),
                    access: None,
                };
                (Verdict::Deny(Arc::new(denial)), Vec::new())
            }
            None => {
                let mut decision = self.decision(&statement.accesses);
                if decision.verdict == Verdict::Allow
                    && let Some(denial) = self.settings.policies.forbids(
                        &self.workload,
                        &self.target.name,
                        &statement.beneath,
                    )
                {
                    decision = Decision {
                        policies: denial.policies.clone(),
                        verdict: Verdict::Deny(denial),
                    };
                }
                if decision.verdict == Verdict::Allow {
                    decision = self.settings.policies.decide_shown(
                        decision.policies,
                        &self.workload,
                        &self.target.name,
                        &statement.shown,
                        |shown| self.target.mask(shown),
                    );
                }
                (decision.verdict, decision.policies)
            }
        };
        Decided {
            _statement: statement.clone(),
            verdict,
            policies,
        }
    }

    /// As [`Judge::judge`], where `denial` speaks against the command whatever
    /// the policy says of its text: it goes on with what is not permitted any
    /// more.
    pub(crate) fn deny(&mut self, command: &Command, denial: Arc<Denial>) -> Ruling {
        let policies = denial.policies.clone();
        self.rule(command, &Verdict::Deny(denial), &policies)
    }

    /// Records a verdict on `command` and counts it.
    fn rule(&mut self, command: &Command, verdict: &Verdict, policies: &[PolicyRef]) -> Ruling {
        let ticket = Ticket(self.next);
        self.next += 1;
        let enforced = self.target.config.mode == Mode::Enforce;
        let event = Event::command(
            self.connection,
            ticket,
            command,
            verdict,
            policies,
            enforced,
        );
        let position = match self.recorder.record(&event) {
            Ok(position) => position,
            Err(error) => return unrecorded(ticket, &error),
        };
        let verdict = match (verdict, enforced) {
            (Verdict::Allow, _) => {
                self.counters.allowed.fetch_add(1, Relaxed);
                Verdict::Allow
            }
            (Verdict::Mask(columns), true) => {
                self.counters.allowed.fetch_add(1, Relaxed);
                Verdict::Mask(columns.clone())
            }
            (denied, true) => {
                self.counters.denied.fetch_add(1, Relaxed);
                denied.clone()
            }
            (_, false) => {
                self.counters.observed.fetch_add(1, Relaxed);
                Verdict::Allow
            }
        };
        let durable_at = match verdict {
            Verdict::Allow | Verdict::Mask(_) => self
                .recorder
                .must_be_durable(position, command.statement.writes),
            // Nothing leaves, so nothing waits.
            Verdict::Deny(_) | Verdict::Hold(_) => None,
        };
        self.open.insert(ticket, Instant::now());
        Ruling {
            ticket,
            verdict,
            durable_at,
        }
    }
}

impl Judge for SessionJudge {
    fn judge(&mut self, command: &Command) -> Ruling {
        let decided = self.decided(&command.statement);
        self.rule(command, &decided.verdict, &decided.policies)
    }

    fn close(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Some(begun) = self.open.remove(&ticket) else {
            return;
        };
        let event = Event::now(
            Some(self.connection),
            EventKind::Ended {
                ticket,
                outcome: outcome.clone(),
                duration_us: begun.elapsed().as_micros() as u64,
            },
        );
        if let Err(error) = self.recorder.record(&event) {
            tracing::error!(connection = %self.connection, %error, "the end of a command is not in the record");
        }
    }
}

impl Drop for SessionJudge {
    fn drop(&mut self) {
        let mut open: Vec<Ticket> = self.open.keys().copied().collect();
        open.sort_unstable();
        for ticket in open {
            self.close(ticket, &Outcome::Aborted);
        }
    }
}

/// What cannot be recorded is not forwarded.
fn unrecorded(ticket: Ticket, error: &RecordError) -> Ruling {
    let denial = Denial {
        message: format!("lockgate: the command cannot be recorded, so it is refused: {error}"),
        hint: "try again later; the operator sees the spool's state in `lockgate status`".into(),
        policies: Vec::new(),
        access: None,
    };
    Ruling {
        ticket,
        verdict: Verdict::Deny(Arc::new(denial)),
        durable_at: None,
    }
}

/// The decisions of a thread, for as long as its settings hold.
#[derive(Default)]
pub(crate) struct DecisionsByWorkload {
    epoch: u64,
    kept: HashMap<(WorkloadName, TargetName), Rc<Decisions>>,
}

impl DecisionsByWorkload {
    /// Those of one workload at one target. Earlier settings' are forgotten.
    pub(crate) fn of(
        &mut self,
        epoch: u64,
        workload: &WorkloadName,
        target: &TargetName,
    ) -> Rc<Decisions> {
        if self.epoch != epoch {
            self.kept.clear();
            self.epoch = epoch;
        }
        self.kept
            .entry((workload.clone(), target.clone()))
            .or_default()
            .clone()
    }
}
