//! Catalogues of a real server, read over sockets that gate dialled.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use lockgate_command::ConnectionId;
use lockgate_ipc::{Dialogue, Reply, from_memfd};
use lockgate_sql::Catalogue;

use crate::agent::{Agent, PASSWORD, Proxy, TestGate, until};
use crate::login::config;
use crate::postgres::Server;

async fn agent(server: &Server, upstream: &str, user: &str) -> Agent {
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let bundle = config(server, upstream, user);
    let agent = Agent::start_in(state, bundle, server.address, None).await;
    agent.gate.attest(1, "report", "10.0.3.5:5432").await;
    agent
}

fn ask(connection: u64, database: &str, max_age_ms: u32) -> Dialogue {
    Dialogue::Catalogue {
        connection: ConnectionId(connection),
        target: "orders-db".into(),
        database: database.into(),
        max_age_ms,
    }
}

async fn read(proxy: &Proxy, connection: u64, database: &str, max_age_ms: u32) -> Catalogue {
    match proxy.ask(ask(connection, database, max_age_ms)).await {
        (Reply::Catalogue { epoch }, Some(fd)) => {
            let catalogue: Catalogue = postcard::from_bytes(&from_memfd(fd).unwrap()).unwrap();
            assert_eq!(catalogue.epoch, epoch);
            catalogue
        }
        (reply, _) => panic!("no catalogue: {reply:?}"),
    }
}

fn has(catalogue: &Catalogue, relation: &str) -> bool {
    catalogue.relation("public", relation).is_some()
}

#[tokio::test]
async fn a_catalogue_follows_what_is_committed() {
    let server = Server::start();
    server.sql_in("shop", "create table orders (id int, item text)");
    for upstream in ["disable", "verify-ca", "verify-full"] {
        let agent = agent(&server, upstream, "report").await;
        let first = read(&agent.proxy, 1, "shop", 0).await;
        assert!(has(&first, "orders") && !has(&first, "invoices"));
        let same = read(&agent.proxy, 1, "shop", 0).await;
        assert_eq!(same.epoch, first.epoch, "nothing has changed");
        server.sql_in("shop", "create table invoices (id int)");
        // What was seen a moment ago is good enough for who says so.
        let old = read(&agent.proxy, 1, "shop", 3_600_000).await;
        assert_eq!(old.epoch, first.epoch);
        let new = read(&agent.proxy, 1, "shop", 0).await;
        assert!(has(&new, "orders") && has(&new, "invoices"));
        assert!(new.epoch > first.epoch);
        server.sql_in("shop", "drop table invoices");
        let dials = agent.gate.dials.load(SeqCst);
        assert_eq!(dials, 1, "one connection for all of it");
    }
}

#[tokio::test]
async fn all_who_ask_at_the_same_time_share_one_reading() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    let questions = (0..40).map(|_| read(&agent.proxy, 1, "shop", 0));
    // Polled together: all forty are under way before the first is answered.
    let epochs = futures_util::future::join_all(questions).await;
    assert!(epochs.iter().all(|read| read.epoch == epochs[0].epoch));
    assert_eq!(agent.gate.dials.load(SeqCst), 1);
    let _ = read(&agent.proxy, 1, "postgres", 0).await;
    assert_eq!(
        agent.gate.dials.load(SeqCst),
        2,
        "another database is another one"
    );
}

#[tokio::test]
async fn two_servers_of_one_target_have_a_catalogue_each() {
    let (one, two) = (Server::start(), Server::start());
    one.sql_in("shop", "create table only_here (id int)");
    let agent = agent(&one, "disable", "report").await;
    agent.gate.attest(2, "report", "10.0.3.6:5432").await;
    let place = (ConnectionId(2), two.address);
    agent.gate.places.lock().unwrap().insert(place.0, place.1);
    assert!(has(
        &read(&agent.proxy, 1, "shop", 60_000).await,
        "only_here"
    ));
    assert!(!has(
        &read(&agent.proxy, 2, "shop", 60_000).await,
        "only_here"
    ));
}

#[tokio::test]
async fn a_server_that_is_not_verified_never_sees_the_password() {
    let server = Server::start();
    for role in ["old", "older"] {
        for upstream in ["disable", "verify-ca"] {
            let agent = agent(&server, upstream, role).await;
            let why = agent.proxy.refused(ask(1, "shop", 0)).await;
            assert!(why.contains("verify-full"), "{why}");
        }
        let agent = agent(&server, "verify-full", role).await;
        let _ = read(&agent.proxy, 1, "shop", 0).await;
    }
    assert!(!server.log().contains(PASSWORD));
}

#[tokio::test]
async fn a_server_with_another_certificate_is_refused() {
    let (server, other) = (Server::start(), Server::start());
    let agent = agent(&server, "verify-full", "report").await;
    let place = (ConnectionId(1), other.address);
    agent.gate.places.lock().unwrap().insert(place.0, place.1);
    let why = agent.proxy.refused(ask(1, "shop", 0)).await;
    assert!(why.contains("certificate"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_can_be_read_later() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    let why = agent.proxy.refused(ask(1, "attic", 0)).await;
    assert!(why.contains("\"attic\" does not exist"), "{why}");
    let status = agent.status().await;
    let known = status["catalogues"].as_array().unwrap();
    assert!(known.is_empty(), "clients could name ever more: {status}");
    server.sql("create database attic");
    let _ = read(&agent.proxy, 1, "attic", 0).await;
    // Upstream away.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    agent
        .gate
        .places
        .lock()
        .unwrap()
        .insert(ConnectionId(1), nobody);
    let why = agent.proxy.refused(ask(1, "shop", 0)).await;
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_made_anew() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    let first = read(&agent.proxy, 1, "shop", 0).await;
    server.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'lockgate catalogue'",
    );
    let second = read(&agent.proxy, 1, "shop", 0).await;
    assert_eq!(second.epoch, first.epoch);
    assert_eq!(agent.gate.dials.load(SeqCst), 2);
}

#[tokio::test]
async fn a_silent_server_holds_nobody_for_long() {
    let server = Server::start();
    let agent = agent(&server, "disable", "report").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = (ConnectionId(1), silent.local_addr().unwrap());
    agent.gate.places.lock().unwrap().insert(place.0, place.1);
    agent.gate.attest(2, "report", "10.0.3.6:5432").await;
    let start = std::time::Instant::now();
    let (why, _) = tokio::join!(
        agent.proxy.refused(ask(1, "shop", 0)),
        // Another server is not held up meanwhile.
        async {
            let _ = read(&agent.proxy, 2, "shop", 0).await;
            assert!(start.elapsed() < Duration::from_secs(6));
        }
    );
    assert!(why.contains("did not answer"), "{why}");
    assert!(start.elapsed() < Duration::from_secs(11));
}

#[tokio::test]
async fn a_session_keeps_its_catalogue_when_gate_is_another_one() {
    let server = Server::start();
    let mut agent = agent(&server, "disable", "report").await;
    let _ = read(&agent.proxy, 1, "shop", 0).await;
    agent.gate = TestGate::connect(&agent.parent, server.address).await;
    until("the new gate is there", async || {
        (agent.status().await["attested"] == 0).then_some(())
    })
    .await;
    server.sql_in("shop", "create table later (id int)");
    assert!(has(&read(&agent.proxy, 1, "shop", 0).await, "later"));
}
