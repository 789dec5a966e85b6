use std::io::{Read, Write};
use std::net::TcpStream;

use lockgate_tests::{Agent, AgentConfig, ClickHouse, Postgres, PostgresConfig, run, sh};

use crate::stage::{self, Stage};

#[test]
fn two_workloads_have_two_verdicts_and_the_session_goes_on() {
    let stage = Stage::new();
    let commands = [
        "select count(*) from orders",
        "delete from orders where id = 1",
        "select 'still here'",
    ];
    let denied = stage.psql(&stage.report, &commands);
    assert_eq!(denied.stdout, "10\nstill here\n", "{denied:?}");
    assert!(
        denied.stderr.contains("no policy permits `delete`"),
        "{denied:?}"
    );
    assert!(
        denied
            .stderr
            .contains("lockgate policy allow report delete orders-db/shop/public/orders")
    );
    assert_eq!(
        stage.postgres.count("orders").unwrap(),
        10,
        "the server has the rows"
    );

    let allowed = stage.psql(&stage.app, &commands);
    assert_eq!(allowed.stdout, "10\nstill here\n", "{allowed:?}");
    assert_eq!(stage.postgres.count("orders").unwrap(), 9);

    // Logged in as the workload's own role, whoever the client said it is.
    let role = stage.psql(&stage.report, &["select current_user"]);
    assert_eq!(role.stdout, "report_ro\n");

    // A process of no workload.
    let stranger = stage.agent.cgroup.unit("other.service").unwrap();
    let refused = stage.psql(&stranger, &["select 1"]);
    assert!(
        refused.stderr.contains("no policy permits `connect`"),
        "{refused:?}"
    );
}

#[test]
fn a_user_managers_unit_is_not_the_systems() {
    let stage = Stage::new();
    let disguised = stage
        .agent
        .cgroup
        .at("user.slice/user-1000.slice/user@1000.service/app.slice/app.service")
        .unwrap();
    let refused = stage.psql(&disguised, &["select 1"]);
    assert!(
        refused.stderr.contains("no policy permits `connect`"),
        "{refused:?}"
    );
}

#[test]
fn ipv6_and_real_drivers_work_unmodified() {
    let stage = Stage::new();
    let six = format!("host={} dbname=shop user=x", stage.postgres.address6());
    let counted = stage
        .report
        .psql(&six, &["select count(*) from orders"])
        .unwrap();
    assert_eq!(counted.stdout, "10\n", "{counted:?}");

    let output = stage.python(
        &stage.app,
        "
with psycopg.connect(dsn) as c:
    print(c.execute('select item from orders where id = %s', (3,)).fetchone()[0])
    with c.cursor(binary=True) as cur:
        print(cur.execute('select qty from orders where id = %s', (4,)).fetchone()[0])
    with c.pipeline():
        a = c.execute('select 1'); b = c.execute('select count(*) from orders')
    print(a.fetchone()[0], b.fetchone()[0])
    with c.cursor() as cur:
        with cur.copy('copy orders from stdin') as copy:
            for i in range(100, 1100): copy.write_row((i, 'copied', 1))
        with cur.copy('copy orders to stdout') as copy:
            print(len(list(copy.rows())))
    print(c.info.parameter_status('server_version').split('.')[0], c.info.host.count('.'))
",
    );
    assert_eq!(
        output.stdout.lines().collect::<Vec<_>>()[..3],
        ["item 3", "4", "1 10"],
        "{output:?}"
    );
    assert!(output.stdout.contains("\n1010\n"), "{output:?}");
    assert_eq!(
        stage.postgres.count("orders").unwrap(),
        1010,
        "committed at the end"
    );
}

#[test]
fn the_client_sees_the_address_it_asked_for() {
    let stage = Stage::new();
    let program = "
import socket
s = socket.create_connection((sys.argv[2], 5432)); print(s.getpeername()[0])";
    let address = stage.postgres.address().to_owned();
    let head = "import sys\n";
    let output = stage
        .app
        .python(&format!("{head}{program}"), &["", &address])
        .unwrap();
    assert_eq!(output.stdout.trim(), address, "{output:?}");
}

