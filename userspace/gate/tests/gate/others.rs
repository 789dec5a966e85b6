//! Programs of others on the same hooks.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use lockgate_gate::{behind, filtering};

use crate::field::{Field, Ground, accept, outcome};

/// Where clients connect to, and where that leads.
const VIRTUAL: &str = "127.0.0.100";
const BACKEND: &str = "127.0.0.101";

/// Somebody else's program on a cgroup, detached when dropped.
struct Program(Child);

impl Program {
    fn attach(cgroup: &Path, what: &[&str]) -> Self {
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", include_str!("support/program.py")])
            .arg(cgroup)
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "attached\n");
        Self(child)
    }

    fn balancer(cgroup: &Path) -> Self {
        Self::attach(cgroup, &["balancer", VIRTUAL, BACKEND])
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It detaches at the end of its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// As Cilium does it for services: the destination of connect(2) is another one
/// afterwards.
#[test]
fn a_balancer_in_connect_leads_nobody_past_the_redirect() {
    let server = TcpListener::bind((BACKEND, 0)).unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    let ask = format!("socket.create_connection(('{VIRTUAL}',{port}),timeout=1)");
    let got_there = || server.accept().is_ok();

    let ground = Ground::new();
    let balancer = Program::balancer(&ground.cgroup);
    assert_eq!(outcome(&ground, &ask), "connected");
    assert!(got_there(), "without lockgate it balances");

    // It was there before.
    let mut field = Field::over(ground, &[&format!("{BACKEND}:{port}")]);
    let (host, listeners) = field.listen();
    assert_eq!(behind(&field.cgroup).unwrap(), [""; 0]);
    assert_eq!(outcome(&field, &ask), "connected");
    let (_, origin) = accept(&mut field, &host, &listeners.v4);
    let origin = origin.unwrap();
    let original = SocketAddr::from((
        <[u8; 4]>::try_from(&origin.address[..4]).unwrap(),
        origin.port,
    ));
    assert_eq!(original, SocketAddr::new(BACKEND.parse().unwrap(), port));
    assert!(!got_there());

    // It comes after.
    drop(balancer);
    let _balancer = Program::balancer(&field.cgroup);
    assert_eq!(behind(&field.cgroup).unwrap(), ["somebodys"]);
    assert_eq!(
        outcome(&field, &ask),
        "None",
        "a time-out, which has no number"
    );
    assert!(!got_there());
}

#[test]
fn filters_of_others_are_found() {
    let field = Field::new(&["127.0.0.102:5432"]);
    let below = field.cgroup.join("job.service");
    std::fs::create_dir(&below).unwrap();
    assert_eq!(
        filtering(&field.cgroup).unwrap(),
        [""; 0],
        "lockgate's own do not count"
    );
    let filter = Program::attach(&below, &["filter"]);
    assert_eq!(filtering(&field.cgroup).unwrap(), ["/job.service"]);
    drop(filter);
    assert_eq!(filtering(&field.cgroup).unwrap(), [""; 0]);
    std::fs::remove_dir(&below).unwrap();
}
