//! TLS and logins on both sides, with no client changed.

use lockgate_tests::{Agent, PostgresConfig, run, sh};

use crate::stage::{self, Stage};

fn tls_server(hba: &str) -> PostgresConfig {
    PostgresConfig {
        hba: hba.into(),
        tls_name: Some("db.internal".into()),
        ..PostgresConfig::default()
    }
}

/// A stage whose server has a certificate for `db.internal`, and an agent that
/// was told `tls` about it; `CA` stands for the server's own CA.
fn over_tls(hba: &str, tls: &str) -> Stage {
    let postgres = lockgate_tests::Postgres::start(&tls_server(hba)).unwrap();
    let tls = tls.replace("CA", &format!("{:?}", postgres.ca().display().to_string()));
    let agent = Agent::start(&stage::config(&postgres, &format!("tls = {{ {tls} }}"))).unwrap();
    Stage::over(agent, postgres)
}

const VERIFIED: &str = "upstream = \"verify-full\", ca = CA, server_name = \"db.internal\"";

#[test]
fn a_client_gets_tls_when_it_asks_and_none_when_it_does_not() {
    let stage = Stage::new();
    for (mode, encrypted) in [
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
    ] {
        let dsn = stage.dsn(&format!("sslmode={mode}"));
        let mut psql = stage.report.command("psql");
        psql.args([
            "-X",
            "-d",
            &dsn,
            "-c",
            "\\conninfo",
            "-c",
            "select count(*) from orders",
        ]);
        let output = run(&mut psql).unwrap();
        assert!(
            output.ok() && output.stdout.contains("10"),
            "{mode}: {output:?}"
        );
        assert_eq!(
            output.stdout.contains("SSL connection"),
            encrypted,
            "{mode}: {output:?}"
        );
    }
}

#[test]
fn the_host_ca_satisfies_clients_that_verify() {
    let stage = Stage::new();
    let found = sh(&format!(
        "find {} -name '*.crt' -o -name '*.pem'",
        stage.agent.path("run").display()
    ))
    .unwrap();
    let ca = found
        .lines()
        .next()
        .expect("the host CA's certificate is in the run folder");
    for mode in ["verify-ca", "verify-full"] {
        let dsn = stage.dsn(&format!("sslmode={mode} sslrootcert={ca}"));
        let output = stage
            .report
            .psql(&dsn, &["select count(*) from orders"])
            .unwrap();
        assert_eq!(output.stdout, "10\n", "{mode}: {output:?}");
    }
    let dsn = stage.dsn("sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt");
    let output = stage.report.psql(&dsn, &["select 1"]).unwrap();
    assert!(!output.ok(), "no other CA vouches for it: {output:?}");
}

#[test]
fn the_targets_own_certificate_is_shown_where_it_is_given() {
    let postgres =
        lockgate_tests::Postgres::start(&tls_server("hostssl all all all scram-sha-256\n"))
            .unwrap();
    let folder = postgres.data();
    let own = sh("mktemp -d").unwrap();
    let own = own.trim();
    sh(&format!(
        "cp {0}/server.crt {0}/server.key {own}; chmod 600 {own}/server.key",
        folder.display()
    ))
    .unwrap();
    let tls = format!(
        "tls = {{ upstream = \"verify-full\", ca = {:?}, server_name = \"db.internal\", certificate = \"{own}/server.crt\", key = \"{own}/server.key\" }}",
        postgres.ca().display().to_string()
    );
    let agent = Agent::start(&stage::config(&postgres, &tls)).unwrap();
    let ca = postgres.ca();
    let stage = Stage::over(agent, postgres);
    // As the client has always verified it: by name, at its address.
    let dsn = format!(
        "host=db.internal hostaddr={} dbname=shop user=x sslmode=verify-full sslrootcert={}",
        stage.postgres.address(),
        ca.display()
    );
    let output = stage
        .report
        .psql(&dsn, &["select count(*) from orders"])
        .unwrap();
    sh(&format!("rm -r {own}")).unwrap();
    assert_eq!(output.stdout, "10\n", "{output:?}");
}

