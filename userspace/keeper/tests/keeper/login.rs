//! Who gets which credential, and in what form.

use lockgate_command::ConnectionId;
use lockgate_config::Bundle;
use lockgate_ipc::{Dialogue, Reply};

use crate::agent::{Agent, PASSWORD, Proxy, TestGate, bundle, login, until};
use crate::postgres::Server;
use crate::upstream::Upstream;

/// `orders-db` with TLS as said, each workload as the role of its name.
pub fn config(server: &Server, upstream: &str, user: &str) -> Bundle {
    let text = format!(
        "[[target]]
         name = 'orders-db'
         protocol = 'postgres'
         match = ['10.0.3.0/24:5432']
         tls = {{ upstream = '{upstream}', ca = '/ca.pem', server_name = 'db.internal' }}
         credentials = [
             {{ workload = 'report', user = '{user}', password = {{ file = '/x' }} }},
             {{ workload = 'wrong', user = '{user}', password = {{ file = '/y' }} }},
         ]
         [[target]]
         name = 'other-db'
         protocol = 'postgres'
         match = ['10.9.9.9:5432']
         credentials = [{{ workload = 'report', user = 'other' }}]"
    );
    let mut bundle = bundle(&text);
    bundle
        .certificates
        .insert("/ca.pem".into(), server.ca.clone());
    bundle
}

async fn agent(server: &Server, upstream: &str, user: &str) -> Agent {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let bundle = config(server, upstream, user);
    Agent::start_in(state, bundle, server.address, None).await
}

#[tokio::test]
async fn scram_with_a_real_server() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    let upstream = Upstream::plain(server.address).await;
    let mut session = upstream.log_in(&agent.proxy, 1).await.unwrap();
    assert_eq!(session.value("select current_user").await, "report");
}

