use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lockgate_audit::ClickHouseSettings;
use lockgate_config::{Bundle, Secrets};
use lockgate_ipc::{Channel, ChannelError, GateToKeeper, Order, Report, Role, from_memfd};
use lockgate_tls::Upstream;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::answers::{Keeper, Shared};
use crate::attested::{Connection, Generation};
use crate::ca::{HostCa, own_leaf};
use crate::catalogue::Catalogues;
use crate::gate::{DialError, Gate};
use crate::record::{self, Record};
use crate::{look, memory, metrics};

/// How long the end of the proxies' channels is waited for, and how long the
/// sealing of the rest may take. The parent kills after three seconds.
const SETTLE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// What keeper is given at its start, before it loses its rights.
#[derive(Debug)]
pub struct Setup {
    /// Spool, store and host CA; belongs to keeper's user.
    pub state_dir: PathBuf,
    /// Where the metrics endpoint listens; none if it is off.
    pub metrics: Option<std::net::TcpListener>,
    /// Name of the host in the record.
    pub host: String,
    /// Boot id of the host.
    pub boot: Uuid,
}

/// Runs keeper until its parent ends or drains it. `parent` is the channel to
/// the parent; everything else arrives over it. Runs a tokio runtime of its
/// own; must not be called within one.
///
/// # Errors
/// When state cannot be opened, or nothing can be recorded any more; the text
/// says which and why.
pub fn run(parent: OwnedFd, setup: Setup) -> anyhow::Result<()> {
    match memory::lock_in() {
        true => tracing::debug!("memory is locked"),
        false => tracing::debug!("memory is not locked: RLIMIT_MEMLOCK is not unlimited"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let parent = Channel::new(parent)?;
        let mut service = Service::new(parent, setup)?;
        service.parent.send(&Report::Ready, None).await?;
        service.take_orders().await
    })
}

struct Service {
    parent: Channel,
    setup: Setup,
    /// From the first configuration on.
    keeper: Option<Arc<Keeper>>,
    /// Until then.
    ca: Option<HostCa>,
    /// Closed when nothing can be recorded any more.
    record_ended: Option<oneshot::Receiver<()>>,
    gate: Gate,
    shared: Arc<Shared>,
    prepared: Option<Bundle>,
    /// Sent ahead of the configuration that they are for.
    secrets: Option<Result<Secrets, String>>,
    clickhouse: watch::Sender<Option<ClickHouseSettings>>,
    proxies: Generation,
    /// One task for each proxy.
    serving: JoinSet<()>,
    /// Proxies that came before the first configuration.
    waiting: Vec<OwnedFd>,
}

impl Service {
    fn new(parent: Channel, setup: Setup) -> anyhow::Result<Self> {
        let ca = HostCa::open(&setup.state_dir)?;
        Ok(Self {
            parent,
            setup,
            keeper: None,
            ca: Some(ca),
            record_ended: None,
            gate: Gate::default(),
            shared: Arc::default(),
            prepared: None,
            secrets: None,
            clickhouse: watch::Sender::new(None),
            proxies: 0,
            serving: JoinSet::new(),
            waiting: Vec::new(),
        })
    }

    async fn take_orders(&mut self) -> anyhow::Result<()> {
        loop {
            let received = tokio::select! {
                received = self.parent.receive::<Order>() => received,
                () = ended(&mut self.record_ended) => {
                    bail!("a thread that keeps the record has ended");
                }
            };
            let (order, fd) = match received {
                Ok(order) => order,
                Err(ChannelError::Closed) => return Ok(()),
                Err(error) => return Err(error).context("the parent's orders cannot be read"),
            };
            match (order, fd) {
                (Order::Peer(Role::Gate), Some(fd)) => self.meet_gate(fd)?,
                (Order::Peer(Role::Proxy), Some(fd)) => self.meet_proxy(fd)?,
                (Order::Secrets, Some(fd)) => self.secrets = Some(read_secrets(fd)),
                (Order::Prepare, Some(fd)) => {
                    let result = self.prepare(fd);
                    let answer = result.as_ref().map(|_| ()).map_err(Clone::clone);
                    self.prepared = result.ok();
                    self.parent.send(&Report::Prepared(answer), None).await?;
                }
                (Order::Commit, _) => {
                    self.commit()?;
                    self.parent.send(&Report::Committed, None).await?;
                }
                (Order::Abort, _) => (self.prepared, self.secrets) = (None, None),
                (Order::Status, _) => {
                    let status = match &self.keeper {
                        Some(keeper) => keeper.status().to_string(),
                        None => "{}".into(),
                    };
                    self.parent.send(&Report::Status(status), None).await?;
                }
                (Order::Look, Some(fd)) => match &self.keeper {
                    Some(keeper) => drop(tokio::spawn(look::answer(keeper.clone(), fd))),
                    // Who asked sees the channel end.
                    None => drop(fd),
                },
                (Order::Numbers(numbers), _) => {
                    self.shared.state().others =
                        serde_json::from_str(&numbers).unwrap_or(Value::Null);
                }
                (Order::Drain, _) => {
                    self.settle().await;
                    return Ok(());
                }
                (order, _) => tracing::warn!(?order, "an order that is not for keeper"),
            }
        }
    }

