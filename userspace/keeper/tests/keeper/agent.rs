//! Parent, gate and proxy around one keeper.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockgate_audit::{Query, Row, Store};
use lockgate_command::ConnectionId;
use lockgate_config::{Bundle, Secrets};
use lockgate_ipc::{
    Channel, Dialogue, GateToKeeper, KeeperToGate, KeeperToProxy, Order, ProxyToKeeper, Reply,
    Report, Role, SegmentId, pair, to_memfd,
};
use lockgate_keeper::Setup;
use tokio::net::TcpStream;

/// Of every credential in these tests; nothing that keeper says may contain it.
pub const PASSWORD: &str = "correct-horse-battery";

/// How long anything may take here.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A keeper, and all that it talks to.
pub struct Agent {
    pub parent: Channel,
    pub gate: TestGate,
    pub proxy: Proxy,
    pub state: Arc<tempfile::TempDir>,
    thread: Option<std::thread::JoinHandle<anyhow::Result<()>>>,
}

impl Agent {
    /// Started with `config` (TOML), and a gate that dials `server` whatever
    /// it is asked for.
    pub async fn start(config: &str, server: SocketAddr) -> Self {
        let state = Arc::new(tempfile::tempdir().unwrap());
        Self::start_in(state, bundle(config), server, None).await
    }

    pub async fn start_in(
        state: Arc<tempfile::TempDir>,
        bundle: Bundle,
        server: SocketAddr,
        metrics: Option<std::net::TcpListener>,
    ) -> Self {
        let (near, far) = pair().unwrap();
        let setup = setup(state.path(), metrics);
        let thread = std::thread::spawn(move || lockgate_keeper::run(far, setup));
        let parent = Channel::new(near).unwrap();
        let mut agent = Self::configured(parent, state, bundle, server).await;
        agent.thread = Some(thread);
        agent
    }

    /// Around a keeper that runs already, as a process or a thread.
    pub async fn configured(
        parent: Channel,
        state: Arc<tempfile::TempDir>,
        bundle: Bundle,
        server: SocketAddr,
    ) -> Self {
        assert!(matches!(report(&parent).await, Report::Ready));
        assert_eq!(prepare(&parent, &bundle, &secrets()).await, Ok(()));
        commit(&parent).await;
        let gate = TestGate::connect(&parent, server).await;
        let proxy = Proxy::connect(&parent).await;
        Self {
            parent,
            gate,
            proxy,
            state,
            thread: None,
        }
    }

    pub async fn status(&self) -> serde_json::Value {
        self.parent.send(&Order::Status, None).await.unwrap();
        match report(&self.parent).await {
            Report::Status(status) => serde_json::from_str(&status).unwrap(),
            other => panic!("no status: {other:?}"),
        }
    }

    /// Ends the proxy, then keeper, as `lockgate stop` does, and returns what
    /// keeper ended with.
    pub async fn drain(mut self) -> anyhow::Result<()> {
        drop(self.proxy);
        self.parent.send(&Order::Drain, None).await.unwrap();
        let thread = self.thread.take().expect("a keeper of this process");
        tokio::task::spawn_blocking(move || thread.join().expect("no panic"))
            .await
            .unwrap()
    }
}

pub fn setup(state_dir: &Path, metrics: Option<std::net::TcpListener>) -> Setup {
    Setup {
        state_dir: state_dir.to_owned(),
        metrics,
        host: "runner-7".into(),
        boot: uuid::Uuid::from_u128(0xb007),
    }
}

pub fn bundle(config: &str) -> Bundle {
    Bundle {
        epoch: 1,
        config: toml::from_str(config).unwrap(),
        ..Bundle::default()
    }
}

pub fn secrets() -> Secrets {
    let text = serde_json::json!({
        "passwords": {
            "orders-db": { "report": PASSWORD, "wrong": "not-the-password" },
        },
        "keys": {},
        "clickhouse": null,
    });
    serde_json::from_value(text).unwrap()
}

async fn report(parent: &Channel) -> Report {
    let report = tokio::time::timeout(PATIENCE, parent.receive::<Report>()).await;
    report.expect("keeper answers").expect("keeper lives").0
}

pub async fn prepare(parent: &Channel, bundle: &Bundle, secrets: &Secrets) -> Result<(), String> {
    let secrets = to_memfd("secrets", &serde_json::to_vec(secrets).unwrap()).unwrap();
    prepare_raw(parent, bundle, secrets).await
}

pub async fn prepare_raw(
    parent: &Channel,
    bundle: &Bundle,
    secrets: OwnedFd,
) -> Result<(), String> {
    parent.send(&Order::Secrets, Some(secrets)).await.unwrap();
    let bundle = to_memfd("bundle", &serde_json::to_vec(bundle).unwrap()).unwrap();
    parent.send(&Order::Prepare, Some(bundle)).await.unwrap();
    match report(parent).await {
        Report::Prepared(result) => result,
        other => panic!("not prepared: {other:?}"),
    }
}

pub async fn commit(parent: &Channel) {
    parent.send(&Order::Commit, None).await.unwrap();
    assert!(matches!(report(parent).await, Report::Committed));
}

