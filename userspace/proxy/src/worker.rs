use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use lockgate_command::{ConnectionId, TargetName, WorkloadName};
use lockgate_config::Protocol;
use lockgate_identity::Origin;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::counters::Counters;
use crate::judge::{Decisions, DecisionsByWorkload};
use crate::links::{GateLink, KeeperLink};
use crate::postgres::{CancelKeys, Databases};
use crate::recorder::Recorder;
use crate::settings::Settings;
use crate::stream::{Stream, to_tokio};

/// What all threads share.
pub(crate) struct Shared {
    /// The way to gate.
    pub(crate) gate: GateLink,
    /// The way to keeper.
    pub(crate) keeper: KeeperLink,
    /// Numbers for operators.
    pub(crate) counters: Counters,
    /// Reads statements; has threads of its own for texts it has not seen.
    pub(crate) analyser: lockgate_sql::Analyser,
    /// Keys that cancel a running command.
    pub(crate) cancel_keys: Arc<CancelKeys>,
}

/// A client as gate hands it over.
pub(crate) struct Client {
    /// Names it on every channel.
    pub(crate) connection: ConnectionId,
    /// Who calls.
    pub(crate) workload: WorkloadName,
    /// Attested facts.
    pub(crate) origin: Box<Origin>,
    /// Its socket.
    pub(crate) socket: TcpStream,
}

/// What the main thread tells a worker.
pub(crate) enum Task {
    /// Serve this client.
    Serve(Client),
    /// Decide by these settings from now; acknowledged when it is so.
    Adopt(Arc<Settings>, oneshot::Sender<()>),
    /// A keeper is there (again): fetch what was missing.
    KeeperBack,
    /// Take nothing more and end with the last connection.
    Drain,
}

/// One thread: a runtime, a spool stream, its connections. Connections stay on
/// their thread, so what they share needs no lock.
pub(crate) struct Worker {
    /// What all threads share.
    pub(crate) shared: Arc<Shared>,
    /// This thread's stream of events.
    pub(crate) recorder: Rc<Recorder>,
    /// Catalogues, and decisions that were taken before.
    pub(crate) databases: Databases,
    settings: RefCell<Arc<Settings>>,
    decisions: RefCell<DecisionsByWorkload>,
}

impl Worker {
    /// Runs until it is told to drain and the last connection ended.
    pub(crate) fn run(
        index: u32,
        shared: Arc<Shared>,
        settings: Arc<Settings>,
        mut tasks: mpsc::UnboundedReceiver<Task>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let recorder = Recorder::new(index, shared.clone(), &settings.bundle.config.audit)?;
            let worker = Rc::new(Self {
                shared,
                recorder,
                databases: Databases::default(),
                settings: RefCell::new(settings),
                decisions: RefCell::default(),
            });
            let mut live = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    task = tasks.recv() => match task {
                        Some(Task::Serve(client)) => {
                            live.spawn_local(worker.clone().serve(client));
                        }
                        Some(Task::Adopt(settings, done)) => {
                            worker.recorder.adopt(&settings.bundle.config.audit);
                            worker.settings.replace(settings);
                            // The main thread may have given up on the reload.
                            let _ = done.send(());
                        }
                        Some(Task::KeeperBack) => worker.recorder.refill(),
                        Some(Task::Drain) | None => break,
                    },
                    Some(_) = live.join_next() => {}
                }
            }
            while live.join_next().await.is_some() {}
            Ok(())
        })
    }

    /// The settings that hold now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// Whether `settings` still hold.
    pub(crate) fn is_current(&self, settings: &Arc<Settings>) -> bool {
        Arc::ptr_eq(&self.settings.borrow(), settings)
    }

    /// Decisions that connections of one workload at one target share. Those of
    /// settings that no longer hold are not kept.
    pub(crate) fn decisions(
        &self,
        settings: &Arc<Settings>,
        workload: &WorkloadName,
        target: &TargetName,
    ) -> Rc<Decisions> {
        self.decisions
            .borrow_mut()
            .of(settings.bundle.epoch, workload, target)
    }

    async fn serve(self: Rc<Self>, client: Client) {
        let connection = client.connection;
        self.shared.counters.accepted.fetch_add(1, Relaxed);
        self.serve_target(client).await;
        self.shared.counters.session_ends(connection);
        self.shared.gate.closed(connection).await;
    }

    async fn serve_target(self: &Rc<Self>, client: Client) {
        let Client {
            connection,
            workload,
            origin,
            socket,
        } = client;
        let socket = match to_tokio(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%connection, %error, "a client's socket cannot be used");
                return;
            }
        };
        let settings = self.settings();
        let Some((target, matched_name)) = settings.target(origin.original) else {
            let reason = format!("{} belongs to no target", origin.original);
            self.recorder
                .refused(connection, &workload, None, &origin, &reason)
                .await;
            self.shared.counters.refused.fetch_add(1, Relaxed);
            Stream::Plain(socket).reset();
            return;
        };
        let target = target.clone();
        let matched_name = matched_name.map(str::to_owned);
        let intercepted = Intercepted {
            connection,
            workload,
            origin,
            target,
            matched_name,
        };
        match intercepted.target.config.protocol {
            Protocol::Postgres => crate::postgres::serve(self, intercepted, socket).await,
            Protocol::Tcp => crate::tcp::serve(self, intercepted, socket).await,
        }
    }
}

/// A connection whose target is known.
#[derive(Clone)]
pub(crate) struct Intercepted {
    /// Names it on every channel.
    pub(crate) connection: ConnectionId,
    /// Who calls.
    pub(crate) workload: WorkloadName,
    /// Attested facts.
    pub(crate) origin: Box<Origin>,
    /// Where to.
    pub(crate) target: Arc<crate::settings::TargetSettings>,
    /// The DNS name of the target that led here, if one did.
    pub(crate) matched_name: Option<String>,
}
