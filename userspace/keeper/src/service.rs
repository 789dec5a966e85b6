use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lockgate_audit::ClickHouseSettings;
use lockgate_config::{Bundle, Secrets, Target};
use lockgate_ipc::{
    Channel, ChannelError, Dialogue, GateToKeeper, KeeperToProxy, Order, ProxyToKeeper, Reply,
    Report, Role, from_memfd, to_memfd,
};
use lockgate_tls::Upstream;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::attested::{Attested, Connection};
use crate::ca::{HostCa, own_leaf};
use crate::catalogue::{Access, Catalogues};
use crate::credential::Credentials;
use crate::gate::{DialError, Gate};
use crate::metrics;
use crate::record::{self, Record, Writer};

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
/// the parent; everything else arrives over it.
///
/// # Errors
/// When state cannot be opened; the text says which and why.
pub fn run(parent: OwnedFd, setup: Setup) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let parent = Arc::new(Channel::new(parent)?);
        let mut service = Service::new(parent, setup)?;
        service.parent.send(&Report::Ready, None).await?;
        service.take_orders().await
    })
}

struct Service {
    parent: Arc<Channel>,
    setup: Setup,
    keeper: Option<Arc<Keeper>>,
    ca: Option<HostCa>,
    gate: Gate,
    prepared: Option<Bundle>,
    secrets: Option<Secrets>,
    state: Arc<Mutex<State>>,
    clickhouse: watch::Sender<Option<ClickHouseSettings>>,
    proxies: u64,
}

/// What the questions of a proxy are answered from.
struct Keeper {
    state: Arc<Mutex<State>>,
    ca: Mutex<HostCa>,
    record: Record,
    catalogues: Catalogues,
}

#[derive(Default)]
struct State {
    bundle: Arc<Bundle>,
    attested: Attested,
    credentials: Credentials,
    /// Numbers of gate and proxy, as the parent tells them.
    others: Value,
}

