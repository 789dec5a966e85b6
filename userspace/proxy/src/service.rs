use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, bail};
use lockgate_config::Bundle;
use lockgate_ipc::{
    Channel, ChannelError, GateToProxy, KeeperToProxy, Order, Report, Role, from_memfd,
};
use lockgate_sql::{Analyser, AnalyserSettings};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::links::DialError;
use crate::settings::Settings;
use crate::worker::{Client, Shared, Task, Worker};

/// Memory for what is known about statements, in bytes.
const ANALYSIS_CACHE: usize = 64 << 20;

/// Runs the proxy until its parent ends or drains it. `parent` is the channel
/// to the parent; everything else arrives over it.
///
/// # Errors
/// When the parent's channel cannot be used, or a thread cannot be started.
/// What goes wrong on a connection ends that connection only.
pub fn run(parent: OwnedFd) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(Service::start(parent))
}

/// The main thread: it takes orders and passes on clients, and touches no byte
/// of theirs.
struct Service {
    parent: Arc<Channel>,
    /// Goes with the next configuration.
    mask_key: Option<OwnedFd>,
    prepared: Option<Arc<Settings>>,
    running: Option<Running>,
    gate: Option<Arc<Channel>>,
    keeper: Option<Arc<Channel>>,
}

/// What exists from the first configuration on.
struct Running {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Task>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Service {
    async fn start(parent: OwnedFd) -> anyhow::Result<()> {
        let parent = Arc::new(Channel::new(parent)?);
        let mut service = Self {
            parent,
            mask_key: None,
            prepared: None,
            running: None,
            gate: None,
            keeper: None,
        };
        service.parent.send(&Report::Ready, None).await?;
        service.take_orders().await
    }

    async fn take_orders(&mut self) -> anyhow::Result<()> {
        loop {
            let (order, fd) = match self.parent.receive::<Order>().await {
                Ok(order) => order,
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error).context("the parent's orders cannot be read"),
            };
            match (order, fd) {
                (Order::Peer(Role::Gate), Some(fd)) => {
                    self.gate = Some(Arc::new(Channel::new(fd)?));
                    self.attach_gate();
                }
                (Order::Peer(Role::Keeper), Some(fd)) => {
                    self.keeper = Some(Arc::new(Channel::new(fd)?));
                    self.attach_keeper();
                }
                (Order::Secrets, Some(fd)) => self.mask_key = Some(fd),
                (Order::Prepare, Some(fd)) => {
                    let result = prepare(fd, self.mask_key.take());
                    let answer = result.as_ref().map(|_| ()).map_err(Clone::clone);
                    self.prepared = result.ok().map(Arc::new);
                    self.parent.send(&Report::Prepared(answer), None).await?;
                }
                (Order::Commit, _) => {
                    self.commit().await?;
                    self.parent.send(&Report::Committed, None).await?;
                }
                (Order::Abort, _) => (self.prepared, self.mask_key) = (None, None),
                (Order::Status, _) => {
                    let (report, fd) = Report::status(self.status())?;
                    self.parent.send(&report, fd).await?;
                }
                (Order::Drain, _) => return self.drain().await,
                (order, _) => tracing::warn!(?order, "an order that is not for the proxy"),
            }
        }
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        let Some(settings) = self.prepared.take() else {
            bail!("the parent committed a configuration that was not prepared");
        };
        match &self.running {
            None => {
                self.running = Some(Running::start(settings)?);
                self.attach_keeper();
                self.attach_gate();
            }
            Some(running) => {
                let mut adopted = Vec::new();
                for worker in &running.workers {
                    let (done, waits) = oneshot::channel();
                    if worker.send(Task::Adopt(settings.clone(), done)).is_ok() {
                        adopted.push(waits);
                    }
                }
                for waits in adopted {
                    // A worker that ended decides nothing any more.
                    let _ = waits.await;
                }
            }
        }
        Ok(())
    }

    /// Connects gate's channel, once there are workers to hand clients to.
    fn attach_gate(&mut self) {
        if let (Some(running), Some(channel)) = (&self.running, self.gate.take()) {
            running.shared.gate.connect(channel.clone());
            let clients = Clients {
                shared: running.shared.clone(),
                workers: running.workers.clone(),
                next: 0,
            };
            tokio::spawn(clients.receive(channel));
        }
    }

    fn attach_keeper(&mut self) {
        if let (Some(running), Some(channel)) = (&self.running, self.keeper.take()) {
            running.shared.keeper.connect(channel.clone());
            tokio::spawn(receive_answers(running.shared.clone(), channel));
            for worker in &running.workers {
                let _ = worker.send(Task::KeeperBack);
            }
        }
    }

