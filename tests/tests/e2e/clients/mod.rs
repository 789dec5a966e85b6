//! Drivers and tools, unmodified. Each runs a script of its own twice, directly
//! and behind lockgate: it sees the same, and nothing is denied. Then it tries
//! what no policy permits: it is told in its own way, and goes on.

use std::process::Command;

use lockgate_tests::{root, run};
use tempfile::TempDir;

mod backup;
mod harmless;
mod host;

use host::{Client, Host, POLICIES, Who};

/// Temporary tables are tables: who makes some is permitted to.
const TEMPORARY_TABLES: &str = r#"
@id("app-has-temporary-tables")
permit (principal == Workload::"app", action in [Action::"create", Action::"drop"], resource in Schema::"orders-db/shop/pg_temp");
"#;

#[test]
fn tokio_postgres() {
    let program = std::env::current_exe().unwrap();
    let examples = program.ancestors().nth(2).unwrap().join("examples");
    let program = examples.join("tokio_postgres_client");
    assert!(
        program.exists(),
        "`cargo xtask test clients` builds {}",
        program.display()
    );
    let client = |what| Client::new(&program, &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        r#"
autocommit Some(SqlState(E42501)) lockgate: no policy permits
prepared Some(SqlState(E42501)) lockgate: no policy permits
4
transaction Some(SqlState(E42501))
then Some(SqlState(E25P02))
4"#,
    );
}

#[test]
fn psql() {
    let host = Host::with(&[POLICIES, TEMPORARY_TABLES].concat(), "");
    let script = Client::new("psql", &["-X"]).reads("psql.sql");
    let script = script.volatile(&["(every 0.1s)", "server process with PID"]);
    host.works_the_same(&[(&script, Who::App)]);
    host.is_told(
        &Client::new("psql", &["-XqAt"]).reads("psql_denied.sql"),
        "
autocommit 42501
4
transaction 42501
then 25P02
4
several 42501",
    );
}

#[test]
fn psycopg_3() {
    let client = |what| Client::python("psycopg3_client.py", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit InsufficientPrivilege 42501 lockgate: no policy permits
(4,)
pipeline InsufficientPrivilege 42501
(1,) (4,)
transaction InsufficientPrivilege 42501
InFailedSqlTransaction 25P02
(4,)",
    );
}

#[test]
fn psycopg2() {
    let client = |what| Client::python("psycopg2_client.py", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit InsufficientPrivilege 42501 lockgate: no policy permits
(4,)
transaction InsufficientPrivilege 42501
InFailedSqlTransaction 25P02
(4,)",
    );
}

#[test]
fn asyncpg() {
    let client = |what| Client::python("asyncpg_client.py", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit InsufficientPrivilegeError 42501 lockgate: no policy permits
prepared InsufficientPrivilegeError 42501
4
transaction InsufficientPrivilegeError 42501
InFailedSQLTransactionError 25P02
4",
    );
}

#[test]
fn sqlalchemy() {
    let client = |what| Client::python("sqlalchemy_client.py", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit InsufficientPrivilege 42501 lockgate: no policy permits
4
transaction InsufficientPrivilege 42501 False
InFailedSqlTransaction 25P02
4",
    );
}

#[test]
fn django() {
    let client = |what| Client::python("django_client.py", &[what]);
    let host = Host::new();
    host.works_the_same(&[
        (&client("migrate"), Who::Owner),
        (&client("work"), Who::App),
    ]);
    host.is_told(
        &client("denied"),
        "
autocommit ProgrammingError 42501 lockgate: no policy permits
4
transaction ProgrammingError 42501
InternalError 25P02
4",
    );
}

#[test]
fn node_postgres() {
    let client = |what| Client::node("node_postgres.cjs", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit DatabaseError 42501 lockgate: no policy permits
autocommit DatabaseError 42501 lockgate: no policy permits
[ { count: '4' } ]
transaction DatabaseError 42501
25P02
[ { count: '4' } ]",
    );
}

#[test]
fn drizzle_and_postgres_js() {
    let client = |what| Client::node("drizzle.cjs", &[what]);
    let host = Host::new();
    host.works_the_same(&[(&client("work"), Who::App)]);
    host.is_told(
        &client("denied"),
        "
autocommit DrizzleQueryError 42501 lockgate: no policy permits
4
transaction DrizzleQueryError 42501
25P02
4
postgres.js PostgresError 42501
4",
    );
}

/// pgjdbc's script, compiled.
struct Jdbc {
    classes: TempDir,
}

impl Jdbc {
    const JAR: &str = "/usr/share/java/postgresql.jar";

    fn new() -> Self {
        let classes = tempfile::tempdir().unwrap();
        let mut compiler = Command::new("ecj");
        compiler
            .args(["-proc:none", "-17", "-cp", Self::JAR, "-d"])
            .arg(classes.path())
            .arg(host::file("Jdbc.java"));
        let output = run(&mut compiler).unwrap();
        assert!(output.ok(), "{output:?}");
        Self { classes }
    }

