use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use lockgate_abi::{Flow, INET, INET6, reason};
use lockgate_command::{ConnectionId, WorkloadName};
use lockgate_config::{Bundle, Source};
use lockgate_identity::{Origin, Workloads};
use lockgate_ipc::{
    Channel, ChannelError, GateToKeeper, GateToProxy, KeeperToGate, Order, ProxyToGate, Report,
    Role, from_memfd,
};
use socket2::Domain;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::attest::Attestor;
use crate::cgroup::Attached;
use crate::kernel::Kernel;
use crate::lease::Lease;
use crate::namespace::{Listeners, Namespace};
use crate::protected::Protected;

/// How long connect(2) upstream may take.
const DIAL: Duration = Duration::from_secs(10);

/// How often the kernel's refusals are read.
const REFUSALS: Duration = Duration::from_millis(200);

/// Runs the gate until its parent ends, drains or releases it. `parent` is the
/// channel to the parent; everything else arrives over it.
///
/// # Errors
/// When the programs cannot be loaded or a listener not be opened; the text
/// says what the host lacks. Protected destinations then stay refused.
pub fn run(parent: OwnedFd) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let parent = Arc::new(Channel::new(parent)?);
        let (events, mut inbox) = mpsc::unbounded_channel();
        let mut service = Service::new(parent.clone(), events.clone());
        tokio::spawn(read_orders(parent.clone(), events));
        parent.send(&Report::Ready, None).await?;
        let mut refusals = tokio::time::interval(REFUSALS);
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
            };
            if !go_on {
                return Ok(());
            }
        }
    })
}

/// Everything that happens to the gate, in one queue.
enum Event {
    Order(Order, Option<OwnedFd>),
    ParentGone,
    FromProxy(Arc<Channel>, ProxyToGate),
    FromKeeper(Arc<Channel>, KeeperToGate),
    PeerGone(Role, Arc<Channel>),
    Accepted(usize, TcpStream, SocketAddr),
    Attested(TcpStream, Box<Origin>, usize),
}

struct Service {
    parent: Arc<Channel>,
    events: mpsc::UnboundedSender<Event>,
    prepared: Option<Prepared>,
    running: Option<Running>,
    proxy: Option<Arc<Channel>>,
    keeper: Option<Arc<Channel>>,
    connections: HashMap<ConnectionId, Connection>,
    next: u64,
    counters: Counters,
    draining: bool,
}

/// A configuration that was checked.
struct Prepared {
    bundle: Bundle,
    workloads: Workloads,
    protected: Protected,
}

