//! The relay before a real PostgreSQL: that the server refuses what stands for
//! a denied message, in every state, is the server's word and not a model's.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use lockgate_tests::Cluster;
use lockgate_wire_postgres::{
    LoginEvent, LoginRequest, Relay, RelaySettings, Request, ResponseEvent, UpstreamLogin,
};

use crate::message::*;
use crate::session::{denial, nonce, summary};

/// A client, the relay, a session at the server.
struct Session {
    relay: Relay<String>,
    socket: UnixStream,
    input: BytesMut,
    answers: BytesMut,
    events: Vec<ResponseEvent>,
    parameters: Vec<u64>,
    next: u64,
}

impl Session {
    fn new(server: &Cluster) -> Self {
        let mut socket =
            UnixStream::connect(server.socket().join(".s.PGSQL.5432")).expect("a connection");
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        let mut login = UpstreamLogin::new(LoginRequest {
            tls: false,
            user: "postgres".into(),
            database: "postgres".into(),
            parameters: vec![("client_encoding".into(), "UTF8".into())],
            setup: vec!["SELECT current_user, null, 7".into()],
        });
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        login.start(&mut out);
        let done = loop {
            socket.write_all(&out.split()).expect("a server that reads");
            match login.feed(&mut input, &mut out).expect("a login") {
                LoginEvent::NeedMore => {
                    socket.write_all(&out.split()).expect("a server that reads");
                    receive(&mut socket, &mut input);
                }
                LoginEvent::Ready(done) => break done,
                other => panic!("{other:?}"),
            }
        };
        let row = vec![Some("postgres".to_owned()), None, Some("7".to_owned())];
        assert_eq!(done.setup_rows, [[row]]);
        assert!(
            done.parameters
                .iter()
                .any(|(name, _)| name == "server_version")
        );
        let settings = RelaySettings {
            message_bytes: 1 << 20,
            scrub_errors: false,
        };
        Self {
            relay: Relay::new(settings),
            socket,
            input: BytesMut::new(),
            answers: input,
            events: Vec::new(),
            parameters: Vec::new(),
            next: 0,
        }
    }

    /// Sends the client's `bytes`; texts with `secret` are denied where they
    /// are seen first, with `unbound` at Bind, with `stopped` at Execute.
    fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let mut out = BytesMut::new();
        while let Some(request) = self
            .relay
            .next_request(&mut self.input, &mut out)
            .expect("a script")
        {
            self.next += 1;
            let ticket = self.next;
            let has = |text: &[u8], word: &str| String::from_utf8_lossy(text).contains(word);
            let denied = match &request {
                Request::Query { text } | Request::Parse { text, .. } => has(text, "secret"),
                Request::Bind { candidates, .. } => {
                    if candidates.iter().any(|text| text.contains("stopped")) {
                        self.parameters.push(ticket);
                    }
                    candidates.is_empty() || candidates.iter().any(|text| text.contains("unbound"))
                }
                Request::Execute { tickets } => {
                    tickets.is_empty() || tickets.iter().any(|t| self.parameters.contains(t))
                }
                Request::FunctionCall => true,
                Request::Terminate => false,
            };
            match request {
                _ if denied => self
                    .relay
                    .deny(Some(ticket), denial(), nonce(ticket), &mut out),
                Request::Query { .. } => self.relay.allow_query(ticket, None, &mut out),
                Request::Parse { text, .. } => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    self.relay.allow_parse(text, &mut out);
                }
                Request::Bind { .. } => self.relay.allow_bind(ticket, None, &mut out),
                Request::Execute { .. } => self.relay.allow_execute(&mut out),
                Request::FunctionCall | Request::Terminate => {}
            }
        }
        self.socket.write_all(&out).expect("a server that reads");
    }

    /// Reads answers until `count` messages of type `tag` have come.
    fn read(&mut self, tag: u8, count: usize) -> Vec<(u8, Vec<u8>)> {
        let mut client = BytesMut::new();
        loop {
            self.relay
                .responses(&mut self.answers, &mut client, &mut self.events)
                .expect("answers to what was sent");
            // What had to wait for an answer.
            self.send(&[]);
            let messages = take(&mut client.to_vec());
            if messages.iter().filter(|(found, _)| *found == tag).count() >= count {
                let whole: usize = messages.iter().map(|(_, body)| body.len() + 5).sum();
                assert_eq!(whole, client.len());
                for (_, body) in messages.iter().filter(|(tag, _)| *tag == b'E') {
                    if field(body, b'C').as_deref() == Some("42501") {
                        assert_eq!(field(body, b'M').as_deref(), Some(crate::session::DENIED));
                        assert_eq!(field(body, b'H').as_deref(), Some("ask"));
                    }
                    let text = String::from_utf8_lossy(body);
                    assert!(!text.contains("lockgate_denied"), "{text}");
                }
                return messages;
            }
            receive(&mut self.socket, &mut self.answers);
        }
    }

    /// Sends, waits for `count` ReadyForQuery, gives a summary.
    fn ask(&mut self, messages: &[Vec<u8>], count: usize) -> String {
        self.send(&messages.concat());
        summary(&self.read(b'Z', count))
    }

    /// The one value of a query.
    fn value(&mut self, text: &str) -> String {
        self.send(&query(text));
        let messages = self.read(b'Z', 1);
        let row = messages
            .iter()
            .find(|(tag, _)| *tag == b'D')
            .expect("a row");
        String::from_utf8_lossy(&row.1[6..]).into_owned()
    }
}

