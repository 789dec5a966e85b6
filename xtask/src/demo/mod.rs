//! `cargo xtask demo`: the main job, shown with real programs. It exits with
//! an error if anything it says did not happen.

mod page;
mod stage;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{SigSet, Signal};

use self::page::Page;
use self::stage::Stage;

const TRANSACTION: &str = r#"import psycopg, sys
with psycopg.connect(sys.argv[1]) as db:
    db.execute("UPDATE orders SET qty = qty + 100 WHERE id = 1")
    try:
        with db.transaction():  # a savepoint
            db.execute("DROP TABLE customers")
    except psycopg.errors.InsufficientPrivilege as error:
        print("denied with SQLSTATE", error.sqlstate)
    db.execute("UPDATE orders SET qty = qty + 100 WHERE id = 2")
print("committed")"#;

const NEIGHBOUR: &str = "import socket, sys\n\
                         print(socket.create_connection((sys.argv[1], 5433), 5).makefile().read())";

/// Shows everything; with `keep`, leaves it running until Ctrl-C.
pub fn run(keep: bool) -> Result<()> {
    let begun = Instant::now();
    let mut page = Page::new();
    let stage = setting(&mut page)?;
    two_verdicts(&mut page, &stage)?;
    blocked_delete(&mut page, &stage)?;
    transaction(&mut page, &stage)?;
    tagged_column(&mut page, &stage)?;
    unprotected_port(&mut page, &stage)?;
    killed_proxy(&mut page, &stage)?;
    record(&mut page, &stage)?;

    let failed = page.failed();
    if failed.is_empty() {
        page.say(&format!(
            "\nAll of it happened, in {:.0} s.",
            begun.elapsed().as_secs_f64()
        ));
    }
    if keep {
        wait(&page, &stage)?;
    }
    if !failed.is_empty() {
        bail!("this did not happen: {}", failed.join("; "));
    }
    Ok(())
}

fn setting(page: &mut Page) -> Result<Stage> {
    page.heading("A database server, a host with two jobs, and lockgate between them");
    let mut stage = Stage::build()?;
    page.say(&format!(
        "PostgreSQL {} listens on {}:5432, in a network namespace of its own. It has a shop.",
        stage.postgres.admin("shop", "show server_version")?,
        stage.address()
    ));
    page.say("What lockgate was told (lockgate.toml):\n");
    page.quote(&stage.configuration());
    page.say("Who may do what (policies/shop.cedar):\n");
    page.quote(stage::POLICIES.trim());
    let begun = Instant::now();
    page.command("root", "lockgate run");
    stage.launch()?;
    page.say(&format!("ready after {} ms", begun.elapsed().as_millis()));
    stage.await_clickhouse()?;
    let status = stage.agent.lockgate(&["status"])?;
    page.command("root", "lockgate status");
    page.output(&status);
    page.must("lockgate runs and redirects", status.ok());
    Ok(stage)
}

fn two_verdicts(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("The same SELECT from two jobs: two verdicts");
    page.say("Both use the connection string they always had. Its password is not the server's:");
    page.say("lockgate knows which process calls, and logs in by itself.\n");
    let sql = ["SELECT id, name FROM customers ORDER BY id LIMIT 3"];
    let denied = stage.psql(page, "nightly-report", &sql)?;
    page.must(
        "nightly-report is denied",
        denied.stdout.contains("no policy permits"),
    );
    page.must("and sees no customer", !denied.stdout.contains("Ann"));
    let allowed = stage.psql(page, "support", &sql)?;
    page.must(
        "support is not",
        allowed.ok() && allowed.stdout.contains("Ann"),
    );
    Ok(())
}

fn blocked_delete(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("A DELETE that the server never sees, in a session that goes on");
    let before = stage.postgres.count("orders")?;
    let commands = ["DELETE FROM orders", "SELECT count(*) FROM orders"];
    let output = stage.psql(page, "nightly-report", &commands)?;
    page.must(
        "the DELETE is denied",
        output.stdout.contains("no policy permits `delete`"),
    );
    page.must(
        "the next command is answered",
        output.stdout.contains(&format!(" {before}\n")),
    );
    let after = stage.postgres.count("orders")?;
    page.say(&format!(
        "The server itself, asked past lockgate: {after} orders."
    ));
    page.must("the server has all its rows", after == before);
    page.must(
        "and has never heard of it",
        !stage.postgres.log().contains("DELETE FROM orders"),
    );
    Ok(())
}