/// What exists from the first configuration on.
struct Running {
    bundle: Bundle,
    workloads: Workloads,
    kernel: Kernel,
    cgroup: Attached,
    lease: Lease,
    attestor: Arc<Attestor>,
    namespaces: Vec<Namespace>,
    listening: Vec<tokio::task::AbortHandle>,
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
            Event::FromProxy(channel, message) => self.from_proxy(channel, message),
            Event::FromKeeper(channel, message) => self.from_keeper(channel, message),
            Event::PeerGone(role, channel) => self.peer_gone(role, &channel),
            Event::Accepted(namespace, stream, client) => self.accepted(namespace, stream, client),
            Event::Attested(stream, origin, namespace) => {
                self.attested(stream, origin, namespace).await;
            }
        }
        Ok(true)
    }

    async fn order(&mut self, order: Order, fd: Option<OwnedFd>) -> anyhow::Result<bool> {
        match (order, fd) {
            (Order::Peer(Role::Proxy), Some(fd)) => {
                let channel = Arc::new(Channel::new(fd)?);
                tokio::spawn(read_proxy(channel.clone(), self.events.clone()));
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
                let result = prepare(fd);
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
                    running.listening.drain(..).for_each(|task| task.abort());
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
        let Some(Prepared {
            bundle,
            workloads,
            protected,
        }) = self.prepared.take()
        else {
            bail!("the parent committed a configuration that was not prepared");
        };
        match &mut self.running {
            Some(running) => {
                running.kernel.protect(&protected)?;
                running.attestor.set_with_hash(workloads.needs_sha256());
                if running.bundle.config.kernel != bundle.config.kernel {
                    tracing::warn!("changes of [kernel] take effect at the next start");
                }
                running.bundle = bundle;
                running.workloads = workloads;
            }
            None => {
                let settings = &bundle.config.kernel;
                let cgroup = Attached::open(settings.cgroup.as_deref())?;
                let mut kernel = Kernel::load(&cgroup, &settings.pins)?;
                let lease = kernel.take_lease().context("the lease was taken before")?;
                let lease = Lease::start(lease)?;
                kernel.protect(&protected)?;
                let attestor = Arc::new(Attestor::new());
                attestor.set_with_hash(workloads.needs_sha256());
                let mut namespaces = vec![Namespace::host()?];
                for path in &settings.namespaces {
                    namespaces.push(Namespace::open(path)?);
                }
                let mut running = Running {
                    bundle,
                    workloads,
                    kernel,
                    cgroup,
                    lease,
                    attestor,
                    namespaces,
                    listening: Vec::new(),
                };
                running.listen(&self.events)?;
                self.running = Some(running);
            }
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
                self.connections.clear();
            }
            tracing::warn!(
                peer = role.as_str(),
                "the channel ended; the kernel refuses until it is back"
            );
            self.hold_lease();
        }
    }

    fn accepted(&mut self, index: usize, stream: TcpStream, client: SocketAddr) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(namespace) = running.namespaces.get(index) else {
            return;
        };
        let Some(record) = running
            .kernel
            .take_origin(&flow(namespace.cookie(), client))
        else {
            // Nobody was redirected here: somebody came by himself.
            self.counters.stray += 1;
            reset(stream);
            return;
        };
        let limit = running.bundle.config.limits.connections as usize;
        if self.connections.len() >= limit {
            self.counters.over_limit += 1;
            tracing::warn!(limit, "a client is refused: limits.connections is reached");
            reset(stream);
            return;
        }
        self.counters.accepted += 1;
        let cgroup = running.cgroup.path_of(record.cgroup_id);
        let (attestor, still) = (running.attestor.clone(), running.kernel.processes());
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let origin = attestor.attest(&record, client, cgroup, still);
            // At the end of the gate nobody listens any more.
            let _ = events.send(Event::Attested(stream, Box::new(origin), index));
        });
    }

    async fn attested(&mut self, stream: TcpStream, origin: Box<Origin>, index: usize) {
        let Some(running) = &self.running else {
            return reset(stream);
        };
        let (Some(proxy), Some(keeper)) = (&self.proxy, &self.keeper) else {
            self.counters.no_proxy += 1;
            return reset(stream);
        };
        let workload: WorkloadName = running.workloads.resolve(&origin);
        let connection = ConnectionId(self.next);
        self.next += 1;
        let original = origin.original;
        let source = source_of(&running.bundle, original);
        let namespace = match source {
            Source::Client => running.namespaces[index].clone(),
            Source::Host => running.namespaces[0].clone(),
        };
        // keeper first, so that it knows the connection before the proxy asks.
        let attested = GateToKeeper::Attested {
            connection,
            workload: workload.clone(),
            original,
        };
        let known = Connection {
            workload: workload.clone(),
            original,
            namespace,
        };
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let accepted = GateToProxy::Accepted {
            connection,
            workload,
            origin,
        };
        let sent = async {
            keeper.send(&attested, None).await?;
            proxy.send(&accepted, Some(stream.into())).await
        };
        match sent.await {
            Ok(()) => {
                self.connections.insert(connection, known);
            }
            Err(error) => {
                self.counters.no_proxy += 1;
                tracing::warn!(%connection, %error, "a client cannot be handed over");
            }
        }
    }

    /// A keeper that is new must know who it may be asked about.
    async fn tell_keeper_of_all(&self) {
        let Some(keeper) = &self.keeper else { return };
        for (connection, known) in &self.connections {
            let message = GateToKeeper::Attested {
                connection: *connection,
                workload: known.workload.clone(),
                original: known.original,
            };
            if keeper.send(&message, None).await.is_err() {
                return;
            }
        }
    }

    fn from_proxy(&mut self, channel: Arc<Channel>, message: ProxyToGate) {
        match message {
            ProxyToGate::Dial { dial, connection } => {
                self.counters.dials += 1;
                let target = self
                    .connections
                    .get(&connection)
                    .map(|c| (c.namespace.clone(), c.original));
                let opening = self.open(target);
                tokio::spawn(async move {
                    let (message, fd) = match opening.await {
                        Ok(fd) => (GateToProxy::Dialled { dial }, Some(fd)),
                        Err(Failure { errno, message }) => (
                            GateToProxy::DialFailed {
                                dial,
                                errno,
                                message,
                            },
                            None,
                        ),
                    };
                    // A proxy that ended meanwhile does not need it.
                    let _ = channel.send(&message, fd).await;
                });
            }
            ProxyToGate::Closed { connection } => {
                self.connections.remove(&connection);
                if let Some(keeper) = self.keeper.clone() {
                    tokio::spawn(async move {
                        // A keeper that ended has forgotten it.
                        let _ = keeper
                            .send(&GateToKeeper::Released { connection }, None)
                            .await;
                    });
                }
            }
        }
    }

    fn from_keeper(&mut self, channel: Arc<Channel>, message: KeeperToGate) {
        self.counters.dials += 1;
        let (dial, opening) = match message {
            KeeperToGate::DialFor { dial, connection } => {
                let target = self
                    .connections
                    .get(&connection)
                    .map(|c| (c.namespace.clone(), c.original));
                (dial, Box::pin(self.open(target)) as Dialling)
            }
            KeeperToGate::Dial { dial, host, port } => (dial, self.open_host(host, port)),
        };
        tokio::spawn(async move {
            let (message, fd) = match opening.await {
                Ok(fd) => (GateToKeeper::Dialled { dial }, Some(fd)),
                Err(Failure { errno, message }) => (
                    GateToKeeper::DialFailed {
                        dial,
                        errno,
                        message,
                    },
                    None,
                ),
            };
            // A keeper that ended meanwhile does not need it.
            let _ = channel.send(&message, fd).await;
        });
    }

    /// Makes the socket here, where the kernel's maps are, and connects it in
    /// the future.
    fn open(
        &mut self,
        target: Option<(Namespace, SocketAddr)>,
    ) -> impl Future<Output = Result<OwnedFd, Failure>> + use<> {
        let socket = match (target, &mut self.running) {
            (Some((namespace, address)), Some(running)) => {
                exempt_socket(&namespace, address, &mut running.kernel)
                    .map(|socket| (socket, address, namespace))
            }
            _ => Err(Failure {
                errno: libc::ENOTCONN,
                message: "the connection is not known".into(),
            }),
        };
        async move {
            let (socket, address, namespace) = socket?;
            connect(socket, address, &namespace.name().display().to_string()).await
        }
    }

    fn open_host(&mut self, host: String, port: u16) -> Dialling {
        // One socket of each family is made now; names are looked up later.
        let sockets = match &mut self.running {
            Some(running) => {
                let namespace = running.namespaces[0].clone();
                ["0.0.0.0:0", "[::]:0"].map(|any| {
                    let any: SocketAddr = any.parse().ok()?;
                    exempt_socket(&namespace, any, &mut running.kernel).ok()
                })
            }
            None => [None, None],
        };
        Box::pin(async move {
            let failed = |error: std::io::Error| Failure::new(&host, "host", &error);
            let mut addresses = tokio::net::lookup_host((host.as_str(), port))
                .await
                .map_err(failed)?;
            let [v4, v6] = sockets;
            let (address, socket) = addresses
                .find_map(|address| match address {
                    SocketAddr::V4(_) => Some((address, true)),
                    SocketAddr::V6(_) => Some((address, false)),
                })
                .map(|(address, is_v4)| (address, if is_v4 { v4 } else { v6 }))
                .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
            let socket = socket.ok_or_else(|| failed(std::io::ErrorKind::Unsupported.into()))?;
            connect(socket, address, "host").await
        })
    }

    fn read_refusals(&mut self) {
        let Some(running) = &mut self.running else {
            return;
        };
        while let Some(refusal) = running.kernel.next_refusal() {
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
    }

    fn status(&self) -> serde_json::Value {
        let counters = &self.counters;
        let mut status = serde_json::json!({
            "connections": self.connections.len(),
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
                .namespaces
                .iter()
                .map(|namespace| {
                    serde_json::json!({
                        "namespace": namespace.name(),
                        "netns_cookie": namespace.cookie(),
                    })
                })
                .collect();
            status["lease_held"] = running.lease.is_held().into();
            status["links"] = running.kernel.links().into();
            status["kernel_lost"] = running.kernel.lost().into();
            status["protected_v4"] = protected.v4.len().into();
            status["protected_v6"] = protected.v6.len().into();
            status["listeners"] = listeners.into();
        }
        status
    }
}

impl Running {
    /// Opens the listeners of every namespace and tells the kernel of them.
    fn listen(&mut self, events: &mpsc::UnboundedSender<Event>) -> anyhow::Result<()> {
        let mut ports = Vec::new();
        for (index, namespace) in self.namespaces.iter().enumerate() {
            let listeners = Listeners::open(namespace, &mut self.kernel)?;
            ports.push((namespace.cookie(), listeners.ports()?));
            for listener in [Some(listeners.v4), listeners.v6].into_iter().flatten() {
                let listener = TcpListener::from_std(listener)?;
                let task = tokio::spawn(accept(listener, index, events.clone()));
                self.listening.push(task.abort_handle());
            }
        }
        self.kernel.listen(&ports)?;
        Ok(())
    }
}

type Dialling = std::pin::Pin<Box<dyn Future<Output = Result<OwnedFd, Failure>> + Send>>;

struct Failure {
    errno: i32,
    message: String,
}

impl Failure {
    fn new(address: impl std::fmt::Display, namespace: &str, error: &std::io::Error) -> Self {
        Self {
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("{address} from network namespace {namespace}: {error}"),
        }
    }
}

fn exempt_socket(
    namespace: &Namespace,
    address: SocketAddr,
    kernel: &mut Kernel,
) -> Result<TcpSocket, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(address, &namespace.name().display().to_string(), &error)
    };
    let socket = namespace
        .socket(Domain::for_address(address))
        .map_err(failed)?;
    kernel
        .exempt(&socket)
        .map_err(|why| failed(std::io::Error::other(why)))?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.set_tcp_nodelay(true).map_err(failed)?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}