#[test]
fn a_clients_certificate_is_accepted_and_never_needed() {
    let stage = over_tls("hostssl all all all scram-sha-256\n", VERIFIED);
    let folder = stage.postgres.ca().parent().unwrap().to_owned();
    let at = folder.display();
    sh(&format!(
        "cd {at}; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=jane' -keyout jane.key -out jane.crt 2>/dev/null; chmod 600 jane.key"
    ))
    .unwrap();
    let dsn = stage.dsn(&format!(
        "sslmode=require sslcert={at}/jane.crt sslkey={at}/jane.key"
    ));
    let output = stage
        .report
        .psql(&dsn, &["select count(*) from orders"])
        .unwrap();
    assert_eq!(output.stdout, "10\n", "{output:?}");
}

#[test]
fn the_server_is_verified_in_full() {
    // The server takes logins over TLS alone.
    let stage = over_tls("hostssl all all all scram-sha-256\n", VERIFIED);
    let output = stage.psql(&stage.report, &["select count(*) from orders"]);
    assert_eq!(output.stdout, "10\n", "{output:?}");
}

#[test]
fn a_server_of_another_name_gets_no_login() {
    let stage = over_tls(
        "hostssl all all all scram-sha-256\n",
        "upstream = \"verify-full\", ca = CA, server_name = \"other.internal\"",
    );
    no_login(&stage, "certificate");
}

#[test]
fn a_server_of_another_ca_gets_no_login() {
    let stranger =
        lockgate_tests::Postgres::start(&tls_server("host all all all scram-sha-256\n")).unwrap();
    let tls = format!(
        "upstream = \"verify-full\", ca = {:?}, server_name = \"db.internal\"",
        stranger.ca().display().to_string()
    );
    let stage = over_tls("hostssl all all all scram-sha-256\n", &tls);
    no_login(&stage, "certificate");
}

#[test]
fn a_server_without_tls_gets_no_login_where_tls_is_asked_for() {
    let postgres = lockgate_tests::Postgres::start(&PostgresConfig::default()).unwrap();
    let ca = lockgate_tests::Postgres::start(&tls_server("")).unwrap();
    let tls = format!(
        "tls = {{ upstream = \"verify-full\", ca = {:?}, server_name = \"db.internal\" }}",
        ca.ca().display().to_string()
    );
    let agent = Agent::start(&stage::config(&postgres, &tls)).unwrap();
    no_login(&Stage::over(agent, postgres), "TLS");
}

/// The client is told, the operator finds it in the record, and the server
/// never saw a login.
fn no_login(stage: &Stage, word: &str) {
    // One connection: with `prefer`, libpq would try a second time.
    let dsn = stage.dsn("sslmode=disable");
    let output = stage
        .report
        .psql(&dsn, &["select count(*) from orders"])
        .unwrap();
    assert!(
        !output.ok() && output.stderr.contains("lockgate"),
        "{output:?}"
    );
    assert!(output.stderr.contains(word), "{output:?}");
    let refused = stage.agent.events(&["--workload", "report"], 2).unwrap();
    assert!(
        refused.iter().any(|event| event["kind"] == "refused"),
        "{refused:?}"
    );
    assert!(
        !stage.agent.log().contains("s3cret"),
        "{}",
        stage.agent.log()
    );
}

#[test]
fn a_password_goes_to_a_verified_server_only() {
    for method in ["password", "md5"] {
        // An md5 line asks for SCRAM where the role's secret is a SCRAM one.
        let config = PostgresConfig {
            settings: "password_encryption = 'md5'\n".into(),
            ..PostgresConfig::default()
        };
        let rehash =
            "set password_encryption = 'md5'; alter role report_ro password 's3cret-report_ro'";

        let clear = Stage::with(
            "",
            &PostgresConfig {
                hba: format!("host all all all {method}\n"),
                ..config.clone()
            },
        );
        clear.postgres.admin("shop", rehash).unwrap();
        let output = clear.psql(&clear.report, &["select count(*) from orders"]);
        assert!(
            !output.ok() && output.stderr.contains("lockgate"),
            "{method} in clear: {output:?}"
        );

        let verified = over_tls(&format!("hostssl all all all {method}\n"), VERIFIED);
        verified.postgres.admin("shop", rehash).unwrap();
        let output = verified.psql(&verified.report, &["select count(*) from orders"]);
        assert_eq!(output.stdout, "10\n", "{method} over TLS: {output:?}");
    }
}