fn receive(socket: &mut UnixStream, input: &mut BytesMut) {
    let mut buffer = [0; 65536];
    let count = socket.read(&mut buffer).expect("an answer in time");
    assert!(count > 0, "the server went away");
    input.extend_from_slice(&buffer[..count]);
}

/// Parse, Bind, Execute of `text` under no name.
fn extended(text: &str) -> Vec<u8> {
    [parse("", text), bind_plain("", ""), execute("", 0)].concat()
}

/// One test, so that one server serves all of it and ends with it.
#[test]
fn against_a_real_server() {
    let server = Cluster::start("").expect("a server");
    a_denial_leaves_the_session_as_the_server_itself_would(&server);
    a_pipeline_keeps_its_order_around_a_denial(&server);
    copy_goes_both_ways_and_can_be_ended(&server);
    a_copy_that_a_trigger_stops_keeps_the_session(&server);
    portals_are_suspended_described_closed_and_end_with_their_transaction(&server);
    notices_notifications_and_parameters_pass(&server);
    names_are_cut_by_the_server_and_so_not_taken(&server);
    sql_can_give_a_name_that_parse_gave(&server);
    a_question_leaves_everything_as_it_was(&server);
}

fn a_denial_leaves_the_session_as_the_server_itself_would(server: &Cluster) {
    let mut s = Session::new(server);
    assert_eq!(s.ask(&[query("CREATE TABLE t (a int)")], 1), "C ZI");

    // One message of each kind, denied: outside a transaction, in one, in a
    // failed one.
    let denials: [(&str, Vec<u8>); 6] = [
        ("Query", query("INSERT INTO t VALUES (1) /* secret */")),
        (
            "Query of several",
            query("INSERT INTO t VALUES (1); SELECT 'secret'; COMMIT"),
        ),
        ("FunctionCall", message(b'F', &[0; 12])),
        (
            "Parse",
            [extended("INSERT INTO t VALUES (1) /* secret */"), sync()].concat(),
        ),
        (
            "Bind",
            [extended("INSERT INTO t VALUES (1) /* unbound */"), sync()].concat(),
        ),
        (
            "Execute",
            [extended("INSERT INTO t VALUES (1) /* stopped */"), sync()].concat(),
        ),
    ];
    for (kind, bytes) in &denials {
        let before = match *kind {
            "Bind" => "1 ",
            "Execute" => "1 2 ",
            _ => "",
        };
        assert_eq!(
            s.ask(std::slice::from_ref(bytes), 1),
            format!("{before}E42501 ZI"),
            "{kind}"
        );
        assert_eq!(s.ask(&[query("BEGIN")], 1), "C ZT");
        let prepared = s.ask(
            &[
                parse("c", "COMMIT /* stopped */"),
                bind_plain("cp", "c"),
                sync(),
            ],
            1,
        );
        assert_eq!(prepared, "1 2 ZT");
        assert_eq!(
            s.ask(std::slice::from_ref(bytes), 1),
            format!("{before}E42501 ZE"),
            "{kind}"
        );
        // The server would refuse the permitted messages before it by itself.
        let again = match *kind {
            "Bind" | "Execute" => "E25P02 ZE",
            _ => "E42501 ZE",
        };
        assert_eq!(s.ask(std::slice::from_ref(bytes), 1), again, "{kind}");
        // What needs no other message before it is refused in its own right.
        assert_eq!(s.ask(&[execute("cp", 0), sync()], 1), "E42501 ZE", "{kind}");
        assert_eq!(
            s.ask(&[bind_plain("", "unknown"), sync()], 1),
            "E42501 ZE",
            "{kind}"
        );
        assert_eq!(s.ask(&[query("ROLLBACK")], 1), "C ZI");
        assert_eq!(s.ask(&[close(b'S', "c"), sync()], 1), "3 ZI");
        assert_eq!(s.value("SELECT count(*) FROM t"), "0", "{kind}");
    }
}

