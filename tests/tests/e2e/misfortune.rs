//! Malformed input, broken files, full stores, servers that are away: a clear
//! error to the client and to the operator, no forwarded byte, no crash.

use lockgate_tests::{Agent, Paused, Postgres, PostgresConfig, sh};

use crate::stage::{self, Stage};

/// Sends bytes and prints what comes back until the end.
const RAW: &str = r#"
import socket, sys
host, data = sys.argv[1], bytes.fromhex(sys.argv[2])
s = socket.create_connection((host, 5432), 10); s.settimeout(20)
try:
    s.sendall(data)
    got = b''
    while chunk := s.recv(65536): got += chunk
    print(got)
except ConnectionResetError: print('reset')
"#;

fn raw(stage: &Stage, bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    stage
        .report
        .python(RAW, &[stage.postgres.address(), &hex])
        .unwrap()
        .all()
}

fn startup(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes(), body].concat()
}

/// The server has seen no connection of the client's, and lockgate works on.
fn unharmed(stage: &Stage) {
    let output = stage.psql(&stage.report, &["select count(*) from orders"]);
    assert_eq!(output.stdout, "10\n", "{output:?}\n{}", stage.agent.log());
    let log = stage.agent.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn malformed_startups_are_refused_and_harm_nobody() {
    let stage = Stage::new();
    let v3 = [0, 3, 0, 0];
    for (what, bytes) in [
        ("rubbish", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (
            "length of a negative",
            vec![0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        ),
        ("length of nothing", vec![0, 0, 0, 0]),
        ("a gigabyte", vec![0x40, 0, 0, 0, 0, 3, 0, 0]),
        ("protocol 2", startup(&[0, 2, 0, 0])),
        (
            "no user",
            startup(&[&v3[..], b"database\0shop\0\0"].concat()),
        ),
        ("no end", startup(&[&v3[..], b"user\0x"].concat())),
        (
            "more after the end",
            startup(&[&v3[..], b"user\0x\0\0extra"].concat()),
        ),
        (
            "replication",
            startup(&[&v3[..], b"user\0x\0replication\0true\0\0"].concat()),
        ),
        (
            "not UTF-8",
            startup(&[&v3[..], b"user\0\xff\xfe\0\0"].concat()),
        ),
        (
            "half a TLS handshake",
            vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        ),
        (
            "TLS asked for twice",
            [startup(&[4, 210, 22, 47]), startup(&[4, 210, 22, 47])].concat(),
        ),
    ] {
        // What is cut short ends when the client's patience does: ours.
        let answer = raw(&stage, &bytes);
        println!("{what}: {}", answer.trim());
        assert!(
            !answer.contains("SELECT") && !answer.contains("b'R\\x00"),
            "{what}: {answer}"
        );
    }
    unharmed(&stage);
}

#[test]
fn malformed_messages_end_the_session_and_only_it() {
    let stage = Stage::new();
    let hello = startup(&[&[0, 3, 0, 0][..], b"user\0x\0database\0shop\0\0"].concat());
    for (what, message) in [
        ("an unknown type", b"\x01\0\0\0\x04".to_vec()),
        ("a length too small", b"Q\0\0\0\x01".to_vec()),
        ("two gigabytes", b"Q\x7f\xff\xff\xff".to_vec()),
        ("a query without end", b"Q\0\0\0\x0cdelete f".to_vec()),
        ("a Bind cut short", b"B\0\0\0\x08\0\0\0\x01".to_vec()),
        (
            "a Parse with a negative count",
            b"P\0\0\0\x10\0select 1\0\xff\xff".to_vec(),
        ),
        ("a password nobody asked for", b"p\0\0\0\x08abc\0".to_vec()),
    ] {
        let answer = raw(&stage, &[&hello[..], &message].concat());
        println!("{what}: {}", answer.trim());
        assert!(
            answer.contains("08P01") || answer.contains("FATAL") || answer.contains("reset"),
            "{what}: {answer}"
        );
    }
    // A call by a number, which says nothing of what it does.
    let program = r#"
import socket, sys, time
s = socket.create_connection((sys.argv[1], 5432), 10)
s.sendall(bytes.fromhex(sys.argv[2])); time.sleep(1); print(s.recv(65536))
"#;
    let call = b"F\0\0\0\x0e\0\0\x05\x79\0\0\0\0\0\0";
    let bytes: String = [&hello[..], call]
        .concat()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let answer = stage
        .report
        .python(program, &[stage.postgres.address(), &bytes])
        .unwrap();
    assert!(answer.stdout.contains("C42501"), "{answer:?}");
    unharmed(&stage);
}

#[test]
fn a_client_that_does_not_begin_is_not_waited_for() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.limits = "startup_s = 2".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    let program = r#"
import socket, sys, time
s = socket.create_connection((sys.argv[1], 5432), 10)
begun = time.time()
try:
    for byte in b'\0\0\0\x40\0\x03\0\0user\0' + b'x' * 60:
        s.sendall(bytes([byte])); time.sleep(0.2)
    print('all of it')
except OSError: print('ended', time.time() - begun < 6)
"#;
    let output = stage
        .report
        .python(program, &[stage.postgres.address()])
        .unwrap();
    assert_eq!(output.stdout, "ended True\n", "{output:?}");
    unharmed(&stage);
}

#[test]
fn a_broken_policy_is_refused_and_the_old_set_holds() {
    let stage = Stage::new();
    let file = stage.agent.path("policies/test.cedar");
    for broken in [
        "permit (principal == Workload::\"report\", action, resource",
        "permit (principal == Workload::\"reprot\", action, resource);",
        "permit (principal, action == Action::\"selct\", resource);",
        "permit (principal, action, resource) when { resource.nothing > 1 };",
    ] {
        std::fs::write(&file, broken).unwrap();
        let checked = stage.agent.lockgate(&["check"]).unwrap();
        assert_eq!(checked.code, Some(1), "{broken}: {checked:?}");
        assert!(checked.all().contains("test.cedar"), "{checked:?}");
        let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
        assert!(!reloaded.ok(), "{broken}: {reloaded:?}");
        let output = stage.psql(
            &stage.report,
            &["select count(*) from orders", "delete from orders"],
        );
        assert_eq!(output.stdout, "10\n", "{output:?}");
        assert!(
            output.stderr.contains("no policy permits `delete`"),
            "{output:?}"
        );
    }
    std::fs::write(stage.agent.config(), "[[target]]\nname = 1").unwrap();
    let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(!reloaded.ok(), "{reloaded:?}");
    std::fs::remove_file(&file).unwrap();
    stage
        .agent
        .write(&stage::config(&stage.postgres, ""))
        .unwrap();
    let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(reloaded.ok(), "{reloaded:?}");
    unharmed(&stage);
}

#[test]
fn a_server_that_is_away_is_named_as_what_is_away() {
    let stage = Stage::new();
    stage.postgres.stop().unwrap();
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(
        !output.ok() && output.stderr.contains("server"),
        "{output:?}"
    );
    assert!(output.stderr.contains("lockgate"), "{output:?}");
    let events = stage.agent.events(&["--workload", "report"], 2).unwrap();
    assert!(
        events.iter().any(|event| event["kind"] == "refused"),
        "{events:?}"
    );
    stage.postgres.resume().unwrap();
    unharmed(&stage);
}

#[test]
fn a_login_the_server_wants_and_lockgate_does_not_do_is_named() {
    let config = PostgresConfig {
        hba: "host all all all gss\n".into(),
        ..Default::default()
    };
    let stage = Stage::with("", &config);
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(
        !output.ok() && output.stderr.contains("lockgate"),
        "{output:?}"
    );
}

#[test]
fn clickhouse_away_loses_nothing() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.audit = "clickhouse = { url = \"http://127.0.0.1:1\" }".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    unharmed(&stage);
    let events = stage.agent.events(&["--verb", "select"], 1).unwrap();
    assert_eq!(events.len(), 1);
    let said =
        |status: &serde_json::Value| status["keeper"]["record"]["clickhouse_error"].is_string();
    stage
        .agent
        .wait_until("telling that ClickHouse is away", said)
        .unwrap();
}

/// Asks again and again once `fills` was done, until it is refused; does
/// `mends`, and asks until it is answered. Returns the refusal, and how many
/// rows the server then has.
fn until_full(stage: &Stage, fills: impl FnOnce(), mends: impl FnOnce()) -> (String, String) {
    let program = r#"
import time
c = psycopg.connect(dsn, autocommit=True)
print(c.execute("select 1").fetchone()[0])
sys.stdin.readline()
done, text = 0, "select item from orders where item = 'x' and id = "
try:
    for i in range(200000): c.execute(text + str(i)); done += 1
    print("never full")
except psycopg.Error as e: print(e.sqlstate, str(e).splitlines()[0], "after", done)
sys.stdin.readline()
deadline = time.time() + 20
while True:
    try:
        with psycopg.connect(dsn, autocommit=True) as d: print(d.execute("select count(*) from orders").fetchone()[0])
        break
    except psycopg.Error as e:
        if time.time() > deadline: print(e); break
        time.sleep(0.2)
"#;
    let mut session = Paused::start(&stage.report, program, &stage.dsn("")).unwrap();
    assert_eq!(session.line().unwrap(), "1");
    fills();
    session.go_on().unwrap();
    let error = session.line().unwrap();
    mends();
    session.go_on().unwrap();
    let rows = session.line().unwrap();
    let verified = stage.agent.lockgate(&["audit", "verify"]).unwrap();
    assert!(verified.ok(), "{verified:?}");
    (error, rows)
}

#[test]
fn a_full_spool_refuses_and_goes_on_when_there_is_room() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.audit = "segment_mib = 1\nmax_segments = 4".into();
    let stage = Stage::over(Agent::start(&config).unwrap(), postgres);
    // keeper is stopped, so that nothing is sealed and room runs out.
    let keeper = stage.agent.pid("keeper").unwrap();
    let (error, rows) = until_full(
        &stage,
        || drop(sh(&format!("kill -STOP {keeper}")).unwrap()),
        || drop(sh(&format!("kill -CONT {keeper}")).unwrap()),
    );
    assert!(error.contains("lockgate"), "{error}");
    assert_eq!(rows, "10", "{error}");
}