fn transaction(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("A transaction in psycopg that goes on after a denial");
    page.quote(TRANSACTION);
    let output = stage.python(page, "support", "orders.py", TRANSACTION, &stage.dsn())?;
    page.must(
        "the denial is an ordinary error",
        output.stdout.contains("SQLSTATE 42501"),
    );
    page.must(
        "the transaction commits",
        output.stdout.contains("committed"),
    );
    let quantities = stage.postgres.admin(
        "shop",
        "select qty from orders where id in (1, 2) order by id",
    )?;
    page.say(&format!(
        "The server itself: quantities {}; customers {}.",
        quantities.replace('\n', " and "),
        stage.postgres.count("customers")?
    ));
    page.must(
        "both updates are there, on both sides of it",
        quantities == "101\n102",
    );
    page.must("the table is, too", stage.postgres.count("customers")? > 0);
    Ok(())
}

fn tagged_column(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("A column with a tag: masked where it is shown, refused where it is used");
    let sql = "SELECT id, name, ssn FROM customers ORDER BY id LIMIT 2";
    let masked = stage.psql(page, "support", &[sql])?;
    page.must(
        "the numbers are masked",
        masked.stdout.contains("*******6789") && !masked.all().contains("123-45"),
    );
    for sql in [
        "SELECT id FROM customers WHERE ssn LIKE '123%'",
        "SELECT upper(ssn) AS x FROM customers",
        "SELECT c FROM customers c",
    ] {
        let output = stage.psql(page, "support", &[sql])?;
        page.must(
            "denied, and no number shown",
            !output.ok() && !output.all().contains("123-45"),
        );
    }
    Ok(())
}

fn unprotected_port(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("A port that nobody protects is not touched");
    let accepted = |stage: &Stage| stage.agent.status().map(|s| s["gate"]["accepted"].clone());
    let before = accepted(stage)?;
    let output = stage.python(page, "support", "hello.py", NEIGHBOUR, stage.address())?;
    page.must(
        "the neighbour saw the client itself",
        output.stdout.starts_with("hello, 10."),
    );
    page.must("lockgate saw nothing", accepted(stage)? == before);
    Ok(())
}

fn killed_proxy(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("kill -9: refused, not bypassed");
    let pid = stage.agent.pid("proxy")?;
    page.command("root", &format!("kill -9 {pid}   # the proxy"));
    stage.agent.kill("proxy")?;
    let refused = stage.psql(page, "support", &["SELECT 1"])?;
    page.must(
        "the connection is refused",
        !refused.ok() && !refused.stdout.contains("1 row"),
    );
    page.say("It is started again by itself:");
    let begun = Instant::now();
    let up = |status: &serde_json::Value| {
        status["gate"]["lease_held"] == true && status["proxy"]["pid"].as_u64() != Some(pid.into())
    };
    stage.agent.wait_until("back", up)?;
    page.say(&format!("back after {} ms\n", begun.elapsed().as_millis()));
    let again = stage.psql(page, "support", &["SELECT 'here again' AS answer"])?;
    page.must(
        "then it works",
        again.ok() && again.stdout.contains("here again"),
    );
    // A direct connection would have brought the client's own user name.
    page.must(
        "the server never saw the client itself",
        !stage.postgres.log().contains(stage::USER),
    );
    Ok(())
}

fn record(page: &mut Page, stage: &Stage) -> Result<()> {
    page.heading("The record, on this host");
    let words = ["audit", "search", "--verdict", "deny", "--since", "1h"];
    // What was denied last reaches the store a moment later.
    stage.agent.events(&["--verdict", "deny"], 6)?;
    page.command("root", &format!("lockgate {}", words.join(" ")));
    let found = stage.agent.lockgate(&words)?;
    page.output(&found);
    page.must(
        "the denied DELETE is in it",
        found.ok() && found.stdout.contains("delete"),
    );
    let verified = stage.agent.lockgate(&["audit", "verify"])?;
    page.command("root", "lockgate audit verify");
    page.output(&verified);
    page.must("its chain is whole", verified.ok());

    page.heading("The same question, in ClickHouse");
    page.command("clickhouse", stage::QUESTION);
    let local = stage.agent.events(&["--verdict", "deny"], 6)?.len();
    let deadline = Instant::now() + Duration::from_secs(15);
    let counted = loop {
        let counted = stage.clickhouse.query(stage::COUNT).unwrap_or_default();
        if counted == local.to_string() || Instant::now() > deadline {
            break counted;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    page.text(
        &stage
            .clickhouse
            .query(&format!("{} {}", stage::QUESTION, stage::LOOKS))?,
    );
    page.must(
        "ClickHouse has the same denials, each once",
        counted == local.to_string(),
    );
    Ok(())
}

fn wait(page: &Page, stage: &Stage) -> Result<()> {
    // Blocked before anything is said, so that an early Ctrl-C cleans up, too.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    page.say("\nIt runs until Ctrl-C. A psql of your own, as one of the two jobs:\n");
    for job in ["nightly-report", "support"] {
        page.say(&format!("  {}", stage.by_hand(job)));
    }
    page.say(&format!("\nlockgate: {}", stage.cli()));
    page.say(&format!("ClickHouse: {}", stage.clickhouse.url()));
    signals.wait()?;
    Ok(())
}