    fn meet_gate(&mut self, fd: OwnedFd) -> anyhow::Result<()> {
        let channel = Arc::new(Channel::new(fd)?);
        {
            // Under the lock, so that no word of the old gate falls in between.
            let mut state = self.shared.state();
            state.attested.orphan();
            state.credentials.retain(|_| false);
            self.gate.connect(channel.clone());
        }
        let (gate, shared) = (self.gate.clone(), self.shared.clone());
        tokio::spawn(follow_gate(gate, shared, channel));
        Ok(())
    }

    fn meet_proxy(&mut self, fd: OwnedFd) -> anyhow::Result<()> {
        match &self.keeper {
            Some(keeper) => {
                self.proxies += 1;
                let channel = Arc::new(Channel::new(fd)?);
                self.serving
                    .spawn(keeper.clone().serve(channel, self.proxies));
                // Those that have ended.
                while self.serving.try_join_next().is_some() {}
            }
            None => self.waiting.push(fd),
        }
        Ok(())
    }

    /// Everything that could be refused is refused here, so that committing
    /// cannot fail.
    fn prepare(&self, fd: OwnedFd) -> Result<Bundle, String> {
        let bytes = from_memfd(fd).map_err(|why| why.to_string())?;
        let bundle: Bundle = serde_json::from_slice(&bytes).map_err(|why| why.to_string())?;
        let secrets = match &self.secrets {
            Some(Ok(secrets)) => Some(secrets),
            Some(Err(why)) => return Err(why.clone()),
            None => None,
        };
        let state = self.shared.state();
        for target in &bundle.config.targets {
            let ca = target.tls.ca.as_ref();
            let ca = ca.and_then(|path| bundle.certificates.get(path));
            Upstream::new(&target.tls, ca.map(String::as_str), None)
                .map_err(|why| format!("target `{}`: {why}", target.name))?;
            let key = match secrets {
                Some(secrets) => secrets.keys.get(&target.name),
                None => state.credentials.key_of(&target.name),
            };
            own_leaf(target, &bundle, key.map(ExposeSecret::expose_secret))
                .map_err(|why| why.to_string())?;
        }
        HostCa::check(&bundle).map_err(|why| why.to_string())?;
        Ok(bundle)
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let Some(bundle) = self.prepared.take() else {
            bail!("the parent committed a configuration that was not prepared");
        };
        let bundle = Arc::new(bundle);
        {
            let mut state = self.shared.state();
            if let Some(Ok(secrets)) = self.secrets.take() {
                state.credentials.replace(secrets);
            }
            state.bundle = bundle.clone();
        }
        let keeper = match &self.keeper {
            Some(keeper) => keeper.clone(),
            None => self.start(&bundle)?,
        };
        if let Err(error) = lock(&keeper.ca).stand_for(&bundle) {
            tracing::error!(%error, "the published certificate of the host CA is an old one");
            keeper.record.note(error.to_string());
        }
        keeper.record.adopt(&bundle.config.audit);
        keeper.catalogues.forget();
        self.ship_as(&bundle);
        keeper.record.note(format!(
            "configuration epoch {} is in use: {} targets, {} workloads, {} policy files",
            bundle.epoch,
            bundle.config.targets.len(),
            bundle.config.workloads.len(),
            bundle.policies.len()
        ));
        for fd in std::mem::take(&mut self.waiting) {
            self.meet_proxy(fd)?;
        }
        Ok(())
    }

