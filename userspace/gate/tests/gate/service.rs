//! The gate as its parent, a proxy and a keeper see it.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use lockgate_abi::{Listener, Process, maps};
use lockgate_command::ConnectionId;
use lockgate_config::Bundle;
use lockgate_identity::Origin;
use lockgate_ipc::{
    Channel, GateToKeeper, GateToProxy, KeeperToGate, Order, ProxyToGate, Report, Role, pair,
    to_memfd,
};
use serde::de::DeserializeOwned;

use crate::field::{EPERM, Ground, outcome, slowness};

/// A gate in a thread of this process, and the ends of its channels.
struct Gate {
    parent: Channel,
    running: JoinHandle<anyhow::Result<()>>,
    ground: Ground,
}

impl Gate {
    /// `config` besides where to attach and pin.
    async fn start(config: &str, namespaces: &[PathBuf]) -> Self {
        let ground = Ground::new();
        let (near, far) = pair().unwrap();
        let running = std::thread::spawn(move || lockgate_gate::run(far));
        let gate = Self {
            parent: Channel::new(near).unwrap(),
            running,
            ground,
        };
        assert!(matches!(gate.report().await, Report::Ready));
        gate.configure(config, namespaces).await;
        gate
    }

    async fn configure(&self, config: &str, namespaces: &[PathBuf]) {
        let result = self.prepare(config, namespaces).await;
        assert_eq!(result, Ok(()));
        self.order(Order::Commit, None).await;
        let report = self.report().await;
        assert!(matches!(report, Report::Committed), "{report:?}");
    }

    async fn prepare(&self, config: &str, namespaces: &[PathBuf]) -> Result<(), String> {
        let mut config: lockgate_config::Config = toml::from_str(config).unwrap();
        config.kernel.cgroup = Some(self.ground.cgroup.clone());
        config.kernel.pins = self.ground.pins.clone();
        config.kernel.namespaces = namespaces.to_vec();
        let bundle = Bundle {
            config,
            ..Bundle::default()
        };
        let fd = to_memfd("bundle", &serde_json::to_vec(&bundle).unwrap()).unwrap();
        self.order(Order::Prepare, Some(fd)).await;
        match self.report().await {
            Report::Prepared(result) => result,
            other => panic!("{other:?}"),
        }
    }

    async fn order(&self, order: Order, fd: Option<OwnedFd>) {
        self.parent.send(&order, fd).await.unwrap();
    }

    async fn report(&self) -> Report {
        receive(&self.parent).await.0
    }

    async fn peer(&self, role: Role) -> Channel {
        let (near, far) = pair().unwrap();
        self.order(Order::Peer(role), Some(far)).await;
        // Orders are taken in order: once this is answered, that one is done.
        self.status().await;
        Channel::new(near).unwrap()
    }

    fn map(&self, name: &str) -> aya::maps::MapData {
        let version = lockgate_abi::VERSION;
        let path = self.ground.pins.join(format!("maps-v{version}/{name}"));
        aya::maps::MapData::from_pin(path).unwrap()
    }

