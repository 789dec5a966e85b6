//! The relay, message by message.

use bytes::BytesMut;
use lockgate_wire_postgres::{
    DenialText, ProtocolError, Relay, RelaySettings, Request, ResponseEvent,
};

use crate::message::*;
use crate::session::{Session, denial, nonce};

const HEX: &str = "a5a5a5a5a5a5a5a50000000000000007";

pub fn relay() -> Relay<String> {
    Relay::new(RelaySettings {
        message_bytes: 1000,
        scrub_errors: false,
    })
}

pub fn next(
    relay: &mut Relay<String>,
    bytes: &[u8],
    out: &mut BytesMut,
) -> Result<Option<Request<String>>, ProtocolError> {
    relay.next_request(&mut BytesMut::from(bytes), out)
}

pub fn answers(
    relay: &mut Relay<String>,
    bytes: &[u8],
) -> Result<(Vec<u8>, Vec<ResponseEvent>), ProtocolError> {
    let (mut client, mut events) = (BytesMut::new(), Vec::new());
    relay.responses(&mut BytesMut::from(bytes), &mut client, &mut events)?;
    Ok((client.to_vec(), events))
}

/// Denies what `bytes` hold; gives what the server gets.
fn denied(relay: &mut Relay<String>, bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    next(relay, bytes, &mut out).unwrap().expect("a request");
    relay.deny(Some(9), denial(), nonce(7), &mut out);
    out.to_vec()
}

#[test]
fn what_is_denied_is_replaced_by_what_the_server_refuses() {
    let name = format!("lockgate_denied_{HEX}");
    assert_eq!(denied(&mut relay(), &query("DELETE FROM t")), query(&name));
    assert_eq!(denied(&mut relay(), &message(b'F', &[0; 12])), query(&name));
    assert_eq!(
        denied(&mut relay(), &parse("s1", "DELETE FROM t")),
        parse("s1", &name)
    );
    assert_eq!(
        denied(&mut relay(), &bind("p1", "s1", "x")),
        bind_plain("p1", &name)
    );
    assert_eq!(denied(&mut relay(), &execute("p1", 5)), execute(&name, 0));
}

#[test]
fn our_refusal_is_told_by_its_nonce_and_gets_our_words() {
    let mut relay = relay();
    denied(&mut relay, &query("DELETE FROM t"));
    let text = format!("syntax error at or near \"lockgate_denied_{HEX}\"");
    let (client, events) = answers(&mut relay, &error("42601", &text)).unwrap();
    let expected = message(
        b'E',
        b"SERROR\0VERROR\0C42501\0Mdenied by the tests' policy\0Hask\0\0",
    );
    assert_eq!(client, expected);
    assert_eq!(events, [ResponseEvent::Denied { ticket: 9 }]);
    let (client, events) = answers(&mut relay, &ready(b'E')).unwrap();
    assert_eq!(
        (client, events),
        (ready(b'E'), vec![ResponseEvent::Idle { status: b'E' }])
    );
}

#[test]
fn another_error_in_that_place_stays_the_servers() {
    let mut relay = relay();
    denied(&mut relay, &query("DELETE FROM t"));
    let other = error("57014", "canceling statement due to user request");
    let (client, events) = answers(&mut relay, &other).unwrap();
    assert_eq!(client, other);
    assert_eq!(
        events,
        [ResponseEvent::Failed {
            ticket: 9,
            sqlstate: *b"57014"
        }]
    );
}

#[test]
fn a_server_that_does_not_refuse_is_not_believed() {
    for bytes in [
        query("DELETE FROM t"),
        parse("", "x"),
        bind("", "", "x"),
        execute("", 0),
    ] {
        for answer in [
            complete("DELETE 1"),
            ready(b'I'),
            description(),
            row("x"),
            message(b'1', &[]),
            message(b'2', &[]),
            message(b'I', &[]),
            copy_in(),
            copy_out(),
            message(b's', &[]),
        ] {
            let mut relay = relay();
            denied(&mut relay, &bytes);
            assert_eq!(
                answers(&mut relay, &answer).unwrap_err().sqlstate(),
                "08P01"
            );
        }
    }
}

#[test]
fn nothing_is_asked_about_what_the_server_reads_over() {
    let mut session = Session::new();
    let batch = [
        parse("", "secret"),
        bind("", "", "1"),
        execute("", 0),
        query("rows 9"),
        copy_data(b"x"),
        describe(b'S', ""),
        sync(),
        query("rows 1"),
    ];
    session.send(&batch.concat());
    assert_eq!(session.seen(), "E42501 ZI T D C ZI");
    assert!(session.candidates.is_empty() && session.executes.is_empty());
}