    fn ship_as(&self, bundle: &Bundle) {
        let password = self.shared.state().credentials.clickhouse();
        let clickhouse = bundle.config.audit.clickhouse.as_ref();
        self.clickhouse
            .send_replace(clickhouse.map(|settings| ClickHouseSettings {
                url: settings.url.clone(),
                database: settings.database.clone(),
                user: settings.user.clone(),
                password,
            }));
    }

    fn start(&mut self, bundle: &Bundle) -> anyhow::Result<Arc<Keeper>> {
        let Setup {
            state_dir,
            host,
            boot,
            ..
        } = &self.setup;
        let (record, ended) = Record::start(state_dir, host, *boot, &bundle.config.audit)?;
        record.note("keeper started".into());
        self.record_ended = Some(ended);
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let keeper = Arc::new(Keeper {
            shared: self.shared.clone(),
            ca: Mutex::new(self.ca.take().context("keeper was started twice")?),
            record,
            catalogues: Catalogues::new(self.gate.clone(), since.as_nanos() as u64),
            gate: self.gate.clone(),
        });
        tokio::spawn(record::ship(
            state_dir.clone(),
            self.gate.clone(),
            keeper.record.shared_numbers(),
            self.clickhouse.subscribe(),
        ));
        if let Some(listener) = self.setup.metrics.take() {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let answering = keeper.clone();
            tokio::spawn(metrics::serve(listener, move || answering.all_numbers()));
        }
        self.keeper = Some(keeper.clone());
        Ok(keeper)
    }

    /// Takes in what the proxies left. What is not sealed in time is sealed at
    /// the next start.
    async fn settle(&mut self) {
        let gone = async { while self.serving.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE.0, gone).await.is_err() {
            tracing::warn!("keeper ends before the proxies");
        }
        if let Some(keeper) = &self.keeper {
            keeper.record.note("keeper ends".into());
            if tokio::time::timeout(SETTLE.1, keeper.record.finish())
                .await
                .is_err()
            {
                tracing::warn!("the rest of the record is sealed at the next start");
            }
        }
    }
}

/// Returns when the sender is gone; never while there is none.
async fn ended(receiver: &mut Option<oneshot::Receiver<()>>) {
    match receiver {
        // It is dropped, never used.
        Some(receiver) => drop(receiver.await),
        None => std::future::pending().await,
    }
}

fn read_secrets(fd: OwnedFd) -> Result<Secrets, String> {
    let bytes = from_memfd(fd).map_err(|why| why.to_string())?;
    let bytes = zeroize::Zeroizing::new(bytes);
    // The error could quote what it could not read.
    serde_json::from_slice(&bytes).map_err(|_| "the secrets cannot be read".into())
}

async fn follow_gate(gate: Gate, shared: Arc<Shared>, channel: Arc<Channel>) {
    loop {
        let (message, fd) = match channel.receive::<GateToKeeper>().await {
            Ok(received) => received,
            Err(error) => {
                if gate.disconnect(&channel) {
                    tracing::warn!(%error, "the channel to gate ended");
                    let mut state = shared.state();
                    state.attested.orphan();
                    state.credentials.retain(|_| false);
                }
                return;
            }
        };
        match (message, fd) {
            (
                GateToKeeper::Attested {
                    connection,
                    workload,
                    original,
                },
                _,
            ) => {
                let mut state = shared.state();
                if gate.is_current(&channel) {
                    let known = Connection { workload, original };
                    state.attested.attest(connection, known);
                }
                drop(state);
                shared.attests.notify_waiters();
            }
            (GateToKeeper::Released { connection }, _) => {
                let mut state = shared.state();
                state.attested.release(connection);
                state.credentials.release(connection);
            }
            (GateToKeeper::Dialled { dial }, fd) => {
                let failed = || DialError::Failed("gate sent no descriptor".into());
                gate.answered(dial, fd.ok_or_else(failed));
            }
            (GateToKeeper::DialFailed { dial, message, .. }, _) => {
                gate.answered(dial, Err(DialError::Failed(message)));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