    async fn status(&self) -> serde_json::Value {
        self.order(Order::Status, None).await;
        match self.report().await {
            Report::Status(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

async fn receive<T: DeserializeOwned>(channel: &Channel) -> (T, Option<OwnedFd>) {
    tokio::time::timeout(Duration::from_secs(10) * slowness(), channel.receive())
        .await
        .expect("an answer in time")
        .unwrap()
}

async fn accepted(proxy: &Channel) -> (ConnectionId, String, Box<Origin>, TcpStream) {
    match receive(proxy).await {
        (
            GateToProxy::Accepted {
                connection,
                workload,
                origin,
            },
            Some(fd),
        ) => {
            let stream = TcpStream::from(fd);
            stream.set_nonblocking(false).unwrap();
            (connection, workload.to_string(), origin, stream)
        }
        other => panic!("{other:?}"),
    }
}

async fn dial(proxy: &Channel, connection: ConnectionId) -> Result<TcpStream, i32> {
    let message = ProxyToGate::Dial {
        dial: 7,
        connection,
    };
    proxy.send(&message, None).await.unwrap();
    match receive(proxy).await {
        (GateToProxy::Dialled { dial: 7 }, Some(fd)) => {
            let stream = TcpStream::from(fd);
            stream.set_nonblocking(false).unwrap();
            Ok(stream)
        }
        (GateToProxy::DialFailed { dial: 7, errno, .. }, None) => Err(errno),
        other => panic!("{other:?}"),
    }
}

fn config(address: &str) -> String {
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    format!(
        "[[target]]\nname='t'\nprotocol='tcp'\nmatch=['{address}']\n
         [[workload]]\nname='job'\nuser='0'\nexecutable='{}'\n",
        python.display()
    )
}

const ASK: &str = "import socket
s=socket.create_connection(('HOST',PORT),timeout=5);s.sendall(b'ask');print(s.recv(6).decode())";

fn ask(host: &str, port: u16) -> String {
    ASK.replace("HOST", host).replace("PORT", &port.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_handed_over_and_its_server_dialled() {
    let server = TcpListener::bind("127.0.0.96:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let gate = Gate::start(&config(&format!("127.0.0.96:{port}")), &[]).await;
    let code = format!("socket.create_connection(('127.0.0.96',{port}),timeout=2)");
    assert_eq!(outcome(&gate.ground, &code), EPERM, "nobody serves yet");
    let keeper = gate.peer(Role::Keeper).await;
    assert_eq!(outcome(&gate.ground, &code), EPERM, "no proxy yet");
    let proxy = gate.peer(Role::Proxy).await;

    let child = gate.ground.spawn(&ask("127.0.0.96", port));
    let (connection, workload, origin, mut client) = accepted(&proxy).await;
    assert_eq!(workload, "job");
    assert_eq!((origin.tgid, origin.uid), (child.id(), 0));
    assert_eq!(origin.original.port(), port);
    assert_eq!(origin.cgroup.as_deref(), Some("/"));
    match receive(&keeper).await.0 {
        GateToKeeper::Attested {
            connection: told,
            workload,
            original,
        } => {
            assert_eq!((told, original), (connection, origin.original));
            assert_eq!(workload.as_str(), "job");
        }
        other => panic!("{other:?}"),
    }
    let mut upstream = dial(&proxy, connection).await.unwrap();
    let (mut server_side, _) = server.accept().unwrap();
    let mut bytes = [0; 3];
    client.read_exact(&mut bytes).unwrap();
    upstream.write_all(&bytes).unwrap();
    server_side.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ask");
    client.write_all(b"answer").unwrap();
    let printed = child.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&printed).trim(), "answer");

    // keeper may have the same address, for its catalogue.
    let for_keeper = KeeperToGate::DialFor {
        dial: 8,
        connection,
    };
    keeper.send(&for_keeper, None).await.unwrap();
    let (answer, fd) = receive::<GateToKeeper>(&keeper).await;
    assert!(matches!(answer, GateToKeeper::Dialled { dial: 8 }) && fd.is_some());
    // And by name: the first address of localhost may not answer.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let by_name = KeeperToGate::Dial {
        dial: 9,
        host: "localhost".into(),
        port: other.local_addr().unwrap().port(),
    };
    keeper.send(&by_name, None).await.unwrap();
    let (answer, fd) = receive::<GateToKeeper>(&keeper).await;
    assert!(
        matches!(answer, GateToKeeper::Dialled { dial: 9 }),
        "{answer:?}"
    );
    drop(fd);

    let status = gate.status().await;
    assert_eq!(status["connections"], 1);
    assert_eq!(status["accepted"], 1);
    assert_eq!(status["lease_held"], true);
    proxy
        .send(&ProxyToGate::Closed { connection }, None)
        .await
        .unwrap();
    assert!(matches!(
        receive(&keeper).await.0,
        GateToKeeper::Released { connection: told } if told == connection
    ));
    assert_eq!(dial(&proxy, connection).await.unwrap_err(), libc::ENOTCONN);
}

/// The tracepoints' map makes room where there are too many processes.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_fell_out_of_the_map_is_learned_anew() {
    let gate = Gate::start(&config("127.0.0.96:5432"), &[]).await;
    let _keeper = gate.peer(Role::Keeper).await;
    let proxy = gate.peer(Role::Proxy).await;
    let child = gate.ground.spawn(
        "import socket
for _ in range(3): socket.create_connection(('127.0.0.96',5432),timeout=5).recv(1)",
    );
    let mut processes: aya::maps::HashMap<_, u32, Process> =
        aya::maps::Map::LruHashMap(gate.map(maps::PROCESSES))
            .try_into()
            .unwrap();
    let mut seen = Vec::new();
    for turn in 0..3 {
        let (_, workload, origin, mut client) = accepted(&proxy).await;
        assert_eq!(origin.tgid, child.id());
        seen.push((workload, origin.executable.is_some()));
        if turn == 0 {
            processes.remove(&child.id()).unwrap();
        }
        client.write_all(b"x").unwrap();
    }
    child.wait_with_output().unwrap();
    // What it did while it was not there could have been anybody's.
    let expected = [("job", true), ("unknown", false), ("job", true)];
    assert_eq!(seen, expected.map(|(name, known)| (name.to_owned(), known)));

    // Nor are children that it makes meanwhile lost for good.
    let child = gate.ground.spawn(
        "import os,socket
socket.create_connection(('127.0.0.96',5432),timeout=5).recv(1)
if os.fork() == 0:
 for _ in range(2): socket.create_connection(('127.0.0.96',5432),timeout=5).recv(1)
 os._exit(0)
os.wait()",
    );
    let mut seen = Vec::new();
    for turn in 0..3 {
        let (_, workload, _, mut client) = accepted(&proxy).await;
        seen.push(workload);
        if turn == 0 {
            processes.remove(&child.id()).unwrap();
        }
        client.write_all(b"x").unwrap();
    }
    assert_eq!(seen, ["job", "unknown", "job"]);
    child.wait_with_output().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_dialled_goes_nowhere_else() {
    let server = TcpListener::bind("127.0.0.97:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let gate = Gate::start(&config(&format!("127.0.0.97:{port}")), &[]).await;
    let _keeper = gate.peer(Role::Keeper).await;
    let proxy = gate.peer(Role::Proxy).await;
    let code = ask("127.0.0.97", port).replace("print", "#");
    let child = gate.ground.spawn(&code);
    let (connection, ..) = accepted(&proxy).await;
    let upstream = dial(&proxy, connection).await.unwrap();
    let exempt = aya::maps::Map::SkStorage(gate.map("EXEMPT"));
    let exempt = aya::maps::SkStorage::<_, u8>::try_from(exempt);
    let state = exempt.unwrap().get(&upstream, 0).unwrap();
    assert_eq!(state, lockgate_abi::exempt::DIALLED, "still exempt");
    child.wait_with_output().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_proxy_it_is_refused_until_there_is_one() {
    let gate = Gate::start(&config("127.0.0.98:5432"), &[]).await;
    let keeper = gate.peer(Role::Keeper).await;
    let proxy = gate.peer(Role::Proxy).await;
    let code = "socket.create_connection(('127.0.0.98',5432),timeout=2)";
    assert_eq!(outcome(&gate.ground, code), "connected");
    let (connection, ..) = accepted(&proxy).await;
    assert!(matches!(
        receive(&keeper).await.0,
        GateToKeeper::Attested { .. }
    ));
    drop(proxy);
    // keeper hears that nobody may ask for it any more.
    assert!(matches!(
        receive(&keeper).await.0,
        GateToKeeper::Released { connection: told } if told == connection
    ));
    assert_eq!(outcome(&gate.ground, code), EPERM);
    assert_eq!(gate.status().await["lease_held"], false);
    let proxy = gate.peer(Role::Proxy).await;
    assert_eq!(outcome(&gate.ground, code), "connected");
    accepted(&proxy).await;

    // A proxy that is replaced before its end is seen keeps nothing either.
    let next = gate.peer(Role::Proxy).await;
    assert_eq!(gate.status().await["connections"], 0);
    drop(proxy);
    assert_eq!(
        outcome(&gate.ground, code),
        "connected",
        "the next one serves"
    );
    accepted(&next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_by_himself_is_reset() {
    let gate = Gate::start(&config("127.0.0.99:5432"), &[]).await;
    let _keeper = gate.peer(Role::Keeper).await;
    let _proxy = gate.peer(Role::Proxy).await;
    let listeners = aya::maps::Map::HashMap(gate.map("LISTENERS"));
    let listeners = aya::maps::HashMap::<_, u64, Listener>::try_from(listeners).unwrap();
    let (_, listener) = listeners.iter().next().unwrap().unwrap();
    for address in [
        SocketAddr::from(([127, 0, 0, 1], listener.port4)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, listener.port6)),
    ] {
        // The reset may be here before connect(2) has returned.
        let read = TcpStream::connect(address).and_then(|mut stream| stream.read(&mut [0]));
        let error = read.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(gate.status().await["stray"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_namespace_is_served_inside_it() {
    let namespace = NetNamespace::new();
    let gate = Gate::start(&config("10.77.0.1:5432"), &[namespace.path()]).await;
    let _keeper = gate.peer(Role::Keeper).await;
    let proxy = gate.peer(Role::Proxy).await;
    // The server's address exists in that namespace only.
    let server = "import socket;s=socket.create_server(('10.77.0.1',5432));print('up',flush=True)
c,_=s.accept();c.sendall(c.recv(3)[::-1])";
    let mut server = namespace.command(&["/usr/bin/python3", "-c", server]);
    let mut server = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
    server
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    let procs = gate.ground.cgroup.join("cgroup.procs");
    let script = format!("echo $$ > {} && exec \"$@\"", procs.display());
    let code = ask("10.77.0.1", 5432);
    let mut client = Command::new("sh");
    client.args(["-c", &script, "sh", "ip", "netns", "exec", &namespace.name]);
    client.args(["/usr/bin/python3", "-c", &code]);
    let child = client.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (connection, workload, origin, mut client) = accepted(&proxy).await;
    assert_eq!(workload, "job");
    assert_eq!(origin.original, "10.77.0.1:5432".parse().unwrap());
    let mut upstream = dial(&proxy, connection).await.unwrap();
    let mut bytes = [0; 3];
    client.read_exact(&mut bytes).unwrap();
    upstream.write_all(&bytes).unwrap();
    upstream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ksa", "the server inside answered");
    client.write_all(b"answer").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    server.wait().unwrap();
    // One that it was not told of is met by its first process.
    let unknown = NetNamespace::new();
    let code = "import socket
try: socket.create_connection(('10.77.0.1',5432),timeout=2);print('connected')
except OSError as e: print(e.errno)";
    let attempt = |inside: &[&str]| {
        let mut client = Command::new("sh");
        client.args(["-c", &script, "sh"]).args(inside);
        let output = client.args(["/usr/bin/python3", "-c", code]).output();
        let printed = output.unwrap().stdout;
        String::from_utf8_lossy(&printed).trim().to_owned()
    };
    let mut said = attempt(&["ip", "netns", "exec", &unknown.name]);
    for _ in 0..20 {
        if said == "connected" {
            break;
        }
        assert_eq!(said, EPERM, "refused, or served");
        said = attempt(&["ip", "netns", "exec", &unknown.name]);
    }
    assert_eq!(said, "connected");
    // Without a loopback there is no way to a listener, nor to anybody else.
    let said = attempt(&["unshare", "--net"]);
    let unreachable = libc::ENETUNREACH.to_string();
    assert!(said == EPERM || said == unreachable, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_while_the_other_runs_on() {
    let gate = Gate::start(&config("127.0.0.101:5432"), &[]).await;
    let missing = ["/run/netns/no-such".into()];
    let refused = gate.prepare(&config("127.0.0.101:5432"), &missing).await;
    let why = refused.unwrap_err();
    assert!(why.contains("/run/netns/no-such"), "{why}");
    let executable_only = "[[workload]]\nname='w'\nexecutable='/bin/x'";
    assert!(gate.prepare(executable_only, &[]).await.is_err());
    let _keeper = gate.peer(Role::Keeper).await;
    let _proxy = gate.peer(Role::Proxy).await;
    let old = "socket.create_connection(('127.0.0.101',5432),timeout=2)";
    assert_eq!(outcome(&gate.ground, old), "connected");
    gate.configure(&config("127.0.0.101:5433"), &[]).await;
    let new = "socket.create_connection(('127.0.0.101',5433),timeout=2)";
    assert_eq!(outcome(&gate.ground, new), "connected");
    let refused = libc::ECONNREFUSED.to_string();
    assert_eq!(
        outcome(&gate.ground, old),
        refused,
        "not protected any more"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_ends_with_the_last_connection_and_release_lifts_the_refusal() {
    let gate = Gate::start(&config("127.0.0.102:5432"), &[]).await;
    let keeper = gate.peer(Role::Keeper).await;
    let proxy = gate.peer(Role::Proxy).await;
    let code = "socket.create_connection(('127.0.0.102',5432),timeout=2)";
    assert_eq!(outcome(&gate.ground, code), "connected");
    let (connection, ..) = accepted(&proxy).await;
    gate.order(Order::Drain, None).await;
    assert_eq!(gate.status().await["connections"], 1);
    assert_eq!(outcome(&gate.ground, code), EPERM, "nothing new");
    proxy
        .send(&ProxyToGate::Closed { connection }, None)
        .await
        .unwrap();
    drop(keeper);
    let ended = tokio::task::spawn_blocking(|| gate.running.join().unwrap());
    ended.await.unwrap().unwrap();
    let ground = gate.ground;
    assert_eq!(outcome(&ground, code), EPERM, "still protected");

    let gate = Gate::start(&config("127.0.0.103:5432"), &[]).await;
    let code = "socket.create_connection(('127.0.0.103',5432),timeout=2)";
    assert_eq!(outcome(&gate.ground, code), EPERM);
    gate.order(Order::Release, None).await;
    let ended = tokio::task::spawn_blocking(|| gate.running.join().unwrap());
    ended.await.unwrap().unwrap();
    let refused = libc::ECONNREFUSED.to_string();
    assert_eq!(outcome(&gate.ground, code), refused);
    assert!(!gate.ground.pins.exists());
}

/// A network namespace with 10.77.0.1, removed when dropped.
struct NetNamespace {
    name: String,
}

impl NetNamespace {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, SeqCst);
        let name = format!("lockgate-gate-{}-{number}", std::process::id());
        let ip = |arguments: &[&str]| {
            let done = Command::new("ip").args(arguments).status().unwrap();
            assert!(done.success(), "ip {arguments:?}");
        };
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "addr", "add", "10.77.0.1/32", "dev", "lo"]);
        Self { name }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(arguments);
        command
    }
}

impl Drop for NetNamespace {
    fn drop(&mut self) {
        // What is left over does no harm: nothing is in it.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}
