//! Where the programs are tried: a cgroup, a pin folder and clients in it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use lockgate_abi::{Flow, INET, INET6};
use lockgate_config::Bundle;
use lockgate_gate::{Kernel, Lease, Listeners, Namespace, Protected, v2_root};
use socket2::SockRef;

/// Before the names of everything the tests make.
const NAME: &str = "lockgate-gate-";
const PINS: &str = "/sys/fs/bpf";

/// Programs attached to a cgroup of their own.
pub struct Field {
    pub kernel: Kernel,
    pub lease: Lease,
    pub ground: Ground,
}

impl Field {
    pub fn new(places: &[&str]) -> Self {
        Self::over(Ground::new(), places)
    }

    pub fn over(ground: Ground, places: &[&str]) -> Self {
        let text = format!("[[target]]\nname='t'\nprotocol='tcp'\nmatch={places:?}\n");
        let bundle = Bundle {
            config: toml::from_str(&text).unwrap(),
            ..Bundle::default()
        };
        let wanted = Protected::from_bundle(&bundle).unwrap();
        let mut kernel = Kernel::attach(Some(&ground.cgroup), &ground.pins, &wanted).unwrap();
        let lease = Lease::start(kernel.take_lease().unwrap()).unwrap();
        Self {
            kernel,
            lease,
            ground,
        }
    }

    /// Listens in the host's namespace and redirects to it.
    pub fn listen(&mut self) -> (Namespace, Listeners) {
        let host = Namespace::host().unwrap();
        let listeners = Listeners::open(&host, &self.kernel.exemptions()).unwrap();
        self.kernel
            .listen(&[(host.cookie(), listeners.ports().unwrap())])
            .unwrap();
        self.lease.hold(true);
        (host, listeners)
    }
}

impl std::ops::Deref for Field {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// A cgroup and a pin folder, removed when dropped.
pub struct Ground {
    pub cgroup: PathBuf,
    pub pins: PathBuf,
}

impl Ground {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        mount("bpf", PINS);
        mount("tracefs", "/sys/kernel/tracing");
        SWEPT.call_once(sweep);
        let number = NEXT.fetch_add(1, SeqCst);
        let name = format!("{NAME}{}-{number}", std::process::id());
        let cgroup = v2_root().unwrap().join(&name);
        fs::create_dir(&cgroup).unwrap();
        let pins = Path::new(PINS).join(&name);
        Self { cgroup, pins }
    }

    /// Runs a Python program as a member of the cgroup; what it prints.
    pub fn python(&self, program: &str) -> String {
        let output = self.spawn(program).wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn spawn(&self, program: &str) -> std::process::Child {
        let procs = self.cgroup.join("cgroup.procs");
        Command::new("sh")
            .arg("-c")
            .arg(format!(
                "echo $$ > {} && exec /usr/bin/python3 -c \"$1\"",
                procs.display()
            ))
            .args(["sh", program])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What is left over from here does no harm: its cgroup is empty.
        let _ = fs::remove_dir_all(&self.pins);
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn mount(kind: &str, at: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    if !mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(at))
    {
        // Another test may have been quicker.
        let _ = Command::new("mount").args(["-t", kind, kind, at]).status();
    }
}

/// Removes what an earlier run left that was killed: pinned programs stay
/// attached for as long as the host is up.
fn sweep() {
    let gone = |name: &str| {
        let process = name.strip_prefix(NAME)?.split('-').next()?;
        let number: u32 = process.parse().ok()?;
        (!Path::new("/proc").join(number.to_string()).exists()).then_some(())
    };
    let root = v2_root().unwrap();
    for (folder, is_pins) in [(Path::new(PINS), true), (root.as_path(), false)] {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if gone(&entry.file_name().to_string_lossy()).is_none() {
                continue;
            }
            // Another run may sweep at the same time.
            let _ = match is_pins {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_dir(entry.path()),
            };
        }
    }
}

/// How many times longer than usual everything may take: where processors are
/// emulated, somebody says so.
pub fn slowness() -> u32 {
    std::env::var("LOCKGATE_SLOWNESS").map_or(1, |times| times.parse().unwrap())
}

/// Accepts one client and says what the kernel recorded of it.
pub fn accept(
    field: &mut Field,
    host: &Namespace,
    listener: &TcpListener,
) -> (TcpStream, Option<lockgate_abi::Origin>) {
    listener.set_nonblocking(false).unwrap();
    let patience = Some(Duration::from_secs(10) * slowness());
    SockRef::from(listener).set_read_timeout(patience).unwrap();
    let (stream, client) = listener.accept().unwrap();
    let origin = field.kernel.take_origin(&flow(host, client));
    (stream, origin)
}

pub fn flow(host: &Namespace, client: SocketAddr) -> Flow {
    let mut address = [0; 16];
    let family = match client {
        SocketAddr::V4(v4) => {
            address[..4].copy_from_slice(&v4.ip().octets());
            INET
        }
        SocketAddr::V6(v6) => {
            address = v6.ip().octets();
            INET6
        }
    };
    Flow {
        netns_cookie: host.cookie(),
        address,
        family,
        port: client.port(),
        reserved: 0,
    }
}

const CONNECT: &str = "import socket,sys,os
s=socket.create_connection((ADDRESS,PORT),timeout=5)
print(s.getpeername()[:2], os.getpid(), s.recv(2).decode())";

pub fn connect(address: &str, port: u16) -> String {
    CONNECT
        .replace("ADDRESS", &format!("{address:?}"))
        .replace("PORT", &port.to_string())
}

/// What a connect in the cgroup comes to.
pub fn outcome(field: &Ground, code: &str) -> String {
    field.python(&format!(
        "import socket,struct\ntry:\n {}\n print('connected')\nexcept OSError as e:\n print(e.errno)",
        code.replace('\n', "\n ")
    ))
}

pub const EPERM: &str = "1";
