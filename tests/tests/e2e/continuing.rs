//! What was permitted, and goes on when it is not permitted any more: the
//! record says who denied it, and why.

use lockgate_tests::{Answer, PostgresConfig, Wire, bind, execute, parse, query, sync};
use serde_json::Value;

use crate::stage::{self, Stage};

/// What reports are denied from one moment on.
const CLOSED: &str = r#"
@id("orders-are-closed")
forbid (principal == Workload::"report", action == Action::"select", resource == Table::"orders-db/shop/public/orders");
"#;

const ORDERS: &str = "select item from orders";

/// A session with a cursor, a portal that was read in part, and one that was
/// only bound.
fn opened(stage: &Stage) -> Wire {
    let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
    wire.start(&[("user", "x"), ("database", "shop")]).unwrap();
    for messages in [
        query("begin; declare c cursor for select item from orders"),
        query("fetch 1 from c"),
        [parse("s", ORDERS), bind("p", "s"), execute("p", 1), sync()].concat(),
    ] {
        let answer = wire.ask(&messages).unwrap();
        assert!(answer.errors().is_empty(), "{answer:?}");
    }
    wire
}

fn close_orders(stage: &Stage) {
    let policies = [stage::POLICIES, CLOSED].concat();
    std::fs::write(stage.agent.path("policies/test.cedar"), policies).unwrap();
    let output = stage.agent.lockgate(&["reload"]).unwrap();
    assert!(output.ok(), "{output:?}");
}

/// The one command of the record that is denied, once it has ended.
fn denied(stage: &Stage) -> Value {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let mut events = stage.agent.events(&["--verdict", "deny"], 1).unwrap();
        assert_eq!(events.len(), 1, "{events:#?}");
        if events[0]["outcome"] != Value::Null {
            return events.remove(0);
        }
        assert!(std::time::Instant::now() < deadline, "{events:#?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn rows(answer: &Answer) -> usize {
    answer.of(b'D').len()
}

#[test]
fn a_fetch_that_is_refused_is_recorded_as_denied() {
    for fetch in [
        query("fetch 2 from c"),
        [
            parse("", "fetch 2 from c"),
            bind("", ""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    ] {
        let stage = Stage::new();
        let mut wire = opened(&stage);
        close_orders(&stage);
        let answer = wire.ask(&fetch).unwrap();
        let errors = answer.errors();
        assert!(
            rows(&answer) == 0 && errors.len() == 1 && errors[0].contains("`orders-are-closed`"),
            "{answer:?}"
        );
        let event = denied(&stage);
        assert_eq!(event["policies"][0], "orders-are-closed", "{event:#}");
        assert_eq!(event["outcome"], "denied", "{event:#}");
        assert_eq!(event["enforced"], true, "{event:#}");
        let shape = event["shape"].as_str().unwrap().to_lowercase();
        assert!(shape.starts_with("fetch"), "{event:#}");
    }
}

#[test]
fn an_execute_that_is_refused_is_recorded_as_denied() {
    let stage = Stage::new();
    let mut wire = opened(&stage);
    close_orders(&stage);
    let answer = wire.ask(&[execute("p", 2), sync()].concat()).unwrap();
    assert!(
        rows(&answer) == 0 && answer.errors()[0].contains("`orders-are-closed`"),
        "{answer:?}"
    );
    let event = denied(&stage);
    assert_eq!(event["policies"][0], "orders-are-closed", "{event:#}");
    assert_eq!(event["outcome"], "denied", "{event:#}");
    assert_eq!(event["objects"][0], "orders-db/shop/public/orders");
    // It is the command that was bound: the same text, the same parameters.
    let events = stage.agent.events(&["--verdict", "allow"], 1).unwrap();
    let bound = events.iter().any(|was| was["shape"] == event["shape"]);
    assert!(bound, "{event:#} {events:#?}");
}

#[test]
fn an_execute_of_what_was_not_bound_is_in_the_record() {
    let stage = Stage::new();
    let mut wire = opened(&stage);
    let answer = wire.ask(&[execute("c", 0), sync()].concat()).unwrap();
    assert!(
        rows(&answer) == 0 && answer.errors()[0].contains("was not bound through lockgate"),
        "{answer:?}"
    );
    let event = denied(&stage);
    assert_eq!(event["outcome"], "denied", "{event:#}");
    assert!(
        event["message"].as_str().unwrap().contains("not bound"),
        "{event:#}"
    );
}

#[test]
fn where_it_is_only_observed_it_goes_on_and_is_recorded() {
    let stage = Stage::with("mode = \"observe\"", &PostgresConfig::default());
    let mut wire = opened(&stage);
    close_orders(&stage);
    let answer = wire.ask(&query("fetch 2 from c")).unwrap();
    assert_eq!(rows(&answer), 2, "{answer:?}");
    let event = denied(&stage);
    assert_eq!(event["policies"][0], "orders-are-closed", "{event:#}");
    assert_eq!(event["enforced"], false, "{event:#}");
    assert_eq!(event["outcome"], "done", "{event:#}");
}
