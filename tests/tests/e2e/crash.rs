//! Processes that die. Whatever dies, a protected server is reached through
//! lockgate or not at all, and it comes back by itself.

use std::time::{Duration, Instant};

use lockgate_tests::{Output, Paused};

use crate::stage::Stage;

/// As [`Stage::new`], with a server that would accept the client itself and
/// notes who connects.
fn open_server() -> Stage {
    let server = lockgate_tests::PostgresConfig {
        hba: "host all jane all trust\nhost all all all scram-sha-256\n".into(),
        settings: "log_connections = on\n".into(),
        ..Default::default()
    };
    let stage = Stage::with("", &server);
    stage
        .postgres
        .admin("shop", "create role jane login superuser")
        .unwrap();
    stage
}

fn as_jane(stage: &Stage) -> Output {
    let dsn = format!("host={} dbname=shop user=jane", stage.postgres.address());
    stage.report.psql(&dsn, &["select current_user"]).unwrap()
}

/// Connects again and again until it works, and says how often it did not. Not
/// once is the server reached directly.
fn until_it_works(stage: &Stage) -> usize {
    let deadline = Instant::now() + Duration::from_secs(20);
    for refused in 0.. {
        let output = as_jane(stage);
        assert_ne!(output.stdout, "jane\n", "that was direct: {output:?}");
        if output.stdout == "report_ro\n" {
            assert!(
                !stage.postgres.log().contains("user=jane"),
                "{}",
                stage.postgres.log()
            );
            return refused;
        }
        assert!(
            Instant::now() < deadline,
            "it does not come back: {output:?}\n{}",
            stage.agent.log()
        );
    }
    unreachable!()
}

#[test]
fn a_killed_proxy_is_refused_and_comes_back() {
    let stage = open_server();
    assert_eq!(until_it_works(&stage), 0);
    for _ in 0..3 {
        let before = stage.agent.pid("proxy").unwrap();
        stage.agent.kill("proxy").unwrap();
        // It may be there again before the first client asks.
        until_it_works(&stage);
        assert_ne!(stage.agent.pid("proxy").unwrap(), before);
    }
}

#[test]
fn a_killed_gate_is_refused_and_comes_back() {
    let stage = open_server();
    stage.agent.kill("gate").unwrap();
    until_it_works(&stage);
}

#[test]
fn a_killed_keeper_comes_back_and_sessions_go_on() {
    let stage = open_server();
    let program = r#"
import time
c = psycopg.connect(dsn, autocommit=True)
print(c.execute("select 1").fetchone()[0])
sys.stdin.readline()
for i in range(20): c.execute("select count(*) from orders").fetchone(); time.sleep(0.05)
print("on")
"#;
    let mut session = Paused::start(&stage.report, program, &stage.dsn("")).unwrap();
    assert_eq!(session.line().unwrap(), "1");
    stage.agent.kill("keeper").unwrap();
    session.go_on().unwrap();
    let rest = session.rest().unwrap();
    assert_eq!(rest, ["on"], "a session that stands does not need keeper");
    until_it_works(&stage);
    let selects = stage
        .agent
        .events(&["--verb", "select", "--object", "public/orders"], 20)
        .unwrap();
    assert_eq!(
        selects.len(),
        20,
        "each once, also those while keeper was away"
    );
}

#[test]
fn all_three_killed_under_load_lose_no_event() {
    let stage = open_server();
    let program = r#"
import time
done, deadline = 0, time.time() + 6
while time.time() < deadline:
    try:
        with psycopg.connect(dsn, autocommit=True) as c:
            while time.time() < deadline:
                c.execute("select item from orders where id = 1").fetchone(); done += 1
    except psycopg.Error: time.sleep(0.02)
print(done)
"#;
    let output = std::thread::scope(|scope| {
        let load = scope.spawn(|| stage.python(&stage.report, program));
        for role in ["proxy", "keeper", "gate", "proxy"] {
            std::thread::sleep(Duration::from_millis(900));
            // It may be between two lives.
            let _ = stage.agent.kill(role);
        }
        load.join().unwrap()
    });
    let answered: usize = output
        .stdout
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{output:?}"));
    assert!(answered > 100, "{output:?}");
    until_it_works(&stage);
    let events = stage
        .agent
        .events(&["--verb", "select", "--object", "public/orders"], answered)
        .unwrap();
    assert!(
        events.len() >= answered,
        "{} events of {answered} commands",
        events.len()
    );
    let verified = stage.agent.lockgate(&["audit", "verify"]).unwrap();
    assert!(verified.ok(), "{verified:?}");
}

