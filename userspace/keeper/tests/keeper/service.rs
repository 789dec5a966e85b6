//! Orders of the parent, what is published, and what must not be.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use lockgate_command::ConnectionId;
use lockgate_ipc::{Dialogue, Order, Reply, to_memfd};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::{
    Agent, PASSWORD, Proxy, bundle, commit, login, prepare, prepare_raw, secrets, until,
};

const CONFIG: &str = "
    [[target]]
    name = 'orders-db'
    protocol = 'postgres'
    match = ['10.0.3.0/24:5432']
    credentials = [{ workload = 'report', user = 'report_ro', password = { file = '/x' } }]
";

fn nowhere() -> std::net::SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

async fn with_metrics() -> (Agent, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(tempfile::tempdir().unwrap());
    let agent = Agent::start_in(state, bundle(CONFIG), nowhere(), Some(listener)).await;
    (agent, address)
}

async fn http(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn metrics_are_scraped_and_nothing_else_is_served() {
    let (agent, address) = with_metrics().await;
    let numbers = json!({
        "gate": { "lease_held": true, "links": 9 },
        "proxy": { "verdicts": [
            { "workload": "report", "target": "orders-db", "allowed": 5, "denied": 2, "observed": 0 },
        ]},
    });
    let order = Order::Numbers(numbers.to_string());
    agent.parent.send(&order, None).await.unwrap();
    let text = until("the numbers have arrived", async || {
        let text = http(address, "GET /metrics").await;
        text.contains("lockgate_programs_attached 9")
            .then_some(text)
    })
    .await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("content-type: text/plain; version=0.0.4"));
    for line in [
        "# TYPE lockgate_commands_total counter",
        "lockgate_commands_total{workload=\"report\",target=\"orders-db\",verdict=\"denied\"} 2",
        "lockgate_lease_held 1",
        "lockgate_credentials 2",
        "lockgate_configuration_epoch 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Each sample has its HELP and TYPE before it (text format 0.0.4).
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    for sample in body.lines().filter(|line| !line.starts_with('#')) {
        let name = sample.split(['{', ' ']).next().unwrap();
        let before = &body[..body.find(sample).unwrap()];
        assert!(before.contains(&format!("# HELP {name} ")), "{sample}");
        assert!(before.contains(&format!("# TYPE {name} ")), "{sample}");
    }
    assert!(http(address, "GET /healthz").await.contains("200 OK"));
    assert!(http(address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(
        http(address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405")
    );
}

#[tokio::test]
async fn health_is_not_claimed_without_gate() {
    let (agent, address) = with_metrics().await;
    until("well", async || {
        let response = http(address, "GET /healthz").await;
        response.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
    drop(agent.gate);
    let response = until("ill", async || {
        let response = http(address, "GET /healthz").await;
        response.starts_with("HTTP/1.1 503").then_some(response)
    })
    .await;
    assert!(response.contains("gate"), "{response}");
}

#[tokio::test]
async fn slow_scrapers_do_not_shut_out_others_for_long() {
    let (_agent, address) = with_metrics().await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let start = std::time::Instant::now();
    assert!(
        http(address, "GET /metrics")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(20));
}

/// Every file below `folder` that has `needle` in it.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, needle));
        } else if std::fs::read(&path)
            .unwrap()
            .windows(needle.len())
            .any(|window| window == needle)
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn no_password_is_in_status_metrics_refusals_or_files() {
    let (agent, address) = with_metrics().await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    let mut said = format!("{:?}", agent.proxy.login(1).await);
    for ask in [
        login(2, "orders-db"),
        login(1, "nowhere"),
        Dialogue::Password {
            connection: ConnectionId(1),
            md5_salt: None,
            tls_verified: true,
        },
        Dialogue::Catalogue {
            connection: ConnectionId(1),
            target: "orders-db".into(),
            database: "shop".into(),
            max_age_ms: 0,
        },
    ] {
        said.push_str(&agent.proxy.refused(ask).await);
    }
    let status = agent.status().await;
    assert_eq!(status["credentials"], 2);
    assert_eq!(status["ca_sha256"].as_str().unwrap().len(), 64);
    said.push_str(&status.to_string());
    said.push_str(&http(address, "GET /metrics").await);
    // Secrets that are not what they should be are not quoted.
    let broken = format!("{{\"passwords\": {{\"orders-db\": \"{PASSWORD}\"}}}}");
    let broken = to_memfd("secrets", broken.as_bytes()).unwrap();
    let refused = prepare_raw(&agent.parent, &bundle(CONFIG), broken).await;
    said.push_str(&refused.unwrap_err());
    assert!(!said.contains(PASSWORD), "{said}");
    let state = agent.state.clone();
    agent.drain().await.unwrap();
    assert_eq!(files_with(state.path(), PASSWORD.as_bytes()).len(), 0);
    // The search does find what is there.
    assert_ne!(files_with(state.path(), b"keeper started").len(), 0);
}

#[tokio::test]
async fn a_configuration_is_refused_whole_and_the_one_before_goes_on() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    let own = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["db.internal".to_owned()]).unwrap();
    let certificate = names.self_signed(&own).unwrap();
    let mut changed = bundle(CONFIG);
    changed.epoch = 2;
    changed.config.targets[0].tls.certificate = Some("/chain.pem".into());
    changed
        .certificates
        .insert("/chain.pem".into(), certificate.pem());
    let with_key = |key: String| {
        let mut secrets = secrets();
        secrets.keys.insert("orders-db".into(), key.into());
        secrets
    };
    let foreign = KeyPair::generate().unwrap().serialize_pem();
    for bad in [secrets(), with_key(foreign)] {
        let why = prepare(&agent.parent, &changed, &bad).await.unwrap_err();
        assert!(why.contains("orders-db"), "{why}");
        agent.parent.send(&Order::Abort, None).await.unwrap();
        assert_eq!(agent.status().await["epoch"], 1);
        assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    }
    let good = with_key(own.serialize_pem());
    prepare(&agent.parent, &changed, &good).await.unwrap();
    assert_eq!(agent.status().await["epoch"], 1, "only prepared");
    commit(&agent.parent).await;
    assert_eq!(agent.status().await["epoch"], 2);
    let leaf = Dialogue::Leaf {
        connection: ConnectionId(1),
        target: "orders-db".into(),
        server_name: None,
    };
    match agent.proxy.ask(leaf).await.0 {
        Reply::Leaf(leaf) => assert_eq!(leaf.chain, [certificate.der().to_vec()]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_removed_target_is_served_no_more() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    assert!(matches!(agent.proxy.login(1).await, Reply::Login(_)));
    let mut without = bundle("");
    without.epoch = 2;
    prepare(&agent.parent, &without, &secrets()).await.unwrap();
    commit(&agent.parent).await;
    let why = agent.proxy.refused(login(1, "orders-db")).await;
    assert!(why.contains("no target"), "{why}");
}

#[tokio::test]
async fn the_host_ca_is_the_same_after_a_restart() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    let state = agent.state.clone();
    let first = agent.status().await["ca_sha256"].clone();
    agent.drain().await.unwrap();
    let again = Agent::start_in(state.clone(), bundle(CONFIG), nowhere(), None).await;
    assert_eq!(again.status().await["ca_sha256"], first);
    let key = std::fs::metadata(state.path().join("ca/host-ca.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_proxy_that_sends_rubbish_loses_its_channel_alone() {
    let agent = Agent::start(CONFIG, nowhere()).await;
    let good = Proxy::connect(&agent.parent).await;
    agent.proxy.send_rubbish().await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    assert!(matches!(good.login(1).await, Reply::Login(_)));
    until("it is recorded", async || {
        let rows = crate::agent::recorded(agent.state.path());
        rows.iter()
            .any(|row| {
                row.message
                    .as_deref()
                    .is_some_and(|what| what.contains("cannot be read"))
            })
            .then_some(())
    })
    .await;
}
