//! How much of what is harmless is denied: people switch off what is in their
//! way.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Jdbc;
use super::host::{Client, Host, Who, file};

/// Statements by their shape, with what was said when one was denied.
type Shapes = BTreeMap<String, Option<String>>;

fn shapes(events: &[Value]) -> Shapes {
    let mut shapes = Shapes::new();
    for event in events.iter().filter(|event| event["kind"] == "command") {
        let message = event["message"].as_str().unwrap_or_default().to_owned();
        let shape = event["shape"]
            .as_str()
            .map_or(message.clone(), str::to_owned);
        let denied = (event["verdict"] == "deny").then_some(message);
        *shapes.entry(shape).or_default() = denied;
    }
    shapes
}

/// Everything that the clients send here, and what psql and monitors ask
/// besides, by a workload that reads and writes. All of it is harmless.
#[test]
fn hardly_anything_harmless_is_denied() {
    let host = Host::new();
    let jdbc = Jdbc::new();
    let corpus = |name: &str| {
        let corpus = file("metadata").join(name).display().to_string();
        Client::python("metadata.py", &[&corpus])
    };
    let clients = [
        (
            "Django",
            Client::python("django_client.py", &["migrate"]),
            Who::Owner,
        ),
        (
            "Django",
            Client::python("django_client.py", &["work"]),
            Who::App,
        ),
        (
            "psql",
            Client::new("psql", &["-X"]).reads("psql.sql"),
            Who::App,
        ),
        (
            "psql",
            Client::new("psql", &["-X"]).reads("psql_more.sql"),
            Who::App,
        ),
        (
            "SQLAlchemy",
            Client::python("sqlalchemy_client.py", &["work"]),
            Who::App,
        ),
        (
            "asyncpg",
            Client::python("asyncpg_client.py", &["work"]),
            Who::App,
        ),
        (
            "node-postgres",
            Client::node("node_postgres.cjs", &["work"]),
            Who::App,
        ),
        ("DBeaver", corpus("dbeaver.sql"), Who::App),
        ("Metabase", corpus("metabase.sql"), Who::App),
        ("pgjdbc", jdbc.client("work"), Who::App),
        ("pgbench", Client::new("pgbench", &["-i", "-q"]), Who::Owner),
        (
            "pgbench",
            Client::new("pgbench", &["-n", "-t", "10"]),
            Who::App,
        ),
        ("pg_dump", Client::new("pg_dump", &[]), Who::Owner),
    ];
    let mut before = 0;
    let mut all = Shapes::new();
    let mut of_clients: BTreeMap<&str, Shapes> = BTreeMap::new();
    for (name, client, who) in &clients {
        host.intercepted(client, *who);
        let mut events = host.events();
        // Newest first or not, those of earlier clients are the same number.
        events.retain(|event| event["kind"] == "command");
        assert!(events.len() > before, "{name} sent nothing");
        before = events.len();
        all = shapes(&events);
        let known: Vec<String> = of_clients
            .values()
            .flat_map(|s| s.keys().cloned())
            .collect();
        let new = all
            .clone()
            .into_iter()
            .filter(|(shape, _)| !known.contains(shape));
        of_clients.entry(name).or_default().extend(new);
    }
    println!("statements of different shape, denied");
    for (name, shapes) in &of_clients {
        let denied: Vec<_> = shapes.values().flatten().collect();
        println!("{name}: {}, {}", shapes.len(), denied.len());
        denied.iter().for_each(|message| println!("    {message}"));
    }
    let denied = all.values().flatten().count();
    println!("all: {}, {denied}", all.len());
    assert!(all.len() > 500, "{}", all.len());
    assert!(denied * 100 < all.len(), "{denied} of {}", all.len());
}
