//! What bad input and bad luck get: a clear error, an event, no forwarded byte.

use lockgate_tests::{Agent, Postgres, PostgresConfig};

use crate::stage::{self, Stage};

/// Sends raw bytes as a client of the workload `report`; what comes back.
fn raw(stage: &Stage, expression: &str) -> String {
    let program = format!(
        "
import socket, struct, sys
s = socket.create_connection((sys.argv[1], 5432), timeout=8)
def startup(**kv):
    body = struct.pack('!I', 196608) + b''.join(k.encode() + b'\\0' + v.encode() + b'\\0' for k, v in kv.items()) + b'\\0'
    return struct.pack('!I', len(body) + 4) + body
def message(tag, body): return tag + struct.pack('!I', len(body) + 4) + body
def login():
    s.sendall(startup(user='x', database='shop'))
    got = b''
    while not got.endswith(b'Z\\0\\0\\0\\5I'): got += s.recv(65536)
def rest():
    got = b''
    try:
        while True:
            part = s.recv(65536)
            if not part: break
            got += part
    except OSError as e: got += str(e).encode()
    return got
{expression}
print(rest().decode('latin1'))"
    );
    let output = stage
        .report
        .python(&program, &[stage.postgres.address()])
        .unwrap();
    output.all()
}

#[test]
fn malformed_and_oversized_messages_end_the_session_with_a_reason() {
    let stage = Stage::new();
    for (expression, expected) in [
        (
            "s.sendall(b'\\0\\0\\0\\3xxx')",
            "a startup packet of 3 bytes",
        ),
        ("s.sendall(b'\\x7f\\xff\\xff\\xff')", "a startup packet of"),
        (
            "s.sendall(startup(user='x', database='shop', replication='database'))",
            "replication connections are refused",
        ),
        (
            "s.sendall(struct.pack('!II', 8, 80877103) + startup(user='x'))",
            "in clear behind the SSLRequest",
        ),
        ("login(); s.sendall(b'Q\\0\\0\\0\\2')", "2 bytes long"),
        ("login(); s.sendall(message(b'y', b''))", "08P01"),
        (
            "login(); s.sendall(b'Q' + struct.pack('!I', 1 << 30))",
            "1073741824 bytes long",
        ),
        ("login(); s.sendall(message(b'P', b'a\\0b'))", "08P01"),
    ] {
        let got = raw(&stage, expression);
        assert!(got.contains(expected), "{expression}\n{got}");
    }
    assert_eq!(stage.postgres.count("orders").unwrap(), 10);
    assert_eq!(
        stage.psql(&stage.report, &["select 1"]).stdout,
        "1\n",
        "others go on"
    );
}

#[test]
fn statements_that_cannot_be_read_are_refused_and_the_session_goes_on() {
    let stage = Stage::new();
    let long = format!("select '{}'", "x".repeat(70_000));
    let deep = format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    for (text, expected) in [
        (long.as_str(), "lockgate: refused"),
        (deep.as_str(), "lockgate: refused"),
        ("select 1 +", "lockgate: refused"),
        ("set standard_conforming_strings = off", "lockgate: refused"),
        ("set client_encoding = 'SJIS'", "lockgate: refused"),
    ] {
        let output = stage.psql(&stage.report, &[text, "select 'on'"]);
        assert!(output.stderr.contains(expected), "{text:.40}: {output:?}");
        assert!(output.stdout.ends_with("on\n"), "{output:?}");
    }
    let call = raw(
        &stage,
        "login(); s.sendall(message(b'F', struct.pack('!IHHH', 1, 0, 0, 0))); s.sendall(message(b'X', b''))",
    );
    assert!(call.contains("FunctionCall"), "{call}");
}

#[test]
fn a_client_that_never_begins_is_let_go() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.limits = "startup_s = 2".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    let begun = std::time::Instant::now();
    raw(&stage, "s.sendall(b'\\0')");
    assert!(begun.elapsed().as_secs() < 7, "{:?}", begun.elapsed());
    let refused = stage
        .agent
        .events(&["--text", "limits.startup_s"], 1)
        .unwrap();
    assert_eq!(refused[0]["kind"], "refused");
}

#[test]
fn a_wrong_password_and_a_server_that_is_away_are_told_apart() {
    let stage = Stage::new();
    stage
        .agent
        .write_secret("report", "not the password")
        .unwrap();
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(
        output.stderr.contains("refused lockgate's login"),
        "{output:?}"
    );
    assert!(
        output.stderr.contains("check the target's credentials"),
        "{output:?}"
    );
    assert!(!stage.agent.log().contains("not the password"));
    stage
        .agent
        .write_secret("report", "s3cret-report_ro")
        .unwrap();
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    stage.postgres.stop().unwrap();
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(output.stderr.contains("cannot be reached"), "{output:?}");
    stage.postgres.resume().unwrap();
    assert_eq!(stage.psql(&stage.report, &["select 1"]).stdout, "1\n");
}