#[test]
fn a_wrong_password_is_the_operators_affair() {
    let stage = Stage::new();
    stage
        .postgres
        .admin("shop", "alter role report_ro password 'changed'")
        .unwrap();
    let output = stage.psql(&stage.report, &["select 1"]);
    assert!(
        output.stderr.contains("refused lockgate's login"),
        "{output:?}"
    );
    stage.agent.write_secret("report", "changed").unwrap();
    let reloaded = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(reloaded.ok(), "{reloaded:?}");
    let output = stage.psql(&stage.report, &["select 1"]);
    assert_eq!(output.stdout, "1\n", "{output:?}");
}

/// libpq 17 and newer, as psycopg brings it along.
#[test]
fn what_a_client_requires_of_its_login() {
    let stage = Stage::new();
    let program = "
print(psycopg.pq.version() >= 170000)
for more in sys.argv[2:]:
    try:
        with psycopg.connect(dsn + more) as c:
            print(more, c.execute('select count(*) from orders').fetchone()[0], c.pgconn.ssl_in_use)
    except psycopg.OperationalError as e:
        print(more, 'fails:', str(e).split('failed: ')[-1])
";
    let head = "import psycopg, sys\ndsn = sys.argv[1]\n";
    let settings = [
        "require_auth=none",
        "require_auth=!password",
        "sslmode=require sslnegotiation=direct",
        "require_auth=scram-sha-256",
        "channel_binding=require sslmode=require",
    ];
    let dsn = stage.dsn("");
    let arguments = [&[&*dsn][..], &settings].concat();
    let output = stage
        .report
        .python(&format!("{head}{program}"), &arguments)
        .unwrap();
    assert_eq!(
        output.stdout.lines().collect::<Vec<_>>(),
        [
            "True",
            "require_auth=none 10 True",
            "require_auth=!password 10 True",
            "sslmode=require sslnegotiation=direct 10 True",
            "require_auth=scram-sha-256 fails: server did not complete authentication",
            "channel_binding=require sslmode=require fails: channel binding required, but server authenticated client without channel binding",
        ],
        "{output:?}"
    );
}

#[test]
fn gss_encryption_is_declined_and_required_gss_fails() {
    let stage = Stage::new();
    let preferred = stage
        .report
        .psql(&stage.dsn("gssencmode=prefer"), &["select 1"])
        .unwrap();
    assert_eq!(preferred.stdout, "1\n", "{preferred:?}");
    // As a client without a ticket sends it: libpq does so only with one.
    let program = "
import socket, struct
s = socket.create_connection((sys.argv[2], 5432), 5)
s.sendall(struct.pack('!ii', 8, 80877104)); print(s.recv(1))";
    let output = stage
        .report
        .python(
            &format!("import sys\n{program}"),
            &["", stage.postgres.address()],
        )
        .unwrap();
    assert_eq!(output.stdout, "b'N'\n", "{output:?}");
}

#[test]
fn a_cancel_request_reaches_the_callers_own_session_alone() {
    let stage = Stage::new();
    let program = r#"
import threading, time, socket, struct
c = psycopg.connect(dsn, autocommit=True)
def cancel(): time.sleep(0.5); c.cancel()
threading.Thread(target=cancel).start()
begun = time.time()
try: c.execute("select count(*) from generate_series(1, 100000000000)")
except psycopg.errors.QueryCanceled as e: print(e.sqlstate, time.time() - begun < 10)
print(c.execute("select 1").fetchone()[0])
"#;
    let output = stage.python(&stage.report, program);
    assert_eq!(output.stdout, "57014 True\n1\n", "{output:?}");

    // Another workload, with a key it made up: nothing reaches the server.
    let program = r#"
import socket, struct
s = socket.create_connection((sys.argv[2], 5432), 5)
s.sendall(struct.pack('!iiii', 16, 80877102, 4711, 4712)); print(s.recv(1))
"#;
    let output = stage
        .app
        .python(
            &format!("import sys\n{program}"),
            &["", stage.postgres.address()],
        )
        .unwrap();
    assert!(
        output.stdout == "b''\n" || output.stderr.contains("reset"),
        "{output:?}"
    );
    assert!(
        !stage.postgres.log().contains("4711"),
        "the server was not asked"
    );
}
