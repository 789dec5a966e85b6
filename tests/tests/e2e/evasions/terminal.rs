//! What clients call things is read by operators, on terminals that obey what
//! is in it.

use lockgate_tests::{Wire, query};

use crate::stage::Stage;

/// Sets the window's title, clears the screen, turns text around, and begins a
/// line of its own.
const NAME: &str = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\n2026 report orders-db allow";

fn obeyed(text: &str) -> bool {
    text.chars().any(|character| {
        (character.is_control() && character != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&character)
    })
}

#[test]
fn names_of_clients_do_not_command_the_operators_terminal() {
    let stage = Stage::new();
    let quoted = format!("\"{}\"", &NAME[..NAME.len() - 10]);
    stage
        .postgres
        .admin("postgres", &format!("create database {quoted}"))
        .unwrap();
    let mut wire = Wire::dial(&stage.report, stage.postgres.address()).unwrap();
    let database = &NAME[..NAME.len() - 10];
    let answer = wire
        .start(&[
            ("user", NAME),
            ("database", database),
            ("application_name", NAME),
        ])
        .unwrap();
    assert!(!answer.closed, "{answer:?}");
    for sql in [
        format!("select 1 as {quoted}"),
        format!("select * from {quoted}"),
        format!("delete from {quoted}.{quoted}"),
        format!("select {quoted}(1)"),
    ] {
        wire.ask(&query(&sql)).unwrap();
    }
    let events = stage.agent.events(&["--workload", "report"], 5).unwrap();
    let kept = events
        .iter()
        .any(|event| obeyed(&event.to_string().replace("\\u001b", "\u{1b}")));
    assert!(kept, "the record has the names as they are: {events:?}");
    for command in [
        &["audit", "search"][..],
        &["audit", "search", "--json"],
        &["status"],
        &["status", "--json"],
        &["audit", "verify"],
    ] {
        let output = stage.agent.lockgate(command).unwrap();
        let all = output.all();
        assert!(
            !obeyed(&all),
            "{command:?}: {:?}",
            all.escape_debug().to_string()
        );
        let forged = all.lines().any(|line| line.starts_with("2026 report"));
        assert!(!forged, "{command:?}: {all}");
        println!(
            "held        record   escape sequences in {}",
            command.join(" ")
        );
    }
    assert!(
        !obeyed(&stage.agent.log()),
        "{}",
        stage.agent.log().escape_debug()
    );
}