impl Service {
    fn new(parent: Arc<Channel>, setup: Setup) -> anyhow::Result<Self> {
        let ca = HostCa::open(&setup.state_dir)?;
        Ok(Self {
            parent,
            setup,
            keeper: None,
            ca: Some(ca),
            gate: Gate::default(),
            prepared: None,
            secrets: None,
            state: Arc::default(),
            clickhouse: watch::Sender::new(None),
            proxies: 0,
        })
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
                    let channel = Arc::new(Channel::new(fd)?);
                    lock(&self.state).attested.clear();
                    self.gate.connect(channel.clone());
                    tokio::spawn(follow_gate(self.gate.clone(), self.state.clone(), channel));
                }
                (Order::Peer(Role::Proxy), Some(fd)) => {
                    self.proxies += 1;
                    let Some(keeper) = self.keeper.clone() else {
                        tracing::warn!("a proxy before the first configuration");
                        continue;
                    };
                    let channel = Arc::new(Channel::new(fd)?);
                    tokio::spawn(keeper.serve(channel, self.proxies));
                }
                (Order::Secrets, Some(fd)) => {
                    let bytes = zeroize::Zeroizing::new(from_memfd(fd)?);
                    // The error could quote what it could not read.
                    self.secrets = serde_json::from_slice(&bytes).ok();
                }
                (Order::Prepare, Some(fd)) => {
                    let result = prepare(fd);
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
                (Order::Numbers(numbers), _) => {
                    lock(&self.state).others =
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

    fn commit(&mut self) -> anyhow::Result<()> {
        let Some(bundle) = self.prepared.take() else {
            bail!("the parent committed a configuration that was not prepared");
        };
        let bundle = Arc::new(bundle);
        {
            let mut state = lock(&self.state);
            if let Some(secrets) = self.secrets.take() {
                state.credentials.replace(secrets);
            }
            state.bundle = bundle.clone();
        }
        let keeper = match &self.keeper {
            Some(keeper) => keeper.clone(),
            None => self.start(&bundle)?,
        };
        lock(&keeper.ca).stand_for(&bundle)?;
        keeper.record.adopt(&bundle.config.audit);
        let password = lock(&self.state).credentials.clickhouse();
        self.clickhouse
            .send_replace(bundle.config.audit.clickhouse.as_ref().map(|settings| {
                ClickHouseSettings {
                    url: settings.url.clone(),
                    database: settings.database.clone(),
                    user: settings.user.clone(),
                    password,
                }
            }));
        keeper.record.note(format!(
            "configuration epoch {} is in use: {} targets, {} workloads, {} policy files",
            bundle.epoch,
            bundle.config.targets.len(),
            bundle.config.workloads.len(),
            bundle.policies.len()
        ));
        Ok(())
    }

    fn start(&mut self, bundle: &Bundle) -> anyhow::Result<Arc<Keeper>> {
        let Setup {
            state_dir,
            host,
            boot,
            ..
        } = &self.setup;
        let record = Record::start(state_dir, host, *boot, &bundle.config.audit)?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let keeper = Arc::new(Keeper {
            state: self.state.clone(),
            ca: Mutex::new(self.ca.take().context("keeper was started twice")?),
            record,
            catalogues: Catalogues::new(self.gate.clone(), since.as_nanos() as u64),
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

    /// Gives the record a moment to take in what the proxies left. What is not
    /// sealed then is sealed at the next start.
    async fn settle(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.record.note("keeper ends".into());
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }
}

impl Keeper {
    /// Answers one proxy until it ends.
    async fn serve(self: Arc<Self>, channel: Arc<Channel>, generation: u64) {
        loop {
            match channel.receive::<ProxyToKeeper>().await {
                Ok((ProxyToKeeper { request, ask }, _)) => {
                    let (keeper, channel) = (self.clone(), channel.clone());
                    tokio::spawn(async move {
                        let (reply, fd) = keeper.answer(ask, generation).await;
                        if request != 0 {
                            // A proxy that ended meanwhile does not need it.
                            let _ = channel.send(&KeeperToProxy { request, reply }, fd).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the channel to a proxy ended");
                    self.record
                        .note(format!("the channel to a proxy ended: {error}"));
                    return;
                }
            }
        }
    }

    async fn answer(&self, ask: Dialogue, generation: u64) -> (Reply, Option<OwnedFd>) {
        let refused = |why: String| {
            tracing::warn!(%why, "refused to a proxy");
            (Reply::Refused(why), None)
        };
        match ask {
            Dialogue::Segment { worker } => {
                match self.record.segment(Writer { generation, worker }).await {
                    Ok((segment, fd)) => (Reply::Segment { segment }, Some(fd)),
                    Err(why) => refused(why),
                }
            }
            // Whether a segment is done is seen at its descriptor.
            Dialogue::SegmentFull { .. } => (Reply::Verified, None),
            Dialogue::Catalogue {
                connection,
                target,
                database,
                max_age_ms,
            } => {
                let max_age = Duration::from_millis(max_age_ms.into());
                let read = async {
                    let access = self.access(connection, target.as_str(), database)?;
                    let read = self.catalogues.get(access, max_age).await;
                    let (epoch, bytes) = read.map_err(|why| why.to_string())?;
                    let fd = to_memfd("catalogue", &bytes).map_err(|why| why.to_string())?;
                    Ok::<_, String>((epoch, fd))
                };
                match read.await {
                    Ok((epoch, fd)) => (Reply::Catalogue { epoch }, Some(fd)),
                    Err(why) => refused(why),
                }
            }
            Dialogue::Leaf {
                connection,
                target,
                server_name,
            } => match self.leaf(connection, target.as_str(), server_name.as_deref()) {
                Ok(reply) => (reply, None),
                Err(why) => refused(why),
            },
            secret => match self.secret(secret) {
                Ok(reply) => (reply, None),
                Err(why) => refused(why),
            },
        }
    }

    fn secret(&self, ask: Dialogue) -> Result<Reply, String> {
        let mut state = lock(&self.state);
        let result = match ask {
            Dialogue::Login { connection, target } => {
                let bundle = state.bundle.clone();
                let (known, target, _) = state
                    .attested
                    .at_target(connection, target.as_str(), &bundle)
                    .map_err(|why| why.to_string())?;
                let workload = known.workload.clone();
                state
                    .credentials
                    .login(connection, workload.as_str(), target)
            }
            Dialogue::ScramStart {
                connection,
                channel_binding,
                binding_unoffered,
            } => state
                .credentials
                .scram_start(connection, channel_binding, binding_unoffered),
            Dialogue::ScramContinue {
                connection,
                server_first,
            } => state.credentials.scram_continue(connection, &server_first),
            Dialogue::ScramFinish {
                connection,
                server_final,
            } => state.credentials.scram_finish(connection, &server_final),
            Dialogue::Password {
                connection,
                md5_salt,
                tls_verified,
            } => state
                .credentials
                .password(connection, md5_salt, tls_verified),
            Dialogue::Segment { .. }
            | Dialogue::SegmentFull { .. }
            | Dialogue::Catalogue { .. }
            | Dialogue::Leaf { .. } => return Err("not a question about secrets".into()),
        };
        result.map_err(|why| why.to_string())
    }

    fn leaf(
        &self,
        connection: lockgate_command::ConnectionId,
        target: &str,
        asked: Option<&str>,
    ) -> Result<Reply, String> {
        let (address, target, own) = {
            let state = lock(&self.state);
            let bundle = state.bundle.clone();
            let (known, target, _) = state
                .attested
                .at_target(connection, target, &bundle)
                .map_err(|why| why.to_string())?;
            let own = own_files(target, &bundle, &state.credentials);
            (known.original.ip().to_canonical(), target.clone(), own)
        };
        let leaf = match own {
            Some((chain, key)) => own_leaf(&target.name, &chain, &key),
            None => lock(&self.ca).leaf(&target, address, asked),
        };
        leaf.map(Reply::Leaf).map_err(|why| why.to_string())
    }

    fn access(
        &self,
        connection: lockgate_command::ConnectionId,
        target: &str,
        database: String,
    ) -> Result<Access, String> {
        let state = lock(&self.state);
        let bundle = state.bundle.clone();
        let (known, target, matched) = state
            .attested
            .at_target(connection, target, &bundle)
            .map_err(|why| why.to_string())?;
        let (user, password) = state
            .credentials
            .find(known.workload.as_str(), target)
            .map_err(|why| why.to_string())?;
        let ca = target
            .tls
            .ca
            .as_ref()
            .and_then(|path| bundle.certificates.get(path));
        let upstream = Upstream::new(&target.tls, ca.map(String::as_str), None)
            .map_err(|why| why.to_string())?;
        Ok(Access {
            connection,
            target: target.name.clone(),
            database,
            user,
            password,
            upstream,
            original: known.original,
            matched_name: matched.map(str::to_owned),
        })
    }

    fn status(&self) -> Value {
        let record = self.record.numbers();
        let state = lock(&self.state);
        json!({
            "epoch": state.bundle.epoch,
            "attested": state.attested.len(),
            "credentials": state.credentials.count(),
            "record": record,
        })
    }

    fn all_numbers(&self) -> Value {
        let mut numbers = match lock(&self.state).others.clone() {
            Value::Object(others) => Value::Object(others),
            _ => json!({}),
        };
        numbers["keeper"] = self.status();
        numbers
    }
}

fn own_files(
    target: &Target,
    bundle: &Bundle,
    credentials: &Credentials,
) -> Option<(String, zeroize::Zeroizing<String>)> {
    use secrecy::ExposeSecret;

    let chain = bundle.certificates.get(target.tls.certificate.as_ref()?)?;
    let key = credentials.key_of(&target.name)?;
    Some((
        chain.clone(),
        zeroize::Zeroizing::new(key.expose_secret().to_owned()),
    ))
}

fn prepare(fd: OwnedFd) -> Result<Bundle, String> {
    let bytes = from_memfd(fd).map_err(|why| why.to_string())?;
    serde_json::from_slice(&bytes).map_err(|why| why.to_string())
}

async fn follow_gate(gate: Gate, state: Arc<Mutex<State>>, channel: Arc<Channel>) {
    loop {
        match channel.receive::<GateToKeeper>().await {
            Ok((
                GateToKeeper::Attested {
                    connection,
                    workload,
                    original,
                },
                _,
            )) => {
                lock(&state)
                    .attested
                    .attest(connection, Connection { workload, original });
            }
            Ok((GateToKeeper::Released { connection }, _)) => {
                let mut state = lock(&state);
                state.attested.release(connection);
                state.credentials.release(connection);
            }
            Ok((GateToKeeper::Dialled { dial }, Some(fd))) => gate.answered(dial, Ok(fd)),
            Ok((GateToKeeper::Dialled { dial }, None)) => {
                gate.answered(
                    dial,
                    Err(DialError::Failed("gate sent no descriptor".into())),
                );
            }
            Ok((GateToKeeper::DialFailed { dial, message, .. }, _)) => {
                gate.answered(dial, Err(DialError::Failed(message)));
            }
            Err(error) => {
                if gate.disconnect(&channel) {
                    tracing::warn!(%error, "the channel to gate ended");
                    lock(&state).attested.clear();
                }
                return;
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