fn a_pipeline_keeps_its_order_around_a_denial(server: &Cluster) {
    let mut s = Session::new(server);
    let seen = s.ask(
        &[
            extended("SELECT 1"),
            sync(),
            extended("SELECT 2 /* secret */"),
            extended("SELECT 3"),
            query("SELECT 4"),
            sync(),
            query("SELECT 5 /* secret */"),
            extended("SELECT 6"),
            sync(),
            query("BEGIN"),
            extended("SELECT 7 /* unbound */"),
            sync(),
            extended("SELECT 8"),
            sync(),
            query("ROLLBACK"),
            query("SELECT 9; SELECT 10"),
            query(""),
        ],
        10,
    );
    assert_eq!(
        seen,
        "1 2 D C ZI E42501 ZI E42501 ZI 1 2 D C ZI C ZT 1 E42501 ZE E25P02 ZE C ZI T D C T D C ZI I ZI"
    );
    assert_eq!(s.value("SELECT 11"), "11");
    // A denied Parse drops the unnamed statement, as the server does it.
    assert_eq!(s.ask(&[parse("", "SELECT 12"), sync()], 1), "1 ZI");
    let seen = s.ask(
        &[
            parse("", "SELECT 13 /* secret */"),
            sync(),
            bind_plain("", ""),
            execute("", 0),
            sync(),
        ],
        2,
    );
    assert_eq!(seen, "E42501 ZI E26000 ZI");
    // A named one stays.
    assert_eq!(s.ask(&[parse("n", "SELECT 14"), sync()], 1), "1 ZI");
    let seen = s.ask(
        &[
            parse("n", "SELECT 15 /* secret */"),
            sync(),
            bind_plain("", "n"),
            execute("", 0),
            sync(),
        ],
        2,
    );
    assert_eq!(seen, "E42501 ZI 2 D C ZI");
}

