//! Trust on both sides: what clients insist on, and what the server must prove.

use lockgate_tests::{Agent, Postgres, PostgresConfig};

use crate::stage::{self, Stage};

fn ask(stage: &Stage, more: &str) -> lockgate_tests::Output {
    stage
        .report
        .psql(&stage.dsn(more), &["select 'hello'"])
        .unwrap()
}

#[test]
fn every_sslmode_of_libpq_works_once_the_host_ca_is_trusted() {
    let stage = Stage::new();
    let ca = stage.agent.path("run/host-ca.pem");
    let ca = ca.display();
    for more in [
        "sslmode=disable".to_owned(),
        "sslmode=allow".into(),
        "sslmode=prefer".into(),
        "sslmode=require".into(),
        format!("sslmode=verify-ca sslrootcert={ca}"),
        format!("sslmode=verify-full sslrootcert={ca}"),
        "gssencmode=prefer".into(),
    ] {
        let output = ask(&stage, &more);
        assert_eq!(output.stdout, "hello\n", "{more}: {output:?}");
    }
    let wrong = lockgate_tests::sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout /dev/null -out {} 2>/dev/null",
        stage.agent.path("other.pem").display()
    ));
    wrong.unwrap();
    let output = ask(
        &stage,
        &format!(
            "sslmode=verify-full sslrootcert={}",
            stage.agent.path("other.pem").display()
        ),
    );
    assert!(
        output.stderr.contains("certificate verify failed"),
        "{output:?}"
    );
}

#[test]
fn a_client_certificate_is_asked_for_and_not_needed() {
    let stage = Stage::new();
    let at = stage.agent.path("client");
    let at = at.display();
    lockgate_tests::sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=me -keyout {at}.key -out {at}.crt 2>/dev/null; chmod 600 {at}.key"
    ))
    .unwrap();
    let output = ask(
        &stage,
        &format!("sslmode=require sslcert={at}.crt sslkey={at}.key"),
    );
    assert_eq!(output.stdout, "hello\n", "{output:?}");
}

#[test]
fn direct_tls_needs_its_name() {
    let stage = Stage::new();
    let program = "
import socket, ssl, struct, sys
ctx = ssl.create_default_context(cafile=sys.argv[2])
if sys.argv[3]: ctx.set_alpn_protocols([sys.argv[3]])
s = socket.create_connection((sys.argv[1], 5432), timeout=5)
t = ctx.wrap_socket(s, server_hostname=sys.argv[1])
body = struct.pack('!I', 196608) + b'user\\0x\\0database\\0shop\\0\\0'
t.sendall(struct.pack('!I', len(body) + 4) + body)
print(t.recv(1))";
    let ca = stage.agent.path("run/host-ca.pem").display().to_string();
    let with = stage
        .report
        .python(program, &[stage.postgres.address(), &ca, "postgresql"])
        .unwrap();
    assert_eq!(with.stdout, "b'R'\n", "{with:?}");
    let without = stage
        .report
        .python(program, &[stage.postgres.address(), &ca, ""])
        .unwrap();
    assert_ne!(without.stdout, "b'R'\n", "{without:?}");
}

/// An agent before a server with TLS, with these settings towards it.
fn upstream(tls: &str, server: &PostgresConfig) -> Stage {
    let postgres = Postgres::start(server).unwrap();
    let ca = postgres.ca().display().to_string();
    let more = format!("tls = {{ {} }}", tls.replace("CA", &ca));
    let config = stage::config(&postgres, &more);
    Stage::over(Agent::start(&config).unwrap(), postgres)
}

fn with_tls(hba: &str) -> PostgresConfig {
    PostgresConfig {
        hba: hba.into(),
        tls_name: Some("db.internal".into()),
        ..PostgresConfig::default()
    }
}