/// `cargo xtask soak` does the same for longer.
#[test]
fn kills_at_random_open_nothing_and_are_got_over() {
    let seconds: u64 = std::env::var("LOCKGATE_SOAK_SECONDS")
        .map_or(10, |seconds| seconds.parse().expect("seconds"));
    let stage = open_server();
    // Each line is how long the server was not to be had, in milliseconds.
    let program = format!(
        r#"
import time
dsn = dsn.replace("user=whoever", "user=jane")
began = last = time.monotonic()
while last < began + {seconds}:
    try:
        with psycopg.connect(dsn, autocommit=True) as c:
            for _ in range(10):
                who = c.execute("select current_user").fetchone()[0]
                if who != "report_ro": sys.exit("that was direct: " + who)
                now = time.monotonic()
                if now - last > 0.05: print(round((now - last) * 1000))
                last = now
    except psycopg.Error: time.sleep(0.01)
    if time.monotonic() > last + 20: sys.exit("it does not come back")
"#
    );
    let kills = std::cell::Cell::new(0);
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let load = || scope.spawn(|| stage.python(&stage.report, &program));
        let loads = [load(), load(), load()];
        let until = Instant::now() + Duration::from_secs(seconds);
        // No order of them is better than another; this one repeats.
        let mut random = 1u64;
        while Instant::now() < until {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let role = ["gate", "proxy", "keeper"][(random >> 33) as usize % 3];
            std::thread::sleep(Duration::from_millis(300 + (random >> 40) % 1500));
            // It may be between two lives.
            kills.set(kills.get() + usize::from(stage.agent.kill(role).is_ok()));
        }
        loads.into_iter().map(|load| load.join().unwrap()).collect()
    });
    let mut gaps = Vec::new();
    for output in &outputs {
        assert!(output.ok(), "{output:?}");
        gaps.extend(output.stdout.lines().map(|gap| gap.parse::<u64>().unwrap()));
    }
    gaps.sort_unstable();
    let log = stage.postgres.log();
    assert!(!log.contains("user=jane"), "{log}");
    println!(
        "{} kills in {seconds} s; away {} times, for {} ms at the median, {} ms at most",
        kills.get(),
        gaps.len(),
        gaps.get(gaps.len() / 2).unwrap_or(&0),
        gaps.last().unwrap_or(&0)
    );
    assert!(kills.get() as u64 > seconds / 4);
    // A second on a machine with nothing else to do.
    assert!(gaps.last().is_none_or(|gap| *gap < 5000), "{gaps:?}");
    let verified = stage.agent.lockgate(&["audit", "verify"]).unwrap();
    assert!(verified.ok(), "{verified:?}");
}

#[test]
fn a_killed_parent_leaves_the_server_unreachable_until_it_runs_again() {
    let mut stage = open_server();
    stage.agent.kill_parent().unwrap();
    // Longer than the lease lives.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let output = as_jane(&stage);
        assert!(!output.ok(), "{output:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!stage.postgres.log().contains("user=jane"));
    stage.agent.launch().unwrap();
    until_it_works(&stage);
}

#[test]
fn stopped_it_stays_refused_and_released_it_is_direct() {
    let mut stage = open_server();
    let stopped = stage.agent.lockgate(&["stop"]).unwrap();
    assert!(stopped.ok(), "{stopped:?}");
    std::thread::sleep(Duration::from_millis(500));
    assert!(!as_jane(&stage).ok());
    stage.agent.launch().unwrap();
    until_it_works(&stage);
    let released = stage.agent.lockgate(&["stop", "--release"]).unwrap();
    assert!(released.ok(), "{released:?}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(as_jane(&stage).stdout, "jane\n", "nothing of it is left");
}

#[test]
fn two_of_them_do_not_share_a_host() {
    let stage = Stage::new();
    let second = lockgate_tests::run(
        std::process::Command::new(lockgate_tests::root().join("target/release/lockgate"))
            .args(["run", "--config"])
            .arg(stage.agent.config()),
    )
    .unwrap();
    assert!(!second.ok(), "{second:?}");
    assert_eq!(stage.psql(&stage.report, &["select 1"]).stdout, "1\n");
}