fn copy_goes_both_ways_and_can_be_ended(server: &Cluster) {
    let mut s = Session::new(server);
    s.ask(&[query("CREATE TEMP TABLE c (a int)")], 1);
    let rows = [copy_data(b"1\n2"), copy_data(b"\n3\n"), copy_done()].concat();

    assert_eq!(
        s.ask(&[query("COPY c FROM STDIN"), rows.clone()], 1),
        "G C ZI"
    );
    // libpq sends Sync with Execute and once more behind the data.
    let with_syncs = [extended("COPY c FROM STDIN"), sync(), rows.clone(), sync()].concat();
    assert_eq!(s.ask(&[with_syncs], 1), "1 2 G C ZI");
    let two = query("COPY c FROM STDIN; SELECT 1; COPY c FROM STDIN");
    assert_eq!(
        s.ask(&[two, rows.clone(), rows.clone()], 1),
        "G C T D C G C ZI"
    );
    let done = s.events.iter().rev().find_map(|event| match event {
        ResponseEvent::Completed { rows, .. } => Some(*rows),
        _ => None,
    });
    assert_eq!(done, Some(7));
    assert_eq!(s.value("SELECT count(*) FROM c"), "12");
    assert_eq!(
        s.ask(&[query("COPY (SELECT 1 UNION ALL SELECT 2) TO STDOUT")], 1),
        "H d d c C ZI"
    );
    assert_eq!(
        s.ask(&[extended("COPY c TO STDOUT"), sync()], 1)
            .matches('d')
            .count(),
        12
    );

    // Denied, it takes no data; what the client sends on is read over.
    assert_eq!(
        s.ask(&[query("COPY c FROM STDIN /* secret */"), rows.clone()], 1),
        "E42501 ZI"
    );
    let denied = [
        extended("COPY c FROM STDIN /* unbound */"),
        rows.clone(),
        sync(),
    ]
    .concat();
    assert_eq!(s.ask(&[denied], 1), "1 E42501 ZI");

    // Broken data, and the rest of it still comes.
    let broken = [copy_data(b"x\n"), copy_data(b"1\n"), copy_done()].concat();
    assert_eq!(
        s.ask(&[query("COPY c FROM STDIN"), broken.clone()], 1),
        "G E22P02 ZI"
    );
    let broken = [extended("COPY c FROM STDIN"), broken, sync()].concat();
    assert_eq!(s.ask(&[broken], 1), "1 2 G E22P02 ZI");
    assert_eq!(
        s.ask(&[query("COPY c FROM STDIN"), copy_fail("no")], 1),
        "G E57014 ZI"
    );

    // Ended in the middle, in a transaction.
    for bytes in [
        query("COPY c FROM STDIN"),
        [extended("COPY c FROM STDIN"), flush()].concat(),
    ] {
        assert_eq!(s.ask(&[query("BEGIN")], 1), "C ZT");
        s.send(&bytes);
        s.read(b'G', 1);
        s.send(&copy_data(b"1\n"));
        let mut out = BytesMut::new();
        assert!(s.relay.fail_copy(denial(), nonce(999), &mut out));
        s.socket.write_all(&out).unwrap();
        let simple = bytes[0] == b'Q';
        let rest = if simple {
            copy_done()
        } else {
            [copy_done(), sync()].concat()
        };
        assert_eq!(s.ask(&[copy_data(b"2\n"), rest], 1), "E42501 ZE");
        assert_eq!(s.ask(&[query("ROLLBACK")], 1), "C ZI");
    }
    assert_eq!(s.value("SELECT count(*) FROM c"), "12");
}

fn a_copy_that_a_trigger_stops_keeps_the_session(server: &Cluster) {
    let mut s = Session::new(server);
    s.ask(
        &[query(
            "CREATE TEMP TABLE g (a int); CREATE FUNCTION pg_temp.stop() RETURNS trigger LANGUAGE plpgsql \
             AS $$ BEGIN PERFORM pg_sleep(0.2); RAISE EXCEPTION 'stop'; END $$; \
             CREATE TRIGGER g BEFORE INSERT ON g EXECUTE FUNCTION pg_temp.stop()",
        )],
        1,
    );
    s.send(&[extended("COPY g FROM STDIN"), sync()].concat());
    assert_eq!(summary(&s.read(b'G', 1)), "1 2 G");
    // The Sync above is answered, and so is the one behind the data.
    let rest = [
        copy_data(b"1\n"),
        copy_done(),
        sync(),
        extended("SELECT 1"),
        sync(),
    ]
    .concat();
    assert_eq!(s.ask(&[rest], 3), "EP0001 ZI ZI 1 2 D C ZI");
    assert_eq!(s.value("SELECT 2"), "2");
}

fn portals_are_suspended_described_closed_and_end_with_their_transaction(server: &Cluster) {
    let mut s = Session::new(server);
    assert_eq!(s.ask(&[query("BEGIN")], 1), "C ZT");
    let seen = s.ask(
        &[
            parse("", "SELECT generate_series(1, 5)"),
            describe(b'S', ""),
            bind_plain("p", ""),
            describe(b'P', "p"),
            execute("p", 2),
            execute("p", 2),
            execute("p", 2),
            sync(),
        ],
        1,
    );
    assert_eq!(seen, "1 t T 2 T D D s D D s D C ZT");
    let last = s.events.iter().rev().nth(1);
    assert!(
        matches!(last, Some(ResponseEvent::Completed { rows: 5, .. })),
        "{last:?}"
    );
    assert_eq!(
        s.ask(&[close(b'P', "p"), execute("p", 0), sync()], 1),
        "3 E34000 ZE"
    );
    assert_eq!(s.ask(&[query("ROLLBACK")], 1), "C ZI");
    // A cursor of SQL's is not a portal that was bound here.
    s.ask(&[query("BEGIN; DECLARE k CURSOR FOR SELECT 1")], 1);
    assert_eq!(s.ask(&[execute("k", 0), sync()], 1), "E42501 ZE");
    assert_eq!(s.ask(&[query("ROLLBACK")], 1), "C ZI");
    // Nor is SQL's PREPARE a Parse.
    s.ask(&[query("PREPARE q AS SELECT 1")], 1);
    assert_eq!(s.ask(&[bind_plain("", "q"), sync()], 1), "E42501 ZI");
}

