//! `lockgate run` with its three processes, attached to a cgroup of its own
//! with nothing in it. Needs root and the users `daemon` and `nobody`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const ROLES: [&str; 3] = ["gate", "proxy", "keeper"];

/// A running agent, its folders and its cgroup; gone when dropped.
struct Agent {
    process: Child,
    dir: tempfile::TempDir,
    cgroup: PathBuf,
    pins: PathBuf,
    notified: UnixDatagram,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Agent {
    fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        let name = format!(
            "lockgate-supervisor-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, SeqCst)
        );
        let cgroup = cgroup_root().join(&name);
        fs::create_dir(&cgroup).unwrap();
        let pins = Path::new("/sys/fs/bpf").join(&name);
        let notified = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notified
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut agent = Self {
            process: Command::new("true").spawn().unwrap(),
            dir,
            cgroup,
            pins,
            notified,
        };
        // It is done at once; the agent takes its place.
        agent.process.wait().unwrap();
        agent.write("127.0.0.1:9");
        agent.launch();
        agent
    }

    fn launch(&mut self) {
        let mut options = fs::File::options();
        let log = options.create(true).append(true).open(self.path("log"));
        self.process = self
            .command(&["run"])
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.expect_notification("READY=1");
    }

    fn expect_notification(&self, wanted: &str) {
        let mut packet = [0; 256];
        loop {
            let received = self.notified.recv(&mut packet);
            let length =
                received.unwrap_or_else(|_| panic!("no {wanted}; its log:\n{}", self.log()));
            if &packet[..length] == wanted.as_bytes() {
                return;
            }
        }
    }

    /// A configuration with one target at `place`.
    fn write(&self, place: &str) {
        let at = self.dir.path().display();
        let text = format!(
            "[agent]\nstate_dir = '{at}/state'\nrun_dir = '{at}/run'\npolicies = '{at}/policies'\n\
             proxy_user = 'daemon'\nkeeper_user = 'nobody'\n\
             [kernel]\ncgroup = '{}'\npins = '{}'\n\
             [[target]]\nname = 'echo'\nprotocol = 'tcp'\nmatch = ['{place}']\n",
            self.cgroup.display(),
            self.pins.display()
        );
        fs::write(self.path("lockgate.toml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockgate"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("lockgate.toml"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr))
    }

    fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "not {what}: {status:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn pid(&self, role: &str) -> Pid {
        let pid = self.status()[role]["pid"].as_i64();
        Pid::from_raw(pid.unwrap_or_else(|| panic!("no {role}")) as i32)
    }

    fn wait_for_end(&mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Whatever is there of it, in any order; what is gone already is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.run(&["stop", "--release"]);
        let _ = fs::remove_dir_all(&self.pins);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let v2 = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    PathBuf::from(v2.unwrap().split(' ').nth(4).unwrap())
}

fn ends(pid: Pid) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        match stat {
            Err(_) => return true,
            // A zombie waits for whoever reaps orphans here.
            Ok(stat)
                if stat
                    .rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with('Z')) =>
            {
                return true;
            }
            Ok(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    false
}

#[test]
fn it_starts_says_so_and_makes_its_folders() {
    let agent = Agent::start();
    let status = agent.status();
    for role in ROLES {
        assert_eq!(status[role]["answers"], true, "{role}: {status:#}");
        assert_eq!(status[role]["restarts"], 0);
    }
    assert_eq!(status["gate"]["lease_held"], true);
    let log = agent.log();
    assert!(log.contains("protects this host"), "{log}");
    assert!(log.contains("127.0.0.1:9 (enforced)"), "{log}");
    let state = fs::metadata(agent.path("state")).unwrap();
    assert_eq!((state.uid(), state.mode() & 0o777), (65534, 0o700));
    let socket = fs::metadata(agent.path("run/control.sock")).unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o777), (0, 0o600));
    let ca = fs::read_to_string(agent.path("run/host-ca.pem")).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"), "{ca}");
    for (role, uid) in [("gate", 0), ("proxy", 1), ("keeper", 65534)] {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid(role))).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        assert_eq!(
            line.split_whitespace().nth(1),
            Some(uid.to_string().as_str()),
            "{role}"
        );
    }

    let second = agent.run(&["run"]);
    assert_eq!(second.code, 2);
    assert!(
        second.stderr.contains("another agent runs"),
        "{}",
        second.stderr
    );
}