    fn client(&self, what: &str) -> Client {
        let path = format!("{}:{}", self.classes.path().display(), Self::JAR);
        Client::new(
            "java",
            &["-XX:TieredStopAtLevel=1", "-cp", &path, "Jdbc", what],
        )
    }
}

#[test]
fn pgjdbc() {
    let script = Jdbc::new();
    let host = Host::new();
    host.works_the_same(&[(&script.client("work"), Who::App)]);
    host.is_told(
        &script.client("denied"),
        "
autocommit PSQLException 42501 ERROR: lockgate: no policy permits
4|
1 rows
transaction PSQLException 42501 ERROR: lockgate: no policy permits
then PSQLException 25P02 ERROR: current transaction is abor
4|
1 rows
batch BatchUpdateException 42501
4|
1 rows",
    );
}

/// sqlx's program, which is compiled apart from the workspace.
fn sqlx_client(what: &str) -> Client {
    let target = root().join("target/sqlx");
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--manifest-path",
        ])
        .arg(host::file("sqlx/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    let output = run(&mut cargo).unwrap();
    assert!(output.ok(), "{output:?}");
    Client::new(target.join("release/sqlx-client"), &[what])
}

#[test]
fn sqlx() {
    let host = Host::new();
    host.works_the_same(&[(&sqlx_client("work"), Who::App)]);
    host.is_told(
        &sqlx_client("denied"),
        "
autocommit 42501 None lockgate: no policy permits
prepared 42501 None lockgate: no policy permits
4
transaction 42501 None lockgate: no policy permits
transaction 25P02 None current transaction is abor
4",
    );
}

/// pgx's program, by the Go that is unpacked beside the other drivers.
fn pgx_client(what: &str) -> Client {
    let go = root().join("target/tools/go/usr");
    let target = root().join("target/pgx");
    let mut build = Command::new(go.join("lib/go-1.19/bin/go"));
    build
        .args(["build", "-o"])
        .arg(target.join("pgx-client"))
        .current_dir(host::file("pgx"))
        .env("GOROOT", go.join("lib/go-1.19"))
        .env("GOPATH", go.join("share/gocode"))
        .env("GOCACHE", target.join("cache"))
        .env("GOENV", "off")
        .env("GOFLAGS", "")
        // What it is built from is there: nothing is to be downloaded.
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", "0");
    let output = run(&mut build).unwrap();
    assert!(output.ok(), "{output:?}");
    Client::new(target.join("pgx-client"), &[what])
}

#[test]
fn pgx() {
    let host = Host::new();
    host.works_the_same(&[(&pgx_client("work"), Who::App)]);
    let told = ["prepared", "described", "uncached", "simple"].map(|mode| {
        format!(
            "\
{mode} 42501 \"\" lockgate: no policy permits 4
transaction 42501 \"\" lockgate: no policy permits
transaction 25P02 \"\" current transaction is abor
batch 42501 \"\" lockgate: no policy permits 4
"
        )
    });
    host.is_told(
        &pgx_client("denied"),
        &(told.concat() + "copy 42501 \"\" lockgate: no policy permits 4"),
    );
}

#[test]
fn pgbench() {
    let host = Host::new();
    let initialise = Client::new("pgbench", &["-i", "-q", "--foreign-keys"]);
    let output = host.intercepted(&initialise, Who::Owner);
    assert!(output.ok(), "{output:?}\n{:#?}", host.denials());
    for mode in ["simple", "extended", "prepared"] {
        let options = ["-n", "-c", "4", "-j", "2", "-t", "100", "-M", mode];
        let output = host.intercepted(&Client::new("pgbench", &options), Who::App);
        assert!(
            output
                .stdout
                .contains("number of transactions actually processed: 400/400"),
            "{output:?}"
        );
    }
    let totals = "select (select sum(bbalance) from pgbench_branches) = sum(delta), \
                  (select sum(abalance) from pgbench_accounts) = sum(delta), \
                  (select sum(tbalance) from pgbench_tellers) = sum(delta), count(*) \
                  from pgbench_history";
    assert_eq!(host.postgres.admin("shop", totals).unwrap(), "t|t|t|1200");
    let denials = host.denials();
    assert!(denials.is_empty(), "{denials:#?}");

    let script = host.agent.path("truncate.sql");
    std::fs::write(&script, "truncate pgbench_history;\n").unwrap();
    let script = script.display().to_string();
    let output = host.intercepted(&Client::new("pgbench", &["-n", "-f", &script]), Who::App);
    assert!(
        output
            .stderr
            .contains("lockgate: no policy permits `truncate`"),
        "{output:?}"
    );
    assert_eq!(host.postgres.count("pgbench_history").unwrap(), 1200);
}

#[test]
fn what_dbeaver_asks() {
    let client = Client::python(
        "metadata.py",
        &[&host::file("metadata/dbeaver.sql").display().to_string()],
    );
    Host::new().works_the_same(&[(&client, Who::App)]);
}

#[test]
fn what_metabase_asks() {
    let client = Client::python(
        "metadata.py",
        &[&host::file("metadata/metabase.sql").display().to_string()],
    );
    Host::new().works_the_same(&[(&client, Who::Report)]);
}
