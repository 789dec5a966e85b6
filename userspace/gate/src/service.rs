use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use lockgate_abi::{Flow, INET, INET6, reason};
use lockgate_command::{ConnectionId, WorkloadName};
use lockgate_config::Source;
use lockgate_identity::Origin;
use lockgate_ipc::{
    Channel, GateToKeeper, GateToProxy, KeeperToGate, Order, ProxyToGate, Report, Role,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::dial::{Failure, reset, source_of};
use crate::inbox::{Event, read_keeper, read_orders, read_proxy};
use crate::namespace::{Listeners, Namespace, NamespaceError};
use crate::running::{Prepared, Running};

/// How often the kernel's refusals are read.
const REFUSALS: Duration = Duration::from_millis(200);

/// How often namespaces are looked at that nobody may be in any more.
const PROCESSES: Duration = Duration::from_secs(3);

/// How many are entered at a time: at the start, all containers of a host.
const MEETING: usize = 256;

/// How long a peer may leave its channel full.
const PEER: Duration = Duration::from_secs(5);

/// Runs the gate until its parent ends, drains or releases it. `parent` is the
/// channel to the parent; everything else arrives over it.
///
/// # Errors
/// When the programs cannot be loaded or a listener not be opened; the text
/// says what the host lacks. Protected destinations then stay refused.
pub fn run(parent: OwnedFd) -> anyhow::Result<()> {
    // One thread: what is asked of the gate goes through one queue anyway, and
    // a connection would otherwise wait for threads to wake each other.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async move {
        let parent = Arc::new(Channel::new(parent)?);
        let result = serve(parent.clone()).await;
        if let Err(error) = &result {
            // The parent may be gone, too.
            let _ = parent
                .send(&Report::Fatal(format!("{error:#}")), None)
                .await;
        }
        result
    });
    // A hash of a file that never answers must not keep the process.
    runtime.shutdown_background();
    result
}

async fn serve(parent: Arc<Channel>) -> anyhow::Result<()> {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut service = Service::new(parent.clone(), events.clone());
    tokio::spawn(read_orders(parent.clone(), events));
    parent.send(&Report::Ready, None).await?;
    let mut refusals = tokio::time::interval(REFUSALS);
    let mut processes = tokio::time::interval(PROCESSES);
    loop {
        let go_on = tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => service.handle(event).await?,
                None => false,
            },
            _ = refusals.tick() => {
                service.read_refusals();
                true
            }
            _ = processes.tick() => {
                service.look_at_processes();
                true
            }
        };
        if !go_on || service.is_drained() {
            return Ok(());
        }
    }
}

struct Service {
    parent: Arc<Channel>,
    events: mpsc::UnboundedSender<Event>,
    prepared: Option<Prepared>,
    running: Option<Running>,
    proxy: Option<Arc<Channel>>,
    keeper: Option<Arc<Channel>>,
    connections: HashMap<ConnectionId, Connection>,
    /// Accepted, but not yet attested.
    attesting: usize,
    /// Processes whose network namespace is being entered.
    meeting: HashSet<u32>,
    next: u64,
    counters: Counters,
    draining: bool,
}

/// A connection that the proxy has.
struct Connection {
    workload: WorkloadName,
    original: SocketAddr,
    namespace: Namespace,
}

#[derive(Default)]
struct Counters {
    accepted: u64,
    stray: u64,
    no_proxy: u64,
    over_limit: u64,
    dials: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Service {
    fn new(parent: Arc<Channel>, events: mpsc::UnboundedSender<Event>) -> Self {
        // Unique over restarts of the gate within a boot, unless the clock is
        // set back by more than its connections are nanoseconds.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            parent,
            events,
            prepared: None,
            running: None,
            proxy: None,
            keeper: None,
            connections: HashMap::new(),
            attesting: 0,
            meeting: HashSet::new(),
            next: since.as_nanos() as u64,
            counters: Counters::default(),
            draining: false,
        }
    }