    fn status(&self) -> String {
        match &self.running {
            None => "{}".into(),
            Some(running) => {
                let mut status = running.shared.counters.to_json();
                status["workers"] = running.workers.len().into();
                status["keeper_connected"] = running.shared.keeper.is_connected().into();
                status.to_string()
            }
        }
    }

    /// Takes no more clients and ends when the last one has. The channels go
    /// on meanwhile, since logins and segments are still asked for.
    async fn drain(&mut self) -> anyhow::Result<()> {
        if let Some(running) = self.running.take() {
            for worker in running.workers {
                // One that ended has nothing to drain.
                let _ = worker.send(Task::Drain);
            }
            let threads = running.threads;
            tokio::task::spawn_blocking(move || {
                for thread in threads {
                    // A worker that panicked has nothing left to drain.
                    let _ = thread.join();
                }
            })
            .await?;
        }
        Ok(())
    }
}

impl Running {
    fn start(settings: Arc<Settings>) -> anyhow::Result<Self> {
        let limits = &settings.bundle.config.limits;
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        let workers = match settings.bundle.config.agent.workers {
            0 => processors,
            count => count,
        };
        let shared = Arc::new(Shared {
            gate: Default::default(),
            keeper: Default::default(),
            counters: Default::default(),
            analyser: Analyser::new(AnalyserSettings {
                statement_bytes: limits.statement_bytes as usize,
                cache_bytes: ANALYSIS_CACHE,
                threads: processors,
            }),
            cancel_keys: Default::default(),
        });
        let mut running = Self {
            shared,
            workers: Vec::new(),
            threads: Vec::new(),
        };
        for index in 0..workers {
            let (sender, tasks) = mpsc::unbounded_channel();
            let (shared, settings) = (running.shared.clone(), settings.clone());
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                // It reads short statements itself.
                .stack_size(lockgate_sql::STACK)
                .spawn(move || {
                    if let Err(error) = Worker::run(index as u32, shared, settings, tasks) {
                        tracing::error!(%error, index, "a worker cannot run");
                    }
                })?;
            running.workers.push(sender);
            running.threads.push(thread);
        }
        Ok(running)
    }
}

fn prepare(fd: OwnedFd, mask_key: Option<OwnedFd>) -> Result<Settings, String> {
    let read = |fd| from_memfd(fd).map_err(|why| why.to_string());
    let mask_key = mask_key.map(read).transpose()?.map(Zeroizing::new);
    let bytes = read(fd)?;
    let bundle: Bundle = serde_json::from_slice(&bytes).map_err(|why| why.to_string())?;
    Settings::new(bundle, mask_key.as_ref().map(|key| key.as_slice()))
}

/// Receives from gate and passes clients to the workers in turn.
struct Clients {
    shared: Arc<Shared>,
    workers: Vec<mpsc::UnboundedSender<Task>>,
    next: usize,
}

impl Clients {
    async fn receive(mut self, channel: Arc<Channel>) {
        loop {
            match channel.receive::<GateToProxy>().await {
                Ok((message, fd)) => self.handle(message, fd),
                Err(error) => {
                    tracing::warn!(%error, "the channel to gate ended");
                    self.shared.gate.disconnect(&channel);
                    return;
                }
            }
        }
    }

    fn handle(&mut self, message: GateToProxy, fd: Option<OwnedFd>) {
        match (message, fd) {
            (
                GateToProxy::Accepted {
                    connection,
                    workload,
                    origin,
                },
                Some(fd),
            ) => {
                let client = Client {
                    connection,
                    workload,
                    origin,
                    socket: fd.into(),
                };
                self.next = (self.next + 1) % self.workers.len();
                if self.workers[self.next].send(Task::Serve(client)).is_err() {
                    self.shared.counters.refused.fetch_add(1, Relaxed);
                }
            }
            (GateToProxy::Dialled { dial }, Some(fd)) => self.shared.gate.dialled(dial, Ok(fd)),
            (
                GateToProxy::DialFailed {
                    dial,
                    errno,
                    message,
                },
                _,
            ) => {
                self.shared
                    .gate
                    .dialled(dial, Err(DialError::Refused { errno, message }));
            }
            (message, None) => tracing::warn!(?message, "gate sent no descriptor"),
        }
    }
}

async fn receive_answers(shared: Arc<Shared>, channel: Arc<Channel>) {
    loop {
        match channel.receive::<KeeperToProxy>().await {
            Ok((message, fd)) => shared.keeper.answered(message, fd),
            Err(error) => {
                tracing::warn!(%error, "the channel to keeper ended");
                shared.keeper.disconnect(&channel);
                return;
            }
        }
    }
}