async fn connect(
    socket: TcpSocket,
    address: SocketAddr,
    namespace: &str,
) -> Result<OwnedFd, Failure> {
    let failed = |error: std::io::Error| Failure::new(address, namespace, &error);
    let stream = match tokio::time::timeout(DIAL, socket.connect(address)).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => {
            return Err(failed(std::io::Error::from_raw_os_error(libc::ETIMEDOUT)));
        }
    };
    Ok(stream.into_std().map_err(failed)?.into())
}

fn prepare(fd: OwnedFd) -> Result<Prepared, String> {
    let bytes = from_memfd(fd).map_err(|why| why.to_string())?;
    let bundle: Bundle = serde_json::from_slice(&bytes).map_err(|why| why.to_string())?;
    let workloads = Workloads::load(&bundle.config.workloads, &bundle.uids).map_err(|errors| {
        errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    let protected = Protected::from_bundle(&bundle).map_err(|why| why.to_string())?;
    Ok(Prepared {
        bundle,
        workloads,
        protected,
    })
}

/// From where the target of `address` is dialled. The gate need not know the
/// exact target: where targets overlap and differ in this, the client's own
/// namespace is right for all.
fn source_of(bundle: &Bundle, address: SocketAddr) -> Source {
    let mut found = bundle.config.targets.iter().filter(|target| {
        target.places.iter().any(|place| {
            let named = match &place.host {
                lockgate_config::Host::Name(name) => bundle
                    .names
                    .get(name)
                    .is_some_and(|ips| ips.contains(&address.ip())),
                host => host.contains(address.ip()),
            };
            place.port == address.port() && named
        })
    });
    match found.next() {
        Some(first) if found.all(|other| other.source == first.source) => first.source,
        _ => Source::Client,
    }
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

/// Closes with RST: the client must not take it for a clean end.
fn reset(stream: TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
}

async fn accept(listener: TcpListener, index: usize, events: mpsc::UnboundedSender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                if events.send(Event::Accepted(index, stream, client)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::error!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn read_orders(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    loop {
        let event = match channel.receive::<Order>().await {
            Ok((order, fd)) => Event::Order(order, fd),
            Err(error) => {
                if !matches!(error, ChannelError::Closed) {
                    tracing::error!(%error, "the parent's orders cannot be read");
                }
                Event::ParentGone
            }
        };
        let last = matches!(event, Event::ParentGone);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

async fn read_proxy(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    while let Ok((message, _)) = channel.receive::<ProxyToGate>().await {
        if events
            .send(Event::FromProxy(channel.clone(), message))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::PeerGone(Role::Proxy, channel));
}

async fn read_keeper(channel: Arc<Channel>, events: mpsc::UnboundedSender<Event>) {
    while let Ok((message, _)) = channel.receive::<KeeperToGate>().await {
        if events
            .send(Event::FromKeeper(channel.clone(), message))
            .is_err()
        {
            return;
        }
    }
    let _ = events.send(Event::PeerGone(Role::Keeper, channel));
}