#[test]
fn every_command_is_in_both_stores_exactly_once() {
    let clickhouse = ClickHouse::start().unwrap();
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.audit = format!("clickhouse = {{ url = \"{}\" }}", clickhouse.url());
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    stage.psql(
        &stage.app,
        &["select 1", "update orders set qty = 5 where id = 2"],
    );
    stage.psql(
        &stage.report,
        &["delete from orders where item = 'a secret literal'"],
    );
    let output = stage.python(
        &stage.app,
        "
with psycopg.connect(dsn) as c:
    for i in range(500): c.execute('select item from orders where id = %s', (i,), prepare=True)
",
    );
    assert!(output.ok(), "{output:?}");

    let denied = stage.agent.events(&["--verdict", "deny"], 1).unwrap();
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0]["workload"], "report");
    assert_eq!(denied[0]["outcome"], "denied");
    assert_eq!(denied[0]["verbs"], serde_json::json!(["select", "delete"]));
    let selects = stage
        .agent
        .events(
            &[
                "--workload",
                "app",
                "--object",
                "public/orders",
                "--verb",
                "select",
            ],
            501,
        )
        .unwrap();
    assert_eq!(selects.len(), 501, "500 and the UPDATE's own reading");
    let update = stage.agent.events(&["--verb", "update"], 1).unwrap();
    assert_eq!(
        (update[0]["rows"].clone(), update[0]["outcome"].clone()),
        (1.into(), "done".into())
    );

    let commands = stage.agent.events(&[], 500).unwrap();
    let commands = commands
        .iter()
        .filter(|event| event["kind"] == "command")
        .count();
    let question = "select count() from lockgate.events_latest where kind = 'command'";
    let mut counted = String::new();
    for _ in 0..100 {
        counted = clickhouse.query(question).unwrap_or_default();
        if counted == commands.to_string() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(counted, commands.to_string());

    let verified = stage.agent.lockgate(&["audit", "verify"]).unwrap();
    assert!(verified.ok(), "{verified:?}");
    let spool = sh(&format!(
        "grep -rac 'a secret literal' {} || true",
        stage.agent.path("state").display()
    ))
    .unwrap();
    assert!(
        spool.lines().all(|line| line.ends_with(":0")),
        "a literal was stored: {spool}"
    );
}

#[test]
fn an_opaque_target_is_decided_per_connection() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let name = postgres.namespace().name().to_owned();
    let address = postgres.address().to_owned();
    let mut echo = std::process::Command::new("ip")
        .args(["netns", "exec", &name, "python3", "-c"])
        .arg("import socket\ns=socket.create_server(('',6379))\nwhile True:\n c,_=s.accept()\n while True:\n  d=c.recv(99)\n  if not d: break\n  c.sendall(d.upper())\n c.close()")
        .spawn()
        .unwrap();
    let mut config = stage::config(&postgres, "");
    config.body.push_str(&format!(
        "[[target]]\nname = \"cache\"\nprotocol = \"tcp\"\nmatch = [\"{address}:6379\"]\n"
    ));
    config.policies.push_str("@id(\"app-cache\") permit (principal == Workload::\"app\", action == Action::\"connect\", resource == Target::\"cache\");");
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    // Listening by now, on a busy machine too.
    for _ in 0..100 {
        if TcpStream::connect((address.as_str(), 6379)).is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let program = "
import socket,sys
s = socket.create_connection((sys.argv[1], 6379), timeout=5)
s.sendall(b'ping'); s.shutdown(socket.SHUT_WR)
print(s.makefile().read())";
    let allowed = stage.app.python(program, &[&address]).unwrap();
    assert_eq!(allowed.stdout.trim(), "PING", "{allowed:?}");
    let denied = stage.report.python(program, &[&address]).unwrap();
    assert!(denied.stderr.contains("ConnectionResetError"), "{denied:?}");
    echo.kill().unwrap();
    echo.wait().unwrap();
    let refused = stage
        .agent
        .events(&["--target", "cache", "--workload", "report"], 1)
        .unwrap();
    assert!(
        refused.iter().any(|event| event["kind"] == "refused"),
        "{refused:?}"
    );
    let closed = stage
        .agent
        .events(&["--target", "cache", "--workload", "app"], 2)
        .unwrap();
    assert!(
        closed.iter().any(|event| event["kind"] == "closed"),
        "{closed:?}"
    );
}

