//! Clients in network namespaces that nobody told lockgate of.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lockgate_tests::{Output, Workload, run, sh};

use crate::bypass::way::{Field, OVER_THE_CABLE, say};

/// psql of `workload`, inside the container.
fn inside(field: &Field, workload: &Workload, sql: &str) -> Output {
    let dsn = format!("host={OVER_THE_CABLE} dbname=shop user=whoever");
    let mut psql = workload.command("ip");
    psql.args(["netns", "exec", field.container()])
        .args(["psql", "-XqAt", "-d", &dsn, "-c", sql]);
    run(&mut psql).unwrap()
}

/// How many namespaces are served.
fn served(field: &Field) -> usize {
    let status = field.stage().agent.status().unwrap();
    status["gate"]["listeners"].as_array().unwrap().len()
}

#[test]
fn a_namespace_is_served_from_its_first_process_to_its_last() {
    let field = Field::with_container();
    let report = &field.stage().report;
    assert_eq!(served(&field), 1, "the host's");
    let mut stays = report.command("ip");
    let mut stays = stays
        .args(["netns", "exec", field.container(), "sleep", "60"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let output = inside(&field, report, "select count(*) from orders");
    assert_eq!(output.stdout, "10\n", "{output:?}");
    assert_eq!(served(&field), 2);
    // Longer than it is looked at twice.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(served(&field), 2, "somebody is in it");
    stays.kill().unwrap();
    stays.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while served(&field) > 1 {
        assert!(Instant::now() < until, "it is not released");
        std::thread::sleep(Duration::from_millis(200));
    }
    let output = inside(&field, report, "select count(*) from orders");
    assert_eq!(output.stdout, "10\n", "served anew: {output:?}");
}

/// It connects before anybody could have listened: it is refused, and served
/// when it tries again.
#[test]
fn who_connects_as_his_namespace_is_made_is_refused_and_then_served() {
    let field = Field::new();
    let program = r#"
import ctypes, fcntl, os, socket, struct, sys, time
NEWUSER, NEWNET, SIOCSIFFLAGS = 0x10000000, 0x40000000, 0x8914
if ctypes.CDLL(None, use_errno=True).unshare(NEWUSER | NEWNET):
    sys.exit("unshare")
with socket.socket() as s:
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", 1))
said, end = [], time.time() + 10
while time.time() < end:
    try:
        socket.create_connection((sys.argv[1], 5432), 5)
        said.append("connected")
        break
    except OSError as e:
        said.append(str(e.errno))
        time.sleep(0.02)
print(said[0], *sorted(set(said[1:])))
"#;
    let mut command = field.stage().report.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .args(["/usr/bin/python3", "-c", program])
        .arg(field.postgres().address());
    let output = run(&mut command).unwrap();
    let mut said = output.stdout.split_whitespace();
    assert_eq!(said.next(), Some("1"), "the first is refused: {output:?}");
    let rest: Vec<&str> = said.collect();
    assert!(
        rest == ["1", "connected"] || rest == ["connected"],
        "{output:?}"
    );
    let way = "a namespace of its own, at once";
    say("held", "Nobody", way, "refused, then redirected");
}

/// What the namespace may not reach, lockgate does not reach for it.
#[test]
fn a_namespace_that_is_firewalled_stays_so() {
    let field = Field::with_container();
    let app = &field.stage().app;
    let insert = |id| format!("insert into orders values ({id}, 'x')");
    let count = || field.postgres().count("orders").unwrap();
    let output = inside(&field, app, &insert(71));
    assert_eq!((output.ok(), count()), (true, 11), "{output:?}");
    let container = field.container();
    sh(&format!(
        "ip netns exec {container} nft 'table ip wall {{
            chain output {{
                type filter hook output priority 0
                ip daddr {OVER_THE_CABLE} tcp dport 5432 reject with tcp reset
            }}
        }}'"
    ))
    .unwrap();
    let output = inside(&field, app, &insert(72));
    assert_eq!((output.ok(), count()), (false, 11), "{output:?}");
    let said = output.stderr.trim().replace('\n', " ");
    say("held", "app", "past its namespace's firewall", &said);
    sh(&format!(
        "ip netns exec {container} nft delete table ip wall"
    ))
    .unwrap();
    let output = inside(&field, app, &insert(73));
    assert_eq!((output.ok(), count()), (true, 12), "{output:?}");
}

/// As the containers of a pod do.
#[test]
fn those_who_share_a_namespace_are_told_apart() {
    let field = Field::with_container();
    let stage = field.stage();
    std::thread::scope(|scope| {
        let report =
            scope.spawn(|| inside(&field, &stage.report, "delete from orders where id = 1"));
        let app = scope.spawn(|| inside(&field, &stage.app, "insert into orders values (71, 'x')"));
        let (report, app) = (report.join().unwrap(), app.join().unwrap());
        assert!(report.stderr.contains("to `report`"), "{report:?}");
        assert!(app.ok(), "{app:?}");
        say(
            "held",
            "report",
            "beside `app` in a namespace",
            report.stderr.trim(),
        );
    });
    assert_eq!(field.postgres().count("orders").unwrap(), 11);
}
