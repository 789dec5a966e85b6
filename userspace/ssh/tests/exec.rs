//! A real OpenSSH client and a real OpenSSH server with lockgate between them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockgate_command::{
    Access, Command, Denial, Judge, Outcome, PolicyRef, Resource, Ruling, Ticket, Verb, Verdict,
};
use lockgate_ssh::{Surroundings, Upstream, serve};
use russh::keys::{PublicKey, load_secret_key};
use sha2::{Digest, Sha256};

/// An sshd of our own, with its keys, on a free loopback port.
struct Sshd {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
    user: String,
}

impl Sshd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for key in ["server", "target", "lockgate"] {
            run(Process::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(folder.path().join(key)));
        }
        let path = |name: &str| folder.path().join(name);
        fs::copy(path("target.pub"), path("authorized_keys")).unwrap();
        let user = run(Process::new("id").arg("-un")).trim().to_owned();
        // The port is free when we look; another may take it before sshd does.
        for _ in 0..10 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let config = format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
                path("server").display(),
                path("authorized_keys").display(),
            );
            fs::write(path("sshd_config"), config).unwrap();
            let mut child = sshd(&path("sshd_config"))
                .stderr(File::create(path("log")).unwrap())
                .spawn()
                .expect("sshd starts; it is in the package openssh-server");
            if answers(&mut child, port) {
                return Self {
                    child,
                    port,
                    folder,
                    user,
                };
            }
        }
        panic!(
            "sshd does not answer: {}",
            fs::read_to_string(path("log")).unwrap_or_default()
        );
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn upstream(&self) -> Upstream {
        let public = fs::read_to_string(self.path("server.pub")).unwrap();
        Upstream {
            user: self.user.clone(),
            key: Arc::new(load_secret_key(self.path("target"), None).unwrap()),
            host_key: PublicKey::from_openssh(&public).unwrap(),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As root, sshd wants a folder in /run for its unprivileged half; it gets a
/// /run of its own.
fn sshd(config: &Path) -> Process {
    let mut sshd = match rooted() {
        true => {
            let mut shell = Process::new("unshare");
            let line = "mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f \"$0\"";
            shell.args(["--mount", "--", "sh", "-c", line]);
            shell
        }
        false => {
            let mut sshd = Process::new("/usr/sbin/sshd");
            sshd.args(["-D", "-e", "-f"]);
            sshd
        }
    };
    sshd.arg(config).stdin(Stdio::null()).stdout(Stdio::null());
    sshd
}

fn rooted() -> bool {
    run(Process::new("id").arg("-u")).trim() == "0"
}

fn answers(child: &mut Child, port: u16) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            let mut banner = [0; 4];
            if stream.read_exact(&mut banner).is_ok() {
                return &banner == b"SSH-";
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn run(process: &mut Process) -> String {
    let output = process.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{process:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Forbids every command whose text is not on its list, and remembers.
#[derive(Clone, Default)]
struct List(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    allowed: Vec<[u8; 32]>,
    judged: Vec<Command>,
    closed: Vec<(Ticket, Outcome)>,
    durable_at: Option<u64>,
}

impl List {
    fn of(allowed: &[&str]) -> Self {
        let list = Self::default();
        list.0.lock().unwrap().allowed = allowed
            .iter()
            .map(|line| Sha256::digest(line).into())
            .collect();
        list
    }

    fn closed(&self) -> Vec<(Ticket, Outcome)> {
        // The ticket is closed just after the client was told.
        let begun = Instant::now();
        loop {
            let seen = self.0.lock().unwrap();
            if seen.closed.len() >= seen.judged.len() || begun.elapsed() > Duration::from_secs(10) {
                return seen.closed.clone();
            }
            drop(seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Judge for List {
    fn judge(&mut self, command: &Command) -> Ruling {
        let mut seen = self.0.lock().unwrap();
        let ticket = Ticket(seen.judged.len() as u64);
        seen.judged.push(command.clone());
        let permitted =
            command.statement.refusal.is_none() && seen.allowed.contains(&command.digest);
        let denial = Denial {
            message: "lockgate: `execute` is forbidden by policy `no-shells` (ssh.cedar:3)".into(),
            hint: "permitted: what is on the list".into(),
            policies: vec![PolicyRef {
                id: "no-shells".into(),
                file: "ssh.cedar".into(),
                line: 3,
            }],
            access: command.statement.accesses.first().cloned(),
        };
        Ruling {
            ticket,
            verdict: match permitted {
                true => Verdict::Allow,
                false => Verdict::Deny(denial.into()),
            },
            durable_at: seen.durable_at,
        }
    }

    fn close(&mut self, ticket: Ticket, outcome: &Outcome) {
        self.0
            .lock()
            .unwrap()
            .closed
            .push((ticket, outcome.clone()));
    }
}

/// Dials the address it holds; its disk works or does not.
#[derive(Clone)]
struct World {
    server: SocketAddr,
    disk: bool,
}

impl Surroundings for World {
    type Stream = tokio::net::TcpStream;

    async fn dial(&self) -> io::Result<Self::Stream> {
        tokio::net::TcpStream::connect(self.server).await
    }

    async fn durable(&self, _: u64) -> io::Result<()> {
        match self.disk {
            true => Ok(()),
            false => Err(io::Error::other("the disk is full")),
        }
    }
}

/// lockgate between a client and `sshd`; ends with the test's runtime.
struct Between {
    runtime: tokio::runtime::Runtime,
    port: u16,
    known_hosts: PathBuf,
    user: String,
}

impl Between {
    fn start(sshd: &Sshd, list: &List, upstream: Upstream, disk: bool) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let key = load_secret_key(sshd.path("lockgate"), None).unwrap();
        let known_hosts = sshd.path("known_hosts");
        let line = format!(
            "[127.0.0.1]:{port} {}\n",
            key.public_key().to_openssh().unwrap()
        );
        fs::write(&known_hosts, line).unwrap();
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, sshd.port));
        let (list, world) = (list.clone(), World { server, disk });
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(
                    client,
                    key.clone(),
                    upstream.clone(),
                    world.clone(),
                    list.clone(),
                ));
            }
        });
        Self {
            runtime,
            port,
            known_hosts,
            user: sshd.user.clone(),
        }
    }

    /// The unmodified client, without anybody's configuration.
    fn ssh(&self, options: &[&str], command: &[&str], input: Option<&Path>) -> Output {
        let stdin = match input {
            Some(path) => File::open(path).unwrap().into(),
            None => Stdio::null(),
        };
        Process::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "GlobalKnownHostsFile=/dev/null",
                "-o",
                "StrictHostKeyChecking=yes",
            ])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", self.known_hosts.display()))
            .args(["-p", &self.port.to_string(), "-l", &self.user])
            .args(options)
            .arg("127.0.0.1")
            .args(command)
            .stdin(stdin)
            .output()
            .unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_allowed_command_runs_with_its_streams_and_status() {
    let sshd = Sshd::start();
    let line = "cat; echo problem >&2; exit 7";
    let list = List::of(&[line, "echo fine", "exit 3"]);
    let between = Between::start(&sshd, &list, sshd.upstream(), true);

    // More than a window of 2 MiB there and back, so that flow control acts.
    let input = sshd.path("input");
    let content: Vec<u8> = (0..5_000_000u32).map(|index| (index % 251) as u8).collect();
    fs::write(&input, &content).unwrap();
    let output = between.ssh(&[], &[line], Some(&input));
    assert!(
        output.stdout == content,
        "{} bytes came back",
        output.stdout.len()
    );
    assert_eq!(text(&output.stderr), "problem\n");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        list.closed(),
        [(Ticket(0), Outcome::Failed { code: "7".into() })]
    );

    let output = between.ssh(&[], &["echo fine"], None);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("fine\n", Some(0))
    );
    assert_eq!(
        list.closed()[1],
        (Ticket(1), Outcome::Done { rows: 0, bytes: 5 })
    );
    let judged = list.0.lock().unwrap().judged[1].clone();
    assert_eq!(
        judged.statement.accesses,
        [Access::new(Verb::Execute, Resource::target())]
    );

    // A command that does not read what it is sent.
    let output = between.ssh(&[], &["exit 3"], Some(&input));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(list.closed()[2].1, Outcome::Failed { code: "3".into() });
    between.runtime.shutdown_background();
}