#[test]
fn what_is_not_protected_is_not_touched() {
    let stage = Stage::new();
    let name = stage.postgres.namespace().name();
    let mut other = std::process::Command::new("ip")
        .args(["netns", "exec", name, "python3", "-uc", "import socket\ns=socket.create_server(('',5433));print('up')\nc,a=s.accept();c.sendall(a[0].encode())"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let up = other.stdout.as_mut().unwrap();
    up.read_exact(&mut [0; 3]).unwrap();
    let program = "import socket,sys\ns=socket.create_connection((sys.argv[1],5433),timeout=5);print(s.recv(99).decode())";
    let output = stage
        .report
        .python(program, &[stage.postgres.address()])
        .unwrap();
    other.wait().unwrap();
    assert!(
        output.stdout.starts_with("10."),
        "the server saw the client itself: {output:?}"
    );
    assert_eq!(stage.agent.status().unwrap()["gate"]["accepted"], 0);
}

#[test]
fn observe_decides_and_records_and_refuses_nothing() {
    let stage = Stage::with("mode = \"observe\"", &PostgresConfig::default());
    let output = stage.psql(&stage.report, &["delete from orders where id = 1"]);
    assert!(output.ok(), "{output:?}");
    assert_eq!(stage.postgres.count("orders").unwrap(), 9);
    let denied = stage.agent.events(&["--verdict", "deny"], 1).unwrap();
    assert_eq!(denied[0]["enforced"], false, "{denied:?}");
    assert_eq!(denied[0]["outcome"], "done");
}

#[test]
fn metrics_and_status_count() {
    let stage = Stage::new();
    stage.psql(&stage.report, &["select 1", "delete from orders"]);
    let mut text = String::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.agent.metrics_port())).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        text.clear();
        stream.read_to_string(&mut text).unwrap();
        if text.contains("verdict=\"denied\"} 1") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for line in [
        "lockgate_lease_held 1",
        "lockgate_programs_attached 1",
        "lockgate_commands_total{workload=\"report\",target=\"orders-db\",verdict=\"denied\"} 1",
        "lockgate_commands_total{workload=\"report\",target=\"orders-db\",verdict=\"allowed\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let shown = stage.agent.lockgate(&["status"]).unwrap();
    assert!(
        shown.ok() && shown.stdout.contains("redirecting"),
        "{shown:?}"
    );
}

#[test]
fn clients_of_other_network_namespaces_are_served_told_of_or_not() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let served = lockgate_tests::Namespace::new().unwrap();
    let other = lockgate_tests::Namespace::new().unwrap();
    // The server is reached from there by way of the host.
    for (namespace, via) in [(&served, &served.address), (&other, &other.address)] {
        let gateway = previous(via);
        sh(&format!(
            "ip -n {} route add default via {gateway}",
            namespace.name()
        ))
        .unwrap();
    }
    sh(&format!(
        "sysctl -q -w net.ipv4.ip_forward=1; ip -n {} route add default via {}",
        postgres.namespace().name(),
        previous(postgres.address())
    ))
    .unwrap();
    let mut config: AgentConfig = stage::config(&postgres, "");
    config.namespaces = vec![served.path()];
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    let inside = |name: &str| {
        let mut command = stage.report.command("ip");
        command.args([
            "netns",
            "exec",
            name,
            "psql",
            "-XqAt",
            "-d",
            &stage.dsn(""),
            "-c",
            "select count(*) from orders",
        ]);
        run(&mut command).unwrap()
    };
    let output = inside(served.name());
    assert_eq!(output.stdout, "10\n", "{output:?}");
    let output = inside(other.name());
    assert_eq!(output.stdout, "10\n", "{output:?}");
}

/// The host's end of a cable, whose namespace has `address`.
fn previous(address: &str) -> String {
    let (head, last) = address.rsplit_once('.').unwrap();
    format!("{head}.{}", last.parse::<u8>().unwrap() - 1)
}