#[test]
fn a_reload_is_taken_whole_or_refused_whole() {
    let agent = Agent::start();
    agent.write("127.0.0.1:10");
    let reloaded = agent.run(&["reload"]);
    assert_eq!(
        (reloaded.code, reloaded.stdout.as_str()),
        (0, "reloaded: epoch 2\n")
    );
    assert_eq!(agent.status()["targets"][0]["match"][0], "127.0.0.1:10");

    fs::write(agent.path("policies/wrong.cedar"), "permit (nonsense").unwrap();
    let refused = agent.run(&["reload"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(
        refused.stdout.contains("refused: epoch 2 runs on"),
        "{}",
        refused.stdout
    );
    assert!(
        refused.stderr.contains("wrong.cedar:1"),
        "{}",
        refused.stderr
    );
    assert_eq!(agent.status()["epoch"], 2);

    fs::remove_file(agent.path("policies/wrong.cedar")).unwrap();
    kill(Pid::from_raw(agent.process.id() as i32), Signal::SIGHUP).unwrap();
    agent.wait_until("at epoch 3", |status| status["epoch"] == 3);

    let text = fs::read_to_string(agent.path("lockgate.toml")).unwrap();
    let moved = text.replace("/state'", "/elsewhere'");
    fs::write(agent.path("lockgate.toml"), moved).unwrap();
    let warned = agent.run(&["reload"]);
    assert_eq!(warned.code, 0);
    assert!(
        warned.stderr.contains("take effect at the next start"),
        "{}",
        warned.stderr
    );
    // keeper goes on where its state is, also as another process.
    kill(agent.pid("keeper"), Signal::SIGKILL).unwrap();
    agent.wait_until("with a keeper again", |status| {
        status["keeper"]["restarts"] == 1
    });
    assert!(!agent.path("elsewhere").exists());
}

#[test]
fn whichever_ends_is_started_again_and_the_lease_with_it() {
    let agent = Agent::start();
    for role in ROLES {
        let pid = agent.pid(role);
        kill(pid, Signal::SIGKILL).unwrap();
        let status = agent.wait_until("whole again", |status| {
            status[role]["restarts"] == 1 && status["gate"]["lease_held"] == true
        });
        assert_ne!(status[role]["pid"], i64::from(pid.as_raw()));
        assert_eq!(status["epoch"], 1);
    }
    // They know each other: a new configuration reaches all three.
    assert_eq!(agent.run(&["reload"]).code, 0);
}

#[test]
fn one_that_hangs_does_not_hang_the_parent_and_late_answers_confuse_nobody() {
    let agent = Agent::start();
    let keeper = agent.pid("keeper");
    kill(keeper, Signal::SIGSTOP).unwrap();
    for _ in 0..2 {
        let status = agent.status();
        assert_eq!(status["keeper"]["answers"], false);
        assert_eq!(status["proxy"]["answers"], true);
    }
    kill(keeper, Signal::SIGCONT).unwrap();
    agent.wait_until("answering", |status| status["keeper"]["answers"] == true);
    let reloaded = agent.run(&["reload"]);
    assert_eq!(
        (reloaded.code, reloaded.stdout.as_str()),
        (0, "reloaded: epoch 2\n")
    );
    assert_eq!(agent.pid("keeper"), keeper);
}

#[test]
fn all_three_end_with_their_parent_even_stopped_ones() {
    let mut agent = Agent::start();
    let pids = ROLES.map(|role| agent.pid(role));
    // A stopped process sees no channel close: the kernel must end it.
    for pid in pids {
        kill(pid, Signal::SIGSTOP).unwrap();
    }
    agent.process.kill().unwrap();
    agent.process.wait().unwrap();
    for (role, pid) in ROLES.iter().zip(pids) {
        assert!(ends(pid), "{role} outlives its parent");
    }
    // And the next one goes on.
    agent.launch();
    assert_eq!(agent.status()["gate"]["lease_held"], true);
}

#[test]
fn stop_leaves_the_pins_and_release_lifts_them_with_or_without_an_agent() {
    let mut agent = Agent::start();
    let stopped = agent.run(&["stop"]);
    assert_eq!(stopped.code, 0);
    assert!(
        stopped.stdout.contains("stay refused"),
        "{}",
        stopped.stdout
    );
    agent.expect_notification("STOPPING=1");
    assert_eq!(agent.wait_for_end(), 0);
    assert!(agent.pins.is_dir(), "the programs are gone");

    let released = agent.run(&["stop", "--release"]);
    assert_eq!(released.code, 0, "{}", released.stderr);
    assert!(
        released.stdout.contains("no agent was running"),
        "{}",
        released.stdout
    );
    assert!(!agent.pins.exists());
    assert_eq!(agent.run(&["stop", "--release"]).code, 3);

    agent.launch();
    assert!(agent.pins.is_dir());
    assert_eq!(agent.run(&["stop", "--release"]).code, 0);
    assert_eq!(agent.wait_for_end(), 0);
    assert!(!agent.pins.exists());
}

#[test]
fn sigterm_ends_it_in_order() {
    let mut agent = Agent::start();
    let pids = ROLES.map(|role| agent.pid(role));
    kill(Pid::from_raw(agent.process.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(agent.wait_for_end(), 0);
    for pid in pids {
        assert!(ends(pid));
    }
    let log = agent.log();
    assert!(!log.contains("did not end in time"), "{log}");
}