fn notices_notifications_and_parameters_pass(server: &Cluster) {
    let mut s = Session::new(server);
    let seen = s.ask(
        &[query(
            "LISTEN l; NOTIFY l; SET application_name TO 'x'; DO $$ BEGIN RAISE NOTICE 'n'; END $$",
        )],
        1,
    );
    for tag in ["A", "S", "N"] {
        assert!(seen.split(' ').any(|found| found == tag), "{seen}");
    }
    let parameter = ResponseEvent::Parameter {
        name: "application_name".into(),
        value: "x".into(),
    };
    assert!(s.events.contains(&parameter));
    // A commit that fails at Sync.
    s.ask(
        &[query(
            "CREATE TEMP TABLE u (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        )],
        1,
    );
    let seen = s.ask(
        &[
            extended("INSERT INTO u VALUES (1), (1)"),
            sync(),
            query("SELECT 1"),
        ],
        2,
    );
    assert_eq!(seen, "1 2 C E23505 ZI T D C ZI");
}

fn names_are_cut_by_the_server_and_so_not_taken(server: &Cluster) {
    let mut s = Session::new(server);
    let name = "x".repeat(63);
    assert_eq!(
        s.ask(
            &[parse(&name, "SELECT 1"), bind_plain(&name, &name), sync()],
            1
        ),
        "1 2 ZI"
    );
}

fn sql_can_give_a_name_that_parse_gave(server: &Cluster) {
    let renaming = query("DEALLOCATE r; PREPARE r AS SELECT 2");
    let run = [bind_plain("", "r"), execute("", 0), sync()].concat();
    let mut s = Session::new(server);
    assert_eq!(s.ask(&[parse("r", "SELECT 1"), sync()], 1), "1 ZI");
    assert_eq!(s.ask(std::slice::from_ref(&renaming), 1), "C C ZI");
    s.send(&run);
    // The server runs what Parse did not send: why there is `Relay::prepares`.
    assert!(s.read(b'Z', 1).contains(&(b'D', row_body(b"2"))));
}

fn a_question_leaves_everything_as_it_was(server: &Cluster) {
    let mut s = Session::new(server);
    assert_eq!(s.ask(&[parse("", "SELECT 7"), sync()], 1), "1 ZI");
    for (question, expected) in [
        (
            "SELECT 1, null, 'a'",
            Some("[[Some(\"1\"), None, Some(\"a\")]]"),
        ),
        (
            "SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE name <> '' AND statement NOT LIKE '%pg_prepared%'",
            Some("[[Some(\"0\")]]"),
        ),
        ("SELECT 1/0", None),
    ] {
        let mut out = BytesMut::new();
        assert!(s.relay.ask(question, nonce(4711), &mut out));
        s.socket.write_all(&out).expect("a server that reads");
        let mut client = BytesMut::new();
        let rows = loop {
            receive(&mut s.socket, &mut s.answers);
            s.relay
                .responses(&mut s.answers, &mut client, &mut s.events)
                .expect("answers to what was asked");
            if let Some(ResponseEvent::Answered { rows }) = s.events.pop() {
                break rows;
            }
        };
        assert!(client.is_empty(), "{question}");
        assert_eq!(
            rows.map(|rows| format!("{rows:?}")).as_deref(),
            expected,
            "{question}"
        );
    }
    assert_eq!(
        s.ask(&[bind_plain("", ""), execute("", 0), sync()], 1),
        "2 D C ZI"
    );
    assert_eq!(s.value("SELECT count(*) FROM pg_prepared_statements"), "0");
}

/// A DataRow of one column.
fn row_body(value: &[u8]) -> Vec<u8> {
    [&[0, 1][..], &(value.len() as u32).to_be_bytes(), value].concat()
}
