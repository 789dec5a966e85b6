//! Tries ways to the server, in a workload and, to prove that each leads there,
//! where no workload is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lockgate_tests::{Agent, Namespace, Output, Postgres, PostgresConfig, Workload, root, run, sh};
use tempfile::TempDir;

use crate::stage::{self, Stage};

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user without rights.
    Nobody,
    /// The same, root in a user namespace of its own.
    RootOfUserNamespace,
    /// Root in [`Field::container`], with the rights that engines leave it.
    RootOfContainer,
}

/// A server, an agent in front of it, and a table that nobody may write to.
pub struct Field {
    stage: Stage,
    container: Option<Namespace>,
    /// Has the program, where everybody can read it.
    dir: TempDir,
    /// Takes datagrams where the server is.
    receiver: Child,
    tried: usize,
    faults: Vec<String>,
}

/// The server's address as [`Field::container`] has it, over a cable between
/// the two.
pub const OVER_THE_CABLE: &str = "192.0.2.2";

/// As Docker leaves them; CAP_NET_RAW is among them.
const OF_CONTAINERS: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

impl Field {
    pub fn new() -> Self {
        Self::with(None, "")
    }

    /// With further targets.
    pub fn with_targets(more: &str) -> Self {
        Self::with(None, more)
    }

    /// With a network namespace that has a cable to the server; nobody tells
    /// lockgate of it.
    pub fn with_container() -> Self {
        Self::with(Some(Namespace::new().unwrap()), "")
    }

    fn with(container: Option<Namespace>, more: &str) -> Self {
        let postgres = server();
        let mut config = stage::config(&postgres, "");
        config.body.push_str(more);
        if let Some(container) = &container {
            sh(&format!(
                "ip -n {here} link add cable type veth peer name cable netns {there}
                 ip -n {here} addr add 192.0.2.1/24 dev cable; ip -n {here} link set cable up
                 ip -n {there} addr add {OVER_THE_CABLE}/24 dev cable; ip -n {there} link set cable up",
                here = container.name(),
                there = postgres.namespace().name()
            ))
            .unwrap();
            let places = format!("match = [\"{OVER_THE_CABLE}:5432\", ");
            config.body = config.body.replace("match = [", &places);
        }
        Self::over(
            Stage::over(Agent::start(&config).unwrap(), postgres),
            container,
        )
    }

    fn over(stage: Stage, container: Option<Namespace>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lockgate-way-")
            .tempdir()
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = root().join("tests/support/bypass.py");
        fs::copy(program, dir.path().join("bypass.py")).unwrap();
        let received = fs::File::create(dir.path().join("received")).unwrap();
        let receiver = Command::new("ip")
            .args(["netns", "exec", stage.postgres.namespace().name()])
            .args(["/usr/bin/python3", "-uc", RECEIVER])
            .stdout(received)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let field = Self {
            stage,
            container,
            dir,
            receiver,
            tried: 0,
            faults: Vec::new(),
        };
        while !field.received().starts_with("up") {
            std::thread::sleep(Duration::from_millis(20));
        }
        field
    }

    pub fn postgres(&self) -> &Postgres {
        &self.stage.postgres
    }

    /// A folder of its own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Name of the container's network namespace.
    pub fn container(&self) -> &str {
        self.container.as_ref().map_or("", Namespace::name)
    }

    fn received(&self) -> String {
        fs::read_to_string(self.dir.path().join("received")).unwrap()
    }

    /// Tries each: a name of `tests/support/bypass.py` and what it takes;
    /// `@ADDRESS` instead of the server's.
    pub fn try_all(&mut self, who: &Who, ways: &[&str]) {
        for way in ways {
            let (could, outside) = self.try_one(*who, way, false);
            let (harm, inside) = self.try_one(*who, way, true);
            let said = inside.all().trim().replace('\n', "; ");
            let absent = outside.all().contains("not supported");
            let verdict = match (harm, absent) {
                (true, _) => "GOT THROUGH",
                (false, true) => "not here",
                (false, false) => "held",
            };
            say(verdict, &format!("{who:?}"), way, &said);
            if harm {
                self.faults.push(format!("{who:?} {way}: {said}"));
            }
            if !could && !absent {
                let why = outside.all();
                self.faults.push(format!(
                    "{who:?} {way}: leads nowhere past lockgate either: {why}"
                ));
            }
        }
    }