/// Attests what the test says, dials `server`.
pub struct TestGate {
    channel: Arc<Channel>,
    pub dials: Arc<AtomicUsize>,
    /// Where to dial for whom, if not to `server`.
    pub places: Arc<Mutex<HashMap<ConnectionId, SocketAddr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl TestGate {
    pub async fn connect(parent: &Channel, server: SocketAddr) -> Self {
        let (near, far) = pair().unwrap();
        parent
            .send(&Order::Peer(Role::Gate), Some(far))
            .await
            .unwrap();
        let channel = Arc::new(Channel::new(near).unwrap());
        let dials = Arc::new(AtomicUsize::new(0));
        let places = Arc::<Mutex<HashMap<_, _>>>::default();
        let task = tokio::spawn(dial(channel.clone(), server, dials.clone(), places.clone()));
        Self {
            channel,
            dials,
            places,
            task,
        }
    }

    pub async fn attest(&self, connection: u64, workload: &str, original: &str) {
        let attested = GateToKeeper::Attested {
            connection: ConnectionId(connection),
            workload: workload.into(),
            original: original.parse().unwrap(),
        };
        self.channel.send(&attested, None).await.unwrap();
    }

    pub async fn release(&self, connection: u64) {
        let released = GateToKeeper::Released {
            connection: ConnectionId(connection),
        };
        self.channel.send(&released, None).await.unwrap();
    }
}

// The task holds the channel; keeper must see it close.
impl Drop for TestGate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn dial(
    channel: Arc<Channel>,
    server: SocketAddr,
    dials: Arc<AtomicUsize>,
    places: Arc<Mutex<HashMap<ConnectionId, SocketAddr>>>,
) {
    while let Ok((message, _)) = channel.receive::<KeeperToGate>().await {
        let (dial, to) = match message {
            KeeperToGate::Dial { dial, host, port } => {
                (dial, format!("{host}:{port}").parse().unwrap())
            }
            KeeperToGate::DialFor { dial, connection } => {
                dials.fetch_add(1, SeqCst);
                let other = places.lock().unwrap().get(&connection).copied();
                (dial, other.unwrap_or(server))
            }
        };
        let (answer, fd) = match TcpStream::connect(to).await {
            Ok(stream) => (
                GateToKeeper::Dialled { dial },
                Some(stream.into_std().unwrap().into()),
            ),
            Err(error) => (
                GateToKeeper::DialFailed {
                    dial,
                    errno: error.raw_os_error().unwrap_or(0),
                    message: format!("{to}: {error}"),
                },
                None,
            ),
        };
        if channel.send(&answer, fd).await.is_err() {
            return;
        }
    }
}

type Answers = HashMap<u64, tokio::sync::oneshot::Sender<(Reply, Option<OwnedFd>)>>;

/// Asks as a proxy does.
pub struct Proxy {
    channel: Arc<Channel>,
    waiting: Arc<Mutex<(u64, Answers)>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn connect(parent: &Channel) -> Self {
        let (near, far) = pair().unwrap();
        parent
            .send(&Order::Peer(Role::Proxy), Some(far))
            .await
            .unwrap();
        let channel = Arc::new(Channel::new(near).unwrap());
        let waiting = Arc::<Mutex<(u64, Answers)>>::default();
        let (answers, receiving) = (waiting.clone(), channel.clone());
        let task = tokio::spawn(async move {
            while let Ok((answer, fd)) = receiving.receive::<KeeperToProxy>().await {
                let KeeperToProxy { request, reply } = answer;
                let waiting = answers.lock().unwrap().1.remove(&request);
                // A test may have given up on it.
                let _ = waiting.expect("it was asked").send((reply, fd));
            }
        });
        Self {
            channel,
            waiting,
            task,
        }
    }

    pub async fn ask(&self, ask: Dialogue) -> (Reply, Option<OwnedFd>) {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let request = {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.0 += 1;
            let request = waiting.0;
            waiting.1.insert(request, sender);
            request
        };
        let question = ProxyToKeeper { request, ask };
        self.channel.send(&question, None).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.expect("keeper answers").expect("keeper lives")
    }

    /// Why it was refused.
    pub async fn refused(&self, ask: Dialogue) -> String {
        match self.ask(ask).await {
            (Reply::Refused(why), None) => {
                assert!(!why.contains(PASSWORD), "{why}");
                why
            }
            (reply, fd) => panic!("not refused: {reply:?} {fd:?}"),
        }
    }

    /// What no proxy says.
    pub async fn send_rubbish(&self) {
        self.channel.send(&"rubbish", None).await.unwrap();
    }

    pub async fn login(&self, connection: u64) -> Reply {
        self.ask(login(connection, "orders-db")).await.0
    }

    pub async fn segment(&self, worker: u32) -> (SegmentId, OwnedFd) {
        match self.ask(Dialogue::Segment { worker }).await {
            (Reply::Segment { segment }, Some(fd)) => (segment, fd),
            (reply, _) => panic!("no segment: {reply:?}"),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task holds the channel; keeper must see it close.
        self.task.abort();
    }
}

pub fn login(connection: u64, target: &str) -> Dialogue {
    Dialogue::Login {
        connection: ConnectionId(connection),
        target: target.into(),
    }
}

/// The events of the agent itself that are in the store, oldest first.
pub fn recorded(state: &Path) -> Vec<Row> {
    let Ok(store) = Store::open_read_only(&state.join("audit.sqlite")) else {
        return Vec::new();
    };
    let query = Query {
        kind: Some("agent".into()),
        limit: Some(1_000_000),
        ..Query::default()
    };
    let mut rows = store.search(&query).unwrap();
    rows.sort_by_key(|row| (row.stream, row.seq));
    rows
}

/// Waits until `done` says so.
pub async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = done().await {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