    /// False to end.
    async fn handle(&mut self, event: Event) -> anyhow::Result<bool> {
        match event {
            Event::Order(order, fd) => return self.order(order, fd).await,
            Event::ParentGone => return Ok(false),
            Event::ProxySays(channel, message) => self.proxy_says(channel, message),
            Event::KeeperSays(channel, message) => self.keeper_says(channel, message),
            Event::PeerGone(role, channel) => self.peer_gone(role, &channel),
            Event::Accepted(cookie, stream, client) => self.accepted(cookie, stream, client),
            Event::Attested(stream, origin) => self.attested(stream, origin),
            Event::Seen(tgid) => self.meet(tgid),
            Event::Entered(tgid, result) => self.entered(tgid, result)?,
            Event::Inhabited(inodes) => {
                if let Some(running) = &mut self.running {
                    running.served.release(&mut running.kernel, &inodes)?;
                }
            }
            Event::NotHandedOver(connection) => {
                self.counters.no_proxy += 1;
                self.forget(connection);
            }
        }
        Ok(true)
    }

    async fn order(&mut self, order: Order, fd: Option<OwnedFd>) -> anyhow::Result<bool> {
        match (order, fd) {
            (Order::Peer(Role::Proxy), Some(fd)) => {
                let channel = Arc::new(Channel::new(fd)?);
                tokio::spawn(read_proxy(channel.clone(), self.events.clone()));
                self.forget_all();
                self.proxy = Some(channel);
                self.hold_lease();
            }
            (Order::Peer(Role::Keeper), Some(fd)) => {
                let channel = Arc::new(Channel::new(fd)?);
                tokio::spawn(read_keeper(channel.clone(), self.events.clone()));
                self.keeper = Some(channel);
                self.tell_keeper_of_all().await;
                self.hold_lease();
            }
            (Order::Prepare, Some(fd)) => {
                let result = Prepared::read(fd);
                let answer = result.as_ref().map(|_| ()).map_err(Clone::clone);
                self.prepared = result.ok();
                self.parent.send(&Report::Prepared(answer), None).await?;
            }
            (Order::Commit, _) => {
                self.commit()?;
                self.hold_lease();
                self.parent.send(&Report::Committed, None).await?;
            }
            (Order::Abort, _) => self.prepared = None,
            (Order::Status, _) => {
                self.parent
                    .send(&Report::Status(self.status().to_string()), None)
                    .await?;
            }
            (Order::Drain, _) => {
                self.draining = true;
                self.hold_lease();
                if let Some(running) = &mut self.running {
                    running.served.close();
                }
            }
            (Order::Release, _) => {
                if let Some(running) = self.running.take() {
                    running.lease.hold(false);
                    running.kernel.release()?;
                }
                return Ok(false);
            }
            (order, _) => tracing::warn!(?order, "an order that is not for the gate"),
        }
        Ok(true)
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let Some(prepared) = self.prepared.take() else {
            bail!("the parent committed a configuration that was not prepared");
        };
        match &mut self.running {
            Some(running) => running.change_to(prepared)?,
            None => self.running = Some(Running::start(prepared, &self.events)?),
        }
        Ok(())
    }

    /// The kernel redirects while there is somebody to redirect to: a proxy to
    /// serve and a keeper to log in and record.
    fn hold_lease(&self) {
        if let Some(running) = &self.running {
            running
                .lease
                .hold(self.proxy.is_some() && self.keeper.is_some() && !self.draining);
        }
    }