#[test]
fn a_broken_policy_is_refused_and_the_old_set_runs_on() {
    let stage = Stage::new();
    let mut config = stage::config(&stage.postgres, "");
    config.policies =
        "permit (principal == Workload::\"report\", action == Action::\"selct\", resource);".into();
    stage.agent.write(&config).unwrap();
    let checked = stage.agent.lockgate(&["check"]).unwrap();
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(
        checked.stderr.contains("test.cedar:1") && checked.stderr.contains("select"),
        "{checked:?}"
    );
    let refused = stage.agent.lockgate(&["reload"]).unwrap();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let output = stage.psql(
        &stage.report,
        &["select count(*) from orders", "delete from orders"],
    );
    assert_eq!(output.stdout, "10\n", "{output:?}");
    assert!(
        output.stderr.contains("no policy permits `delete`"),
        "{output:?}"
    );
    config.policies = stage::POLICIES.into();
    stage.agent.write(&config).unwrap();
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    let allowed = stage
        .agent
        .lockgate(&[
            "policy",
            "allow",
            "report",
            "delete",
            "orders-db/shop/public/orders",
        ])
        .unwrap();
    assert!(allowed.ok(), "{allowed:?}");
    assert!(stage.agent.lockgate(&["reload"]).unwrap().ok());
    let output = stage.psql(&stage.report, &["delete from orders where id = 1"]);
    assert!(output.ok(), "{output:?}");
    assert_eq!(stage.postgres.count("orders").unwrap(), 9);
}

#[test]
fn a_full_spool_refuses_and_loses_nothing() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.audit = "segment_mib = 1\nmax_segments = 5".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    assert_eq!(stage.psql(&stage.report, &["select 1"]).stdout, "1\n");
    let keeper = stage.agent.pid("keeper").unwrap();
    // keeper stands still meanwhile: nothing is sealed, no segment handed out.
    let program = "
import psycopg, sys, os, signal
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute('select 1')
os.kill(int(sys.argv[2]), signal.SIGSTOP)
done = 0
try:
    for i in range(40000):
        c.execute('select item from orders where id = 1'); done += 1
except psycopg.Error as e: print('refused', 'spool' in str(e))
finally: os.kill(int(sys.argv[2]), signal.SIGCONT)
print(done)";
    let output = stage
        .report
        .python(program, &[&stage.dsn(""), &keeper.to_string()])
        .unwrap();
    let mut lines = output.stdout.lines();
    assert_eq!(lines.next(), Some("refused True"), "{output:?}");
    let done: usize = lines.next().unwrap().parse().unwrap();
    assert!(done > 1000, "{done}");
    let events = stage
        .agent
        .events(&["--workload", "report", "--object", "public/orders"], done)
        .unwrap();
    assert_eq!(
        events.len(),
        done,
        "every command that ran is in the record"
    );
}

#[test]
fn keeper_away_means_no_new_session() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.limits = "startup_s = 2".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    let keeper = stage.agent.pid("keeper").unwrap();
    lockgate_tests::sh(&format!("kill -STOP {keeper}")).unwrap();
    let output = stage.psql(&stage.report, &["select 1"]);
    lockgate_tests::sh(&format!("kill -CONT {keeper}")).unwrap();
    assert!(
        !output.ok() && output.stderr.contains("lockgate"),
        "{output:?}"
    );
}

#[test]
fn no_secret_is_left_anywhere() {
    let stage = Stage::new();
    stage.psql(
        &stage.app,
        &[
            "select 1",
            "select 'pass' || 'word'",
            "alter role app_rw password 'brand-new-secret'",
        ],
    );
    stage.agent.events(&["--workload", "app"], 3).unwrap();
    for secret in ["s3cret-", "outdated", "brand-new-secret"] {
        let found = lockgate_tests::sh(&format!(
            "grep -rlaF '{secret}' {} {} || true",
            stage.agent.path("state").display(),
            stage.agent.path("log").display()
        ))
        .unwrap();
        assert_eq!(found, "", "{secret}");
    }
    for role in ["gate", "proxy", "keeper"] {
        let pid = stage.agent.pid(role).unwrap();
        let visible = lockgate_tests::sh(&format!(
            "cat /proc/{pid}/environ /proc/{pid}/cmdline | tr '\\0' '\\n'"
        ))
        .unwrap();
        assert!(!visible.contains("s3cret-"), "{role}");
    }
}
