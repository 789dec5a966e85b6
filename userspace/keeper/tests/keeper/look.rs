//! What operators ask about databases.

use std::net::SocketAddr;

use lockgate_ipc::{Channel, Look, Looked, Order, Wanted, from_memfd, pair};
use lockgate_sql::Catalogue;
use serde_json::Value;

use crate::agent::{Agent, PASSWORD};
use crate::login::config;
use crate::postgres::Server;

async fn agent(server: &Server) -> Agent {
    let mut bundle = config(server, "verify-full", "report");
    let places = &mut bundle.config.targets[0].places;
    places.push(server.address.to_string().parse().unwrap());
    let state = std::sync::Arc::new(tempfile::tempdir().unwrap());
    Agent::start_in(state, bundle, server.address, None).await
}

fn question(workload: &str, server: Option<SocketAddr>, what: Wanted) -> Look {
    Look {
        target: "orders-db".into(),
        workload: workload.into(),
        database: "shop".into(),
        server,
        what,
    }
}

async fn ask(agent: &Agent, look: &Look) -> Result<Value, String> {
    let (near, far) = pair().unwrap();
    let channel = Channel::new(near).unwrap();
    agent.parent.send(&Order::Look, Some(far)).await.unwrap();
    channel.send(look, None).await.unwrap();
    match channel.receive::<Looked>().await.unwrap() {
        (Looked::Found, Some(fd)) => Ok(serde_json::from_slice(&from_memfd(fd).unwrap()).unwrap()),
        (Looked::Refused(why), None) => {
            assert!(!why.contains(PASSWORD), "{why}");
            Err(why)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn names_and_rights_are_those_of_the_workload_s_role() {
    let server = Server::start();
    server.sql_in(
        "shop",
        "create schema sales; create table sales.orders (id int);
         alter role report set search_path = sales; grant select on sales.orders to report",
    );
    let agent = agent(&server).await;
    let look = question("report", None, Wanted::Catalogue);
    let found = ask(&agent, &look).await.unwrap();
    assert_eq!(found["user"], "report");
    assert_eq!(found["server"], server.address.to_string());
    assert_eq!(found["search_path"][0], "pg_catalog");
    let catalogue: Catalogue = serde_json::from_value(found["catalogue"].clone()).unwrap();
    assert!(catalogue.relation("sales", "orders").is_some());

    let look = question("report", None, Wanted::Rights);
    let found = ask(&agent, &look).await.unwrap();
    let rights: Vec<[String; 3]> = serde_json::from_value(found["rights"].clone()).unwrap();
    let has = |right: [&str; 3]| rights.iter().any(|other| *other == right);
    assert!(has(["table select", "sales", "orders"]), "{rights:?}");
    assert!(!has(["table delete", "sales", "orders"]), "{rights:?}");
}

#[tokio::test]
async fn a_credential_is_shown_to_no_server_that_its_target_does_not_have() {
    let server = Server::start();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let agent = agent(&server).await;
    let look = question("report", stranger.local_addr().ok(), Wanted::Catalogue);
    let why = ask(&agent, &look).await.unwrap_err();
    assert!(why.contains("is not of target `orders-db`"), "{why}");
    assert!(stranger.accept().is_err(), "nobody has called there");
}

#[tokio::test]
async fn what_cannot_be_asked_is_said() {
    let server = Server::start();
    let agent = agent(&server).await;
    let why = |look: Look| {
        let agent = &agent;
        async move { ask(agent, &look).await.unwrap_err() }
    };
    let nobody = why(question("nobody", None, Wanted::Rights)).await;
    assert!(nobody.contains("no `credentials` entry"), "{nobody}");
    let refused = why(question("wrong", None, Wanted::Rights)).await;
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
    let nowhere = why(Look {
        target: "no-db".into(),
        ..question("report", None, Wanted::Rights)
    })
    .await;
    assert!(nowhere.contains("no target `no-db`"), "{nowhere}");
    let range = Agent::start_in(
        std::sync::Arc::new(tempfile::tempdir().unwrap()),
        config(&server, "disable", "report"),
        server.address,
        None,
    )
    .await;
    let look = question("report", None, Wanted::Rights);
    let unclear = ask(&range, &look).await.unwrap_err();
    assert!(unclear.contains("--server ADDRESS:PORT"), "{unclear}");
    // A question that is none ends its channel's task and nothing else.
    let (near, far) = pair().unwrap();
    agent.parent.send(&Order::Look, Some(far)).await.unwrap();
    drop(near);
    assert!(agent.status().await["epoch"].is_number());
}