    fn peer_gone(&mut self, role: Role, channel: &Arc<Channel>) {
        let peer = match role {
            Role::Proxy => &mut self.proxy,
            _ => &mut self.keeper,
        };
        // One that has been replaced already is not missed.
        if peer
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, channel))
        {
            *peer = None;
            if role == Role::Proxy {
                self.forget_all();
            }
            tracing::warn!(
                peer = role.as_str(),
                "the channel ended; the kernel refuses until it is back"
            );
            self.hold_lease();
        }
    }

    /// Whether a drain has nothing left to wait for. keeper dials through the
    /// gate until it has shipped the record, so its end is waited for, too.
    fn is_drained(&self) -> bool {
        self.draining && self.connections.is_empty() && self.attesting == 0 && self.keeper.is_none()
    }

    /// The connection has ended; keeper refuses what is asked for it from now.
    fn forget(&mut self, connection: ConnectionId) {
        if self.connections.remove(&connection).is_some() {
            self.tell_keeper(vec![connection]);
        }
    }

    /// As [`Service::forget`], for what a proxy had that has gone.
    fn forget_all(&mut self) {
        let gone: Vec<_> = self.connections.drain().map(|(id, _)| id).collect();
        self.tell_keeper(gone);
    }

    fn tell_keeper(&self, released: Vec<ConnectionId>) {
        let Some(keeper) = self.keeper.clone().filter(|_| !released.is_empty()) else {
            return;
        };
        tokio::spawn(async move {
            for connection in released {
                let message = GateToKeeper::Released { connection };
                // A keeper that ended has forgotten it.
                if keeper.send(&message, None).await.is_err() {
                    return;
                }
            }
        });
    }

    fn accepted(&mut self, cookie: u64, stream: TcpStream, client: SocketAddr) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(record) = running.kernel.take_origin(&flow(cookie, client)) else {
            // Nobody was redirected here: somebody came by himself.
            self.counters.stray += 1;
            reset(stream);
            return;
        };
        let limit = running.bundle.config.limits.connections as usize;
        if self.connections.len() + self.attesting >= limit {
            self.counters.over_limit += 1;
            tracing::warn!(limit, "a client is refused: limits.connections is reached");
            reset(stream);
            return;
        }
        self.counters.accepted += 1;
        self.attesting += 1;
        if record.exec_ns == 0 {
            running.kernel.learn(record.tgid);
        }
        let cgroup = running.cgroup.path_of(record.cgroup_id);
        let (attestor, still) = (running.attestor.clone(), running.kernel.processes());
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let origin = attestor.attest(&record, client, cgroup, still);
            // At the end of the gate nobody listens any more.
            let _ = events.send(Event::Attested(stream, Box::new(origin)));
        });
    }

    fn attested(&mut self, stream: TcpStream, origin: Box<Origin>) {
        self.attesting -= 1;
        let Some(running) = &self.running else {
            return reset(stream);
        };
        let (Some(proxy), Some(keeper)) = (self.proxy.clone(), self.keeper.clone()) else {
            self.counters.no_proxy += 1;
            return reset(stream);
        };
        let original = origin.original;
        let namespace = match source_of(&running.bundle, original) {
            Source::Client => running.served.get(origin.netns_cookie),
            Source::Host => Some(running.served.host()),
        };
        let Some(namespace) = namespace.cloned() else {
            // It was released while this was looked at: its processes have gone.
            return reset(stream);
        };
        let workload: WorkloadName = running.workloads.resolve(&origin);
        let connection = ConnectionId(self.next);
        self.next += 1;
        let known = Connection {
            workload: workload.clone(),
            original,
            namespace,
        };
        self.connections.insert(connection, known);
        let events = self.events.clone();
        // A peer that does not read must not stop the others' work.
        tokio::spawn(async move {
            let handed = tokio::time::timeout(PEER, async {
                let attested = GateToKeeper::Attested {
                    connection,
                    workload: workload.clone(),
                    original,
                };
                // keeper first, so that it knows the connection before the
                // proxy asks.
                keeper.send(&attested, None).await?;
                let accepted = GateToProxy::Accepted {
                    connection,
                    workload,
                    origin,
                };
                let to_proxy = stream.as_fd().try_clone_to_owned()?;
                anyhow::Ok(proxy.send(&accepted, Some(to_proxy)).await?)
            });
            let why = match handed.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no room in a channel for {} s", PEER.as_secs()),
            };
            tracing::warn!(%connection, why, "a client cannot be handed over");
            reset(stream);
            // At the end of the gate nobody listens any more.
            let _ = events.send(Event::NotHandedOver(connection));
        });
    }

    /// A keeper that is new must know who it may be asked about.
    async fn tell_keeper_of_all(&self) {
        let Some(keeper) = &self.keeper else { return };
        let until = tokio::time::Instant::now() + PEER;
        for (connection, known) in &self.connections {
            let message = GateToKeeper::Attested {
                connection: *connection,
                workload: known.workload.clone(),
                original: known.original,
            };
            let sending = tokio::time::timeout_at(until, keeper.send(&message, None));
            if !matches!(sending.await, Ok(Ok(()))) {
                return tracing::warn!("keeper does not take what it has to know");
            }
        }
    }

    fn proxy_says(&mut self, channel: Arc<Channel>, message: ProxyToGate) {
        // One that was replaced has no connections any more.
        if !self
            .proxy
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, &channel))
        {
            return;
        }
        match message {
            ProxyToGate::Dial { dial, connection } => {
                let opening = self.open(connection);
                tokio::spawn(async move {
                    let (message, fd) = match opening.await {
                        Ok(fd) => (GateToProxy::Dialled { dial }, Some(fd)),
                        Err(Failure { errno, message }) => {
                            let failed = GateToProxy::DialFailed {
                                dial,
                                errno,
                                message,
                            };
                            (failed, None)
                        }
                    };
                    // A proxy that ended meanwhile does not need it.
                    let _ = channel.send(&message, fd).await;
                });
            }
            ProxyToGate::Closed { connection } => self.forget(connection),
        }
    }

    fn keeper_says(&mut self, channel: Arc<Channel>, message: KeeperToGate) {
        match message {
            KeeperToGate::DialFor { dial, connection } => {
                let opening = self.open(connection);
                tokio::spawn(async move { answer_keeper(&channel, dial, opening.await).await });
            }
            KeeperToGate::Dial { dial, host, port } => {
                self.counters.dials += 1;
                let running = self.running.as_ref();
                let from = running.map(|it| (it.dialler.clone(), it.served.host().clone()));
                tokio::spawn(async move {
                    let result = match from {
                        Some((dialler, host_ns)) => dialler.dial_host(&host_ns, &host, port).await,
                        None => Err(Failure::unknown()),
                    };
                    answer_keeper(&channel, dial, result).await;
                });
            }
        }
    }

    /// Dials the original address of `connection`, and no other.
    fn open(
        &mut self,
        connection: ConnectionId,
    ) -> impl Future<Output = Result<OwnedFd, Failure>> + use<> {
        self.counters.dials += 1;
        let target = match (self.connections.get(&connection), &self.running) {
            (Some(known), Some(running)) => Some((
                running.dialler.clone(),
                known.namespace.clone(),
                known.original,
            )),
            _ => None,
        };
        async move {
            let (dialler, namespace, address) = target.ok_or_else(Failure::unknown)?;
            dialler.dial(&namespace, address).await
        }
    }

    fn read_refusals(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        running.kernel.pass_on_trace();
        let mut strangers = BTreeSet::new();
        while let Some(refusal) = running.kernel.next_refusal() {
            if refusal.reason == reason::NAMESPACE {
                strangers.insert(refusal.tgid);
            }
            let name = reason::name(refusal.reason);
            *self.counters.refused.entry(name).or_default() += 1;
            tracing::info!(
                reason = name,
                tgid = refusal.tgid,
                uid = refusal.uid,
                port = refusal.port,
                "the kernel refused"
            );
        }
        // Who tries again is served, unless the namespace cannot be.
        strangers.into_iter().for_each(|tgid| self.meet(tgid));
    }

    /// Enters the network namespace of a process, to listen there.
    fn meet(&mut self, tgid: u32) {
        let Some(running) = &self.running else { return };
        // Whoever is passed over is seen again when he runs or tries something.
        if self.draining || self.meeting.len() >= MEETING || !self.meeting.insert(tgid) {
            return;
        }
        let exemptions = running.kernel.exemptions();
        let known = running.served.known();
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let entered = Namespace::of(tgid).and_then(|namespace| {
                if known.has(namespace.inode()) {
                    return Err(NamespaceError::Served);
                }
                let listeners = Listeners::open(&namespace, &exemptions)?;
                Ok((namespace, listeners))
            });
            // At the end of the gate nobody listens any more.
            let _ = events.send(Event::Entered(tgid, entered));
        });
    }

    fn entered(
        &mut self,
        tgid: u32,
        result: Result<(Namespace, Listeners), NamespaceError>,
    ) -> anyhow::Result<()> {
        self.meeting.remove(&tgid);
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        let (namespace, listeners) = match result {
            Ok(entered) => entered,
            Err(NamespaceError::Served) => return Ok(()),
            Err(error) => {
                // Its loopback may come up yet; each try enters it again.
                tracing::info!(tgid, %error, "clients are refused there");
                return Ok(());
            }
        };
        if let Err(error) = running.served.has_room(&namespace) {
            tracing::warn!(tgid, %error, "clients of one more are refused");
            return Ok(());
        }
        tracing::info!(tgid, namespace = %namespace.name().display(), "served from now");
        running
            .served
            .serve(&mut running.kernel, namespace, listeners, false)
    }

    /// Looks which namespaces have processes, so that the others are released.
    fn look_at_processes(&self) {
        if self.running.as_ref().is_some_and(|it| it.served.has_met()) {
            let events = self.events.clone();
            tokio::task::spawn_blocking(move || {
                let inodes = Namespace::inhabited().into_keys().collect();
                // At the end of the gate nobody listens any more.
                let _ = events.send(Event::Inhabited(inodes));
            });
        }
    }

    fn status(&self) -> serde_json::Value {
        let counters = &self.counters;
        let mut status = serde_json::json!({
            "connections": self.connections.len(),
            "attesting": self.attesting,
            "accepted": counters.accepted,
            "stray": counters.stray,
            "no_proxy": counters.no_proxy,
            "over_limit": counters.over_limit,
            "dials": counters.dials,
            "kernel_refused": counters.refused,
        });
        if let Some(running) = &self.running {
            let protected = running.kernel.protected();
            let listeners: Vec<_> = running
                .served
                .all()
                .map(|namespace| {
                    serde_json::json!({
                        "namespace": namespace.name(),
                        "netns_cookie": namespace.cookie(),
                    })
                })
                .collect();
            status["lease_held"] = running.lease.is_held().into();
            status["links"] = running.kernel.links().into();
            status["ended"] = running.ended.into();
            status["kernel_lost"] = running.kernel.lost_refusals().into();
            status["kernel_lost_execs"] = running.kernel.lost_execs().into();
            status["protected_v4"] = protected.v4.len().into();
            status["protected_v6"] = protected.v6.len().into();
            status["listeners"] = listeners.into();
        }
        status
    }
}

async fn answer_keeper(channel: &Channel, dial: u64, result: Result<OwnedFd, Failure>) {
    let (message, fd) = match result {
        Ok(fd) => (GateToKeeper::Dialled { dial }, Some(fd)),
        Err(Failure { errno, message }) => {
            let failed = GateToKeeper::DialFailed {
                dial,
                errno,
                message,
            };
            (failed, None)
        }
    };
    // A keeper that ended meanwhile does not need it.
    let _ = channel.send(&message, fd).await;
}

fn flow(netns_cookie: u64, client: SocketAddr) -> Flow {
    let mut address = [0; 16];
    let family = match client.ip() {
        IpAddr::V4(ip) => {
            address[..4].copy_from_slice(&ip.octets());
            INET
        }
        IpAddr::V6(ip) => {
            address = Ipv6Addr::octets(&ip);
            INET6
        }
    };
    Flow {
        netns_cookie,
        address,
        family,
        port: client.port(),
        reserved: 0,
    }
}
