//! Whatever is killed: protected destinations are refused, never reached
//! directly, and all is well again without anybody's help.

use std::time::{Duration, Instant};

use crate::stage::Stage;

/// Sessions on the server that did not come through lockgate: it logs in from
/// the host's end of the cable, as everybody here does, so who it is shows.
fn strangers(stage: &Stage) -> String {
    stage
        .postgres
        .admin(
            "postgres",
            "select count(*) from pg_stat_activity where usename = 'whoever'",
        )
        .unwrap()
}

fn works(stage: &Stage) -> bool {
    stage.psql(&stage.report, &["select 'works'"]).stdout == "works\n"
}

fn recovers(stage: &Stage, what: &str) {
    let begun = Instant::now();
    while !works(stage) {
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "after {what}:\n{}",
            stage.agent.log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn each_of_the_three_may_be_killed_at_any_moment() {
    let stage = Stage::new();
    // The server takes this role with this password: a client that got through
    // by itself would have a session.
    stage
        .postgres
        .admin(
            "postgres",
            "create role whoever superuser login password 'outdated'",
        )
        .unwrap();
    assert!(works(&stage));
    for role in ["proxy", "keeper", "gate", "proxy"] {
        stage.agent.kill(role).unwrap();
        for _ in 0..10 {
            // Either refused, or served; never as oneself.
            let output = stage.psql(&stage.report, &["select current_user"]);
            assert!(
                output.stdout.is_empty() || output.stdout == "report_ro\n",
                "{role}: {output:?}"
            );
            assert_eq!(strangers(&stage), "0", "{role}");
        }
        recovers(&stage, role);
    }
    // Nothing was lost on the way.
    assert!(stage.agent.lockgate(&["audit", "verify"]).unwrap().ok());
}

#[test]
fn a_killed_proxy_means_refused() {
    let stage = Stage::new();
    assert!(works(&stage));
    stage.agent.kill("proxy").unwrap();
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(!output.ok(), "the next client is refused: {output:?}");
    recovers(&stage, "proxy");
}

#[test]
fn without_the_agent_protected_destinations_stay_refused() {
    let mut stage = Stage::new();
    stage
        .postgres
        .admin(
            "postgres",
            "create role whoever superuser login password 'outdated'",
        )
        .unwrap();
    assert!(works(&stage));
    stage.agent.kill_parent().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let output = stage.psql(&stage.report, &["select current_user"]);
        assert!(!output.stdout.contains("whoever"), "{output:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(
        output.stderr.contains("Operation not permitted"),
        "{output:?}"
    );
    stage.agent.launch().unwrap();
    assert!(works(&stage), "{}", stage.agent.log());
    let stopped = stage.agent.lockgate(&["stop", "--release"]).unwrap();
    assert!(stopped.ok(), "{stopped:?}");
    for _ in 0..100 {
        let direct = stage.psql(&stage.report, &["select current_user"]);
        if direct.stdout == "whoever\n" {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("--release did not release");
}

#[test]
fn a_session_outlives_keeper_and_gate() {
    let stage = Stage::new();
    let mut program = stage.report.command(lockgate_tests::python());
    program
        .arg("-uc")
        .arg(
            "
import psycopg, sys
c = psycopg.connect(sys.argv[1], autocommit=True)
print(c.execute('select 1').fetchone()[0])
for line in sys.stdin: print(c.execute('select count(*) from orders').fetchone()[0])
",
        )
        .arg(stage.dsn(""))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = program.spawn().unwrap();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    let mut answer = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        line
    };
    assert_eq!(answer(), "1\n");
    for role in ["keeper", "gate"] {
        stage.agent.kill(role).unwrap();
        recovers(&stage, role);
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        assert_eq!(answer(), "10\n", "after {role}");
    }
    drop(stdin);
    child.wait().unwrap();
}