/// A small file system of its own for the state of an agent.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, mib: u32) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        sh(&format!(
            "mount -t tmpfs -o size={mib}m,mode=755 tmpfs {}",
            at.display()
        ))
        .unwrap();
        Self(at)
    }

    fn fill(&self) {
        // To the last byte; dd then ends with an error, as it is meant to.
        let filler = self.0.join("filler");
        let script = format!("dd if=/dev/zero of={} bs=4k || true", filler.display());
        sh(&script).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.0.display()));
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let postgres = Postgres::start(&PostgresConfig::default()).unwrap();
    let mut config = stage::config(&postgres, "");
    config.audit = "segment_mib = 1\nmax_segments = 32".into();
    let mut agent = Agent::prepare(&config).unwrap();
    let disk = SmallDisk::mount(agent.path("state"), 64);
    agent.launch().unwrap();
    let stage = Stage::over(agent, postgres);
    // Given up before the folder that it is mounted on.
    let disk = disk;
    let (error, rows) = until_full(&stage, || disk.fill(), || disk.make_room());
    assert!(
        error.starts_with("42501 ") && error.contains("recorded"),
        "{error}"
    );
    assert_eq!(rows, "10", "{error}");
    // The operator hears of it, and that it is over.
    stage
        .agent
        .wait_until("sealed again", |status| {
            status["keeper"]["record"]["error"].is_null()
        })
        .unwrap();
}

#[test]
fn no_secret_is_written_down() {
    let stage = Stage::new();
    stage.psql(
        &stage.report,
        &[
            "select count(*) from orders",
            "delete from orders where item = 'hidden-literal'",
        ],
    );
    stage.psql(
        &stage.app,
        &["alter role report_ro password 'new-password'"],
    );
    stage.agent.events(&["--verdict", "deny"], 2).unwrap();
    let state = stage.agent.path("state");
    let run = stage.agent.path("run");
    for secret in ["s3cret-", "outdated", "hidden-literal", "new-password"] {
        let found = sh(&format!(
            "grep -ral '{secret}' {} {} {} || true",
            state.display(),
            run.display(),
            stage.agent.path("log").display()
        ))
        .unwrap();
        assert_eq!(found, "", "{secret}");
    }
    for role in ["gate", "proxy"] {
        let pid = stage.agent.pid(role).unwrap();
        let words = sh(&format!(
            "tr '\\0' '\\n' < /proc/{pid}/cmdline; tr '\\0' '\\n' < /proc/{pid}/environ"
        ))
        .unwrap();
        assert!(!words.contains("s3cret"), "{role}");
    }
}