#[tokio::test]
async fn scram_plus_binds_to_the_certificate() {
    let server = Server::start();
    let agent = agent(&server, "verify-full", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    let upstream = Upstream::tls(server.address, &server.ca, &server.certificate).await;
    let mut session = upstream.log_in(&agent.proxy, 1).await.unwrap();
    assert_eq!(session.value("select current_user").await, "report");
    // Bound to another certificate, as with somebody in between.
    agent.gate.attest(2, "report", "10.0.3.5:5432").await;
    let upstream = Upstream::tls(server.address, &server.ca, b"another").await;
    let error = upstream.log_in(&agent.proxy, 2).await.err().unwrap();
    assert!(error.contains("channel binding"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_own_error() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    agent.gate.attest(1, "wrong", "10.0.3.5:5432").await;
    let upstream = Upstream::plain(server.address).await;
    let error = upstream.log_in(&agent.proxy, 1).await.err().unwrap();
    assert!(error.contains("28P01"), "{error}");
}

#[tokio::test]
async fn md5_and_cleartext_go_to_a_verified_server_and_to_no_other() {
    let server = Server::start();
    for role in ["old", "older"] {
        let verified = agent(&server, "verify-full", role).await;
        verified.gate.attest(1, "report", "10.0.3.5:5432").await;
        let upstream = Upstream::tls(server.address, &server.ca, &server.certificate).await;
        let mut session = upstream.log_in(&verified.proxy, 1).await.unwrap();
        assert_eq!(session.value("select current_user").await, role);
        // The proxy says that it is not verified.
        verified.gate.attest(2, "report", "10.0.3.5:5432").await;
        let upstream = Upstream::plain(server.address).await;
        let error = upstream.log_in(&verified.proxy, 2).await.err().unwrap();
        assert!(error.contains("verify-full"), "{error}");
        for setting in ["disable", "verify-ca"] {
            // The proxy says that it is, but it is not configured to verify.
            let agent = agent(&server, setting, role).await;
            agent.gate.attest(1, "report", "10.0.3.5:5432").await;
            let upstream = Upstream::tls(server.address, &server.ca, &server.certificate).await;
            let error = upstream.log_in(&agent.proxy, 1).await.err().unwrap();
            assert!(error.contains("verify-full"), "{error}");
        }
    }
}

/// Everything that gives something away.
fn questions(connection: u64, target: &str) -> Vec<Dialogue> {
    let id = ConnectionId(connection);
    vec![
        login(connection, target),
        Dialogue::ScramStart {
            connection: id,
            channel_binding: None,
            binding_unoffered: false,
        },
        Dialogue::Password {
            connection: id,
            md5_salt: None,
            tls_verified: true,
        },
        Dialogue::Leaf {
            connection: id,
            target: target.into(),
            server_name: None,
        },
        Dialogue::Catalogue {
            connection: id,
            target: target.into(),
            database: "shop".into(),
            max_age_ms: 0,
        },
    ]
}

#[tokio::test]
async fn a_proxy_gets_nothing_for_what_is_not_its_own() {
    let server = Server::start();
    let agent = agent(&server, "verify-full", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    agent.gate.attest(2, "stranger", "10.0.3.5:5432").await;
    agent.gate.attest(3, "report", "10.9.9.9:5432").await;
    assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    for (connection, target, why) in [
        // Nobody said so.
        (9, "orders-db", "not attested"),
        // Attested, but for elsewhere.
        (1, "other-db", "not of target"),
        (3, "orders-db", "not of target"),
        (1, "nowhere", "no target"),
        // Another workload.
        (2, "orders-db", "no `credentials` entry"),
    ] {
        for (number, ask) in questions(connection, target).into_iter().enumerate() {
            // What is in a login follows from the login before it, which was
            // to the right target.
            let follows = matches!(number, 1 | 2);
            // A certificate is no credential: any client of the target may see it.
            let is_leaf = number == 3;
            if (connection == 1 && follows) || (connection == 2 && is_leaf) {
                continue;
            }
            let refused = agent.proxy.refused(ask).await;
            let expected = match follows {
                true if connection == 9 => "not attested",
                true => "",
                false => why,
            };
            assert!(
                refused.contains(expected),
                "{connection} {target}: {refused}"
            );
        }
    }
}

#[tokio::test]
async fn another_proxy_gets_nothing_for_a_connection_of_this_one() {
    let server = Server::start();
    let agent = agent(&server, "verify-full", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    let second = Proxy::connect(&agent.parent).await;
    for ask in questions(1, "orders-db") {
        let why = second.refused(ask).await;
        assert!(why.contains("another proxy"), "{why}");
    }
}

#[tokio::test]
async fn what_gate_took_back_is_refused_and_so_is_what_was_begun() {
    let server = Server::start();
    let agent = agent(&server, "verify-full", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    agent.gate.release(1).await;
    until("the release arrives", async || {
        (agent.status().await["attested"] == 0).then_some(())
    })
    .await;
    for ask in questions(1, "orders-db") {
        let why = agent.proxy.refused(ask).await;
        assert!(why.contains("not attested"), "{why}");
    }
}

#[tokio::test]
async fn a_new_gate_inherits_no_login_of_the_old_one() {
    let server = Server::start();
    let mut agent = agent(&server, "verify-full", "report").await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    agent.gate = TestGate::connect(&agent.parent, server.address).await;
    // The same number again, for somebody else.
    agent.gate.attest(1, "stranger", "10.0.3.5:5432").await;
    until("the new gate is there", async || {
        let status = agent.status().await;
        (status["attested"] == 1 && status["gate"] == true).then_some(())
    })
    .await;
    let password = Dialogue::Password {
        connection: ConnectionId(1),
        md5_salt: None,
        tls_verified: true,
    };
    agent.proxy.refused(password).await;
    let why = agent.proxy.refused(login(1, "orders-db")).await;
    assert!(why.contains("stranger"), "{why}");
}

/// The proxy may ask before gate's word has arrived: the two come by two ways.
#[tokio::test]
async fn a_question_waits_for_the_word_of_gate() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    let (reply, ()) = tokio::join!(agent.proxy.login(1), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    });
    assert!(matches!(reply, Reply::Login(_)), "{reply:?}");
    assert!(!format!("{reply:?}").contains(PASSWORD));
}