    /// Tries what is said to be open, and is as long as nothing closes it.
    pub fn is_open(&mut self, who: &Who, way: &str) {
        let (harm, inside) = self.try_one(*who, way, true);
        assert!(harm, "{way} is not open any more: {inside:?}");
        say("OPEN", &format!("{who:?}"), way, inside.all().trim());
    }

    fn try_one(&mut self, who: Who, way: &str, inside: bool) -> (bool, Output) {
        self.tried += 1;
        let row = format!("row {}", self.tried);
        let workload = inside.then(|| self.stage.report.clone());
        let output = self.run(who, way, &row, workload.as_ref());
        (self.has_come(&row), output)
    }

    /// Fails if anything got through.
    pub fn finish(self) {
        assert!(self.tried > 0);
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }

    /// Whether the row is in the server's table, or the datagram has arrived.
    fn has_come(&self, row: &str) -> bool {
        let sql = format!("select count(*) from harm where way = '{row}'");
        let rows = self.stage.postgres.admin("shop", &sql).unwrap();
        rows != "0" || self.received().contains(row)
    }

    fn run(&self, who: Who, way: &str, row: &str, workload: Option<&Workload>) -> Output {
        let mut words = way.split(' ');
        let name = words.next().unwrap();
        let (at, more): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with('@'));
        let own = match who {
            Who::RootOfContainer => OVER_THE_CABLE,
            _ => self.stage.postgres.address(),
        };
        let address = at.first().map_or(own, |at| &at[1..]);
        let [first, rest @ ..] = &self.becoming(who)[..] else {
            unreachable!()
        };
        let mut command = match workload {
            Some(workload) => workload.command(first),
            None => Command::new(first),
        };
        let device = self.stage.postgres.namespace().host_link();
        let more = more
            .iter()
            .map(|word| if *word == "DEVICE" { device } else { word });
        command
            .args(rest)
            .arg("/usr/bin/python3")
            .arg(self.dir.path().join("bypass.py"))
            .args([name, address, row])
            .args(more);
        let output = run(command.stdin(Stdio::null())).unwrap();
        if name.starts_with("datagram") {
            // It is on its way when its sender has ended.
            std::thread::sleep(Duration::from_millis(100));
        }
        output
    }

    /// The words before a program that make its process be `who`.
    fn becoming(&self, who: Who) -> Vec<String> {
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs --";
        let line = match who {
            Who::Nobody => nobody.to_owned(),
            Who::RootOfUserNamespace => format!("{nobody} unshare --user --map-root-user --"),
            Who::RootOfContainer => format!(
                "ip netns exec {} unshare --mount --uts --ipc --pid --fork -- setpriv --bounding-set={OF_CONTAINERS} --inh-caps=-all --no-new-privs --",
                self.container()
            ),
        };
        line.split(' ').map(str::to_owned).collect()
    }
}

/// One line of the suite.
pub fn say(verdict: &str, who: &str, way: &str, said: &str) {
    println!("{verdict:<11} {who:<20} {way}  -- {said}");
}

impl Drop for Field {
    fn drop(&mut self) {
        // Our own child.
        let _ = self.receiver.kill();
        let _ = self.receiver.wait();
    }
}

/// A server that lets `jane` in, and takes connections beside it that nobody
/// protects.
pub fn server() -> Postgres {
    let postgres = Postgres::start(&PostgresConfig {
        hba: "host all jane all trust\nhost all all all scram-sha-256\n".into(),
        ..PostgresConfig::default()
    })
    .unwrap();
    postgres
        .admin(
            "shop",
            "create role jane login superuser; create table harm(way text)",
        )
        .unwrap();
    postgres
}

/// Prints what comes by UDP and UDP-Lite to the server's port, and accepts on
/// another.
const RECEIVER: &str = "
import select, socket
sockets = []
for protocol in (17, 136):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, protocol)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('::', 5432))
    sockets.append(s)
beside = socket.create_server(('', 5431), backlog=100)
print('up')
while True:
    for s in select.select(sockets, [], [])[0]:
        print(s.recv(100).decode())
";