#[test]
fn the_server_is_verified_and_scram_is_bound_to_it() {
    let server = with_tls("hostssl all all all scram-sha-256\n");
    let right = "upstream = \"verify-full\", ca = \"CA\", server_name = \"db.internal\"";
    let stage = upstream(right, &server);
    let output = ask(&stage, "");
    assert_eq!(output.stdout, "hello\n", "{output:?}");
    let used = stage
        .report
        .psql(
            &stage.dsn(""),
            &["select ssl from pg_stat_ssl where pid = pg_backend_pid()"],
        )
        .unwrap();
    assert!(
        used.stdout == "t\n" || used.stderr.contains("inspect"),
        "{used:?}"
    );

    let wrong_name = upstream(
        "upstream = \"verify-full\", ca = \"CA\", server_name = \"other.internal\"",
        &server,
    );
    let output = ask(&wrong_name, "");
    assert!(
        output.stderr.contains("TLS with the server failed"),
        "{output:?}"
    );

    let name_ignored = upstream("upstream = \"verify-ca\", ca = \"CA\"", &server);
    assert_eq!(ask(&name_ignored, "").stdout, "hello\n");

    let other_ca = upstream("upstream = \"verify-ca\", ca = \"CA\"", &server);
    let stranger = Postgres::start(&server).unwrap();
    let mut config = stage::config(
        &other_ca.postgres,
        &format!(
            "tls = {{ upstream = \"verify-ca\", ca = {:?} }}",
            stranger.ca()
        ),
    );
    config.audit = String::new();
    other_ca.agent.write(&config).unwrap();
    assert!(other_ca.agent.lockgate(&["reload"]).unwrap().ok());
    let output = ask(&other_ca, "");
    assert!(
        output.stderr.contains("TLS with the server failed"),
        "{output:?}"
    );
}

#[test]
fn a_password_leaves_only_over_verified_tls() {
    for method in ["password", "md5"] {
        // A verifier that md5 can use.
        let settings = if method == "md5" {
            "password_encryption = md5\n"
        } else {
            ""
        };
        let clear = PostgresConfig {
            hba: format!("host all all all {method}\n"),
            settings: settings.into(),
            ..PostgresConfig::default()
        };
        let stage = Stage::with("", &clear);
        let output = ask(&stage, "");
        assert!(output.stderr.contains("no login"), "{method}: {output:?}");
        assert!(
            stage.agent.log().contains("verify-full"),
            "the operator is told how"
        );

        let mut server = with_tls(&format!("hostssl all all all {method}\n"));
        server.settings = settings.into();
        let stage = upstream(
            "upstream = \"verify-full\", ca = \"CA\", server_name = \"db.internal\"",
            &server,
        );
        let output = ask(&stage, "");
        assert_eq!(
            output.stdout,
            "hello\n",
            "{method}: {output:?}\n{}",
            stage.agent.log()
        );
    }
}

#[test]
fn cancel_reaches_the_callers_own_session_only() {
    let stage = Stage::new();
    let program = "
import psycopg, sys, threading, time, socket, struct
c = psycopg.connect(sys.argv[1], autocommit=True)
t = threading.Timer(0.5, c.cancel); t.start()
begun = time.time()
try: c.execute('select count(*) from generate_series(1, 2000000000)')
except psycopg.Error as e: print(e.sqlstate, time.time() - begun < 15)
print(c.execute('select 1').fetchone()[0])";
    let output = stage.report.python(program, &[&stage.dsn("")]).unwrap();
    assert_eq!(output.stdout, "57014 True\n1\n", "{output:?}");

    // A key that was made up reaches nobody.
    let program = "
import psycopg, sys, socket, struct, threading
c = psycopg.connect(sys.argv[1], autocommit=True)
def forge():
    s = socket.create_connection((sys.argv[2], 5432), timeout=5)
    s.sendall(struct.pack('!IIII', 16, 80877102, c.info.backend_pid, 12345)); s.recv(1)
threading.Timer(0.3, forge).start()
c.execute('select pg_sleep(1)'); print('slept')";
    let output = stage
        .report
        .python(program, &[&stage.dsn(""), stage.postgres.address()])
        .unwrap();
    assert!(
        output.stdout.contains("slept") || output.stderr.contains("pg_sleep"),
        "{output:?}"
    );
}