#[test]
fn a_denied_command_never_reaches_the_server() {
    let sshd = Sshd::start();
    let (touched, witness) = (sshd.path("touched"), sshd.path("witness"));
    let allowed = format!("touch {}", witness.display());
    let list = List::of(&[&allowed]);
    let between = Between::start(&sshd, &list, sshd.upstream(), true);

    let output = between.ssh(&[], &[&format!("touch {}", touched.display())], None);
    assert_eq!(output.status.code(), Some(126));
    assert!(
        text(&output.stderr).contains("by policy `no-shells` (ssh.cedar:3)"),
        "{output:?}"
    );
    assert!(text(&output.stderr).contains("permitted: what is on the list"));
    // The same command with the file's other name works, so the first could have.
    assert_eq!(between.ssh(&[], &[&allowed], None).status.code(), Some(0));
    assert!(witness.exists());
    assert!(!touched.exists());
    assert_eq!(list.closed()[0], (Ticket(0), Outcome::Denied));
    let log = fs::read_to_string(sshd.path("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    between.runtime.shutdown_background();
}

#[test]
fn what_is_no_single_command_is_refused() {
    let sshd = Sshd::start();
    let list = List::of(&["env", ""]);
    let between = Between::start(&sshd, &list, sshd.upstream(), true);
    // A shell, a subsystem, a forward.
    assert_eq!(between.ssh(&["-T"], &[], None).status.code(), Some(126));
    assert_eq!(
        between.ssh(&["-s"], &["sftp"], None).status.code(),
        Some(126)
    );
    let refusals = list
        .0
        .lock()
        .unwrap()
        .judged
        .iter()
        .all(|command| command.statement.refusal.is_some());
    assert!(refusals && list.closed().len() == 2);
    let target = format!("127.0.0.1:{}", sshd.port);
    let forward = between.ssh(&["-W", &target], &[], None);
    assert_ne!(forward.status.code(), Some(0));
    assert!(!text(&forward.stdout).contains("SSH-"), "{forward:?}");
    // A variable is not passed on.
    let output = between.ssh(&["-o", "SetEnv=LC_LOCKGATE=passed"], &["env"], None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!text(&output.stdout).contains("LC_LOCKGATE"));
    between.runtime.shutdown_background();
}

#[test]
fn a_stranger_s_host_key_or_a_full_disk_stops_the_command() {
    let sshd = Sshd::start();
    let list = List::of(&["echo fine"]);
    let mut stranger = sshd.upstream();
    stranger.host_key = stranger.key.public_key().clone();
    let between = Between::start(&sshd, &list, stranger, true);
    let output = between.ssh(&[], &["echo fine"], None);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(126))
    );
    assert_eq!(list.closed(), [(Ticket(0), Outcome::Aborted)]);
    between.runtime.shutdown_background();

    list.0.lock().unwrap().durable_at = Some(1);
    let between = Between::start(&sshd, &list, sshd.upstream(), false);
    let output = between.ssh(&[], &["echo fine"], None);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(126))
    );
    assert!(
        text(&output.stderr).contains("cannot be recorded: the disk is full"),
        "{output:?}"
    );
    assert_eq!(list.closed()[1], (Ticket(1), Outcome::Denied));
    between.runtime.shutdown_background();
}