#[test]
fn a_denied_parse_does_not_leave_the_statement_before_to_be_bound() {
    let mut session = Session::new();
    session.send(&[parse("", "rows 1"), sync()].concat());
    session.send(
        &[
            parse("", "secret"),
            sync(),
            bind("", "", "1"),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(session.seen(), "1 ZI E42501 ZI E26000 ZI");
    assert!(session.server.ran.is_empty());
}

#[test]
fn a_name_means_what_was_sent_or_what_is_there() {
    let mut session = Session::new();
    session.send(&[parse("s", "rows 1"), sync()].concat());
    // The second Parse fails at the server (the name is taken), but who sends
    // the Bind of the next batch at once cannot know.
    session.to_relay.extend_from_slice(
        &[
            parse("s", "rows 2"),
            sync(),
            bind("", "s", "a"),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    session.requests();
    assert_eq!(session.candidates["a"], ["rows 2", "rows 1"]);
    session.settle();
    session.send(
        &[
            close(b'S', "s"),
            parse("s", "rows 3"),
            bind("", "s", "b"),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(session.candidates["b"], ["rows 3"]);
    session.send(&[bind("", "s", "c"), sync()].concat());
    assert_eq!(session.candidates["c"], ["rows 3"]);
    // What SQL calls by the name comes to it, also for a Parse in the same batch.
    assert!(session.relay.prepares(b"s", "other".into()));
    session.send(&[bind("", "s", "d"), sync()].concat());
    assert_eq!(session.candidates["d"], ["rows 3", "other"]);
    session.send(&[parse("s", "rows 4"), bind("", "s", "e"), sync()].concat());
    assert_eq!(session.candidates["e"], ["rows 4", "other"]);
    // The server has that name already, and keeps what it stands for.
    assert_eq!(session.relay.prepared(b"s")[..], ["rows 3", "other"]);
}

#[test]
fn a_name_of_too_many_meanings_has_none() {
    let mut session = Session::new();
    session.to_relay.extend_from_slice(&parse("s", "rows 1"));
    session.requests();
    let known = (0..100).all(|number| session.relay.prepares(b"s", number.to_string()));
    assert!(!known);
    assert!(session.relay.prepared(b"s").is_empty());
    session.settle();
    session.send(&[sync(), bind("", "s", "a"), sync()].concat());
    assert_eq!(session.candidates["a"], [""; 0]);
    assert_eq!(session.seen(), "1 ZI E42501 ZI");
}

#[test]
fn a_question_of_our_own_is_asked_between_the_clients_commands() {
    let answered = |session: &mut Session| {
        let events = std::mem::take(&mut session.events);
        let answers = events.into_iter().filter_map(|event| match event {
            ResponseEvent::Answered { rows } => Some(rows),
            _ => None,
        });
        answers.collect::<Vec<_>>()
    };
    let row = |text: &str| vec![Some(text.to_owned())];
    for cut in 1..200 {
        let mut session = Session::new();
        session.send(&[parse("", "rows 1"), sync()].concat());
        assert_eq!(session.seen(), "1 ZI");
        let asked = session
            .relay
            .ask("rows 2", nonce(9), &mut session.to_server);
        assert!(asked);
        assert!(!session.relay.is_idle_outside_transaction());
        session.deliver_to_server(usize::MAX);
        session.deliver_answers(cut);
        session.settle();
        assert_eq!(session.seen(), "", "the client sees nothing of it");
        let rows = vec![row("row 0"), row("row 1")];
        assert_eq!(answered(&mut session), [Some(rows)]);
        // The unnamed statement is there as before.
        session.send(&[bind("", "", "a"), execute("", 0), sync()].concat());
        assert_eq!(session.seen(), "2 D C ZI");
    }
    let mut session = Session::new();
    assert!(session.relay.ask("fail", nonce(9), &mut session.to_server));
    // What comes of itself is the client's, in the middle of the answer, too.
    session
        .server
        .output
        .extend(message(b'A', b"\0\0\0\x01news\0hello\0"));
    session
        .server
        .output
        .extend(message(b'S', b"TimeZone\0UTC\0"));
    session.settle();
    assert_eq!(session.seen(), "A S");
    assert_eq!(answered(&mut session), [None]);
    session.send(&query("rows 1"));
    assert_eq!(session.seen(), "T D C ZI");
}

#[test]
fn the_end_of_a_session_is_told_in_the_middle_of_a_question() {
    let mut session = Session::new();
    let asked = session
        .relay
        .ask("rows 1", nonce(9), &mut session.to_server);
    assert!(asked);
    let fatal = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
    session.server.output.extend(message(b'E', fatal));
    session.deliver_answers(usize::MAX);
    assert_eq!(session.seen(), "E57P01");
}

#[test]
fn a_question_is_not_asked_within_a_transaction() {
    let mut session = Session::new();
    session.send(&query("begin"));
    let ask = |session: &mut Session| {
        session
            .relay
            .ask("rows 1", nonce(9), &mut session.to_server)
    };
    assert!(!ask(&mut session));
    assert!(session.to_server.is_empty(), "nothing was sent");
    session.send(&query("commit"));
    assert!(ask(&mut session));
}

#[test]
fn portals_that_sql_may_have_renamed_are_unknown() {
    let mut session = Session::new();
    session
        .to_relay
        .extend_from_slice(&[parse("", "rows 1"), bind("p", "", "a")].concat());
    session.requests();
    session.relay.forget_portals();
    session.settle();
    session.send(&[execute("p", 0), sync()].concat());
    assert_eq!(session.seen(), "1 2 E42501 ZI");
}

#[test]
fn a_portal_ends_with_its_transaction() {
    let mut session = Session::new();
    session.send(&[parse("", "rows 1"), bind("p", "", "a"), sync()].concat());
    session.send(&[execute("p", 0), sync()].concat());
    assert_eq!(session.seen(), "1 2 ZI E42501 ZI");
    assert_eq!(session.executes.last().map(Vec::as_slice), Some(&[][..]));
}

#[test]
fn rows_and_bytes_are_counted_over_all_results_and_executions() {
    let mut relay = relay();
    let mut out = BytesMut::new();
    next(&mut relay, &query("x"), &mut out).unwrap();
    relay.allow_query(1, None, &mut out);
    let results = [
        description(),
        row("abc"),
        complete("SELECT 1"),
        complete("INSERT 0 3"),
        complete("CREATE TABLE"),
        complete("MERGE 5"),
        copy_out(),
        copy_data(b"12"),
        copy_done(),
        complete("COPY 7"),
        message(b'I', &[]),
        ready(b'I'),
    ];
    let bytes = (row("abc").len() + copy_data(b"12").len()) as u64;
    let (client, events) = answers(&mut relay, &results.concat()).unwrap();
    assert_eq!(client, results.concat());
    assert_eq!(
        events,
        [
            ResponseEvent::Completed {
                ticket: 1,
                rows: 16,
                bytes
            },
            ResponseEvent::Idle { status: b'I' }
        ]
    );

    next(&mut relay, &parse("", "x"), &mut out).unwrap();
    relay.allow_parse("x".into(), &mut out);
    next(&mut relay, &bind("", "", "x"), &mut out).unwrap();
    relay.allow_bind(2, None, &mut out);
    for _ in 0..2 {
        next(&mut relay, &execute("", 1), &mut out).unwrap();
        relay.allow_execute(&mut out);
    }
    next(&mut relay, &sync(), &mut out).unwrap();
    let suspended = [
        message(b'1', &[]),
        message(b'2', &[]),
        row("a"),
        message(b's', &[]),
    ];
    assert_eq!(answers(&mut relay, &suspended.concat()).unwrap().1, []);
    let rest = [row("b"), complete("SELECT 1")].concat();
    let events = answers(&mut relay, &rest).unwrap().1;
    let bytes = 2 * row("a").len() as u64;
    assert_eq!(
        events,
        [ResponseEvent::Completed {
            ticket: 2,
            rows: 2,
            bytes
        }]
    );
}

#[test]
fn notices_and_parameters_come_at_any_time() {
    let unasked = [
        message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        message(b'A', b"\0\0\0\x01channel\0payload\0"),
        message(b'S', b"search_path\0pg_catalog\0"),
    ]
    .concat();
    let mut session = Session::new();
    let steps = [
        parse("", "rows 1"),
        bind("", "", "a"),
        execute("", 0),
        sync(),
        query("secret"),
        query("copy in"),
        copy_data(b"x"),
    ];
    for step in steps {
        session.to_relay.extend_from_slice(&step);
        session.requests();
        session.deliver_to_server(usize::MAX);
        session.server.output.splice(0..0, unasked.clone());
        session.deliver_answers(usize::MAX);
    }
    assert!(session.relay.is_copying_in());
    let parameters = session.events.iter().filter(|event| {
        matches!(event, ResponseEvent::Parameter { name, value } if name == "search_path" && value == "pg_catalog")
    });
    assert_eq!(parameters.count(), 7);
}

#[test]
fn scrubbed_errors_keep_their_code_and_lose_what_holds_values() {
    let mut relay = relay();
    relay.set_scrub_errors(true);
    let body = b"SERROR\0VERROR\0C22P02\0Minvalid input syntax for type integer: \"123-45\"\0DKey (ssn)=(123-45) exists.\0Hh\0Wwhere\0qquery\0spublic\0\0";
    let short = b"SERROR\0VERROR\0C22P02\0Mlockgate: the server's message is withheld, since it may show a value of a tagged column; its SQLSTATE says what kind it is\0\0";
    for tag in [b'E', b'N'] {
        let (client, _) = answers(&mut relay, &message(tag, body)).unwrap();
        assert_eq!(client, message(tag, short));
    }
}

#[test]
fn a_copy_can_be_ended_in_the_middle_of_a_message() {
    let data = copy_data(&[b'x'; 3000]);
    for extended in [false, true] {
        let mut session = Session::new();
        session.send(&match extended {
            true => [
                parse("", "copy in"),
                bind("", "", "a"),
                execute("", 0),
                flush(),
            ]
            .concat(),
            false => query("copy in;rows 1"),
        });
        session.send(&data[..1000]);
        assert!(
            session
                .relay
                .fail_copy(denial(), nonce(1), &mut session.to_server)
        );
        assert!(
            session.to_server.is_empty(),
            "CopyFail stands within CopyData"
        );
        assert!(
            !session
                .relay
                .fail_copy(denial(), nonce(2), &mut session.to_server)
        );
        session.send(&data[1000..]);
        // The client does not know yet.
        session.send(&[copy_data(b"more"), copy_done()].concat());
        session.send(&sync());
        session.send(&query("rows 1"));
        let seen = session.seen();
        match extended {
            true => assert_eq!(seen, "1 2 G E42501 ZI T D C ZI"),
            false => assert_eq!(seen, "G E42501 ZI ZI T D C ZI"),
        }
        let denied = session
            .events
            .iter()
            .filter(|e| matches!(e, ResponseEvent::Denied { .. }));
        assert_eq!(denied.count(), 1);
    }
    let mut session = Session::new();
    assert!(
        !session
            .relay
            .fail_copy(denial(), nonce(1), &mut session.to_server)
    );
}

#[test]
fn what_follows_a_copy_of_unknown_fate_waits_for_it() {
    let mut session = Session::new();
    session.to_relay.extend_from_slice(
        &[
            parse("", "copy in"),
            bind("", "", "a"),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    session.settle();
    assert_eq!(session.seen(), "1 2 G");
    session
        .to_relay
        .extend_from_slice(&[copy_done(), parse("s", "rows 1")].concat());
    session.requests();
    assert_eq!(session.to_server[..], [copy_done(), flush()].concat());
    session.settle();
    session.send(&sync());
    assert_eq!(session.seen(), "C 1 ZI");
}

#[test]
fn a_copy_that_fails_at_once_answers_the_sync_before_its_data() {
    let mut session = Session::new();
    session.to_relay.extend_from_slice(
        &[
            parse("", "copy in fails"),
            bind("", "", "a"),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    session.requests();
    session.deliver_to_server(usize::MAX);
    let begins = [message(b'1', &[]), message(b'2', &[]), copy_in()]
        .concat()
        .len();
    session.deliver_answers(begins);
    session
        .to_relay
        .extend_from_slice(&[copy_data(b"x"), copy_done(), sync()].concat());
    session.settle();
    session.send(&query("rows 1"));
    assert_eq!(session.seen(), "1 2 G EP0001 ZI ZI T D C ZI");
}

#[test]
fn a_server_may_end_an_idle_session() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    assert_eq!(answers(&mut relay(), &fatal).unwrap(), (fatal, vec![]));
}

#[test]
fn terminate_is_passed_on_wherever_it_comes() {
    let mut relay = relay();
    denied(&mut relay, &parse("", "x"));
    let mut out = BytesMut::new();
    let request = next(&mut relay, &message(b'X', &[]), &mut out).unwrap();
    assert!(matches!(request, Some(Request::Terminate)));
    assert_eq!(out[..], message(b'X', &[]));
}

#[test]
fn a_request_cannot_be_passed_over() {
    let mut relay = relay();
    let mut out = BytesMut::new();
    next(&mut relay, &query("x"), &mut out).unwrap();
    let error = next(&mut relay, &query("y"), &mut out).unwrap_err();
    assert_eq!(error.sqlstate(), "08P01");
    assert!(out.is_empty(), "neither was forwarded");
}

#[test]
fn a_denial_can_carry_a_detail() {
    let mut relay = relay();
    let mut out = BytesMut::new();
    next(&mut relay, &query("x"), &mut out).unwrap();
    let text = DenialText {
        message: "m\0m".into(),
        hint: None,
        detail: Some("d".into()),
    };
    relay.deny(None, text, nonce(7), &mut out);
    let refusal = error("42601", &format!("lockgate_denied_{HEX}"));
    let (client, events) = answers(&mut relay, &refusal).unwrap();
    assert_eq!(
        client,
        message(b'E', b"SERROR\0VERROR\0C42501\0Mmm\0Dd\0\0")
    );
    assert_eq!(events, []);
}
