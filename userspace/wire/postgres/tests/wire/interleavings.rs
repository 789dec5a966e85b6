//! Random scripts, delivered in random pieces, against the model server.

use lockgate_wire_postgres::ResponseEvent;
use proptest::prelude::*;

use crate::message::*;
use crate::model::{Ran, Server};
use crate::session::{Session, summary};

/// Whole messages of a script; the parameters of Binds are numbered later.
#[derive(Clone, Debug)]
enum Step {
    Query(&'static str, CopyEnd),
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str),
    Describe(u8, &'static str),
    Execute(&'static str),
    Close(u8, &'static str),
    Sync,
    Flush,
    Function,
    /// Parse, Bind, Execute of a COPY FROM, data, the end, Sync.
    Copy {
        text: &'static str,
        sync_before: bool,
        sync_within: bool,
        end: CopyEnd,
    },
}

#[derive(Clone, Copy, Debug)]
enum CopyEnd {
    Done,
    Fail,
}

const NAMES: [&str; 2] = ["", "s"];

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&NAMES[..])
}

fn end() -> impl Strategy<Value = CopyEnd> {
    prop_oneof![3 => Just(CopyEnd::Done), 1 => Just(CopyEnd::Fail)]
}

fn step(texts: &'static [&'static str]) -> impl Strategy<Value = Step> {
    let simple = [
        "begin",
        "commit",
        "rollback",
        "fail",
        "",
        "rows 1;rows 2",
        "rows 1;fail;rows 1",
        "copy in",
        "copy in fails",
        "copy in;rows 1;copy in",
        "copy out",
        "rows 3",
        "secret rows 1",
        "rows 1;secret rows 1",
    ];
    let kind = prop::sample::select(&b"SP"[..]);
    prop_oneof![
        4 => (prop::sample::select(simple.to_vec()), end()).prop_map(|(t, e)| Step::Query(t, e)),
        5 => (name(), prop::sample::select(texts)).prop_map(|(n, t)| Step::Parse(n, t)),
        6 => (name(), name()).prop_map(|(p, s)| Step::Bind(p, s)),
        2 => (kind.clone(), name()).prop_map(|(k, n)| Step::Describe(k, n)),
        6 => name().prop_map(Step::Execute),
        2 => (kind, name()).prop_map(|(k, n)| Step::Close(k, n)),
        5 => Just(Step::Sync),
        1 => Just(Step::Flush),
        1 => Just(Step::Function),
        2 => (prop::sample::select(&["copy in", "copy in fails"][..]), any::<bool>(), any::<bool>(), end())
            .prop_map(|(text, sync_before, sync_within, end)| Step::Copy { text, sync_before, sync_within, end }),
    ]
}

fn data(end: CopyEnd, within: &[u8]) -> Vec<u8> {
    let end = match end {
        CopyEnd::Done => copy_done(),
        CopyEnd::Fail => copy_fail("no more"),
    };
    [copy_data(b"a\n"), within.to_vec(), copy_data(b"bcd\n"), end].concat()
}

fn script(steps: &[Step]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        out.extend(match step {
            Step::Query(text, end) => {
                let data = data(*end, &[]);
                [query(text), data.repeat(text.matches("copy in").count())].concat()
            }
            Step::Parse(name, text) => parse(name, text),
            Step::Bind(portal, statement) => bind(portal, statement, &number.to_string()),
            Step::Describe(kind, name) => describe(*kind, name),
            Step::Execute(portal) => execute(portal, 0),
            Step::Close(kind, name) => close(*kind, name),
            Step::Sync => sync(),
            Step::Flush => flush(),
            Step::Function => message(b'F', &[0; 12]),
            Step::Copy {
                text,
                sync_before,
                sync_within,
                end,
            } => {
                let before = if *sync_before { sync() } else { Vec::new() };
                let within = if *sync_within { sync() } else { Vec::new() };
                [
                    parse("", text),
                    bind("", "", &number.to_string()),
                    execute("", 0),
                    before,
                    data(*end, &within),
                    sync(),
                    // So that no later step runs the COPY again without data.
                    parse("", "rows 1"),
                    sync(),
                ]
                .concat()
            }
        });
    }
    // Whatever is open comes to its end.
    out.extend([sync(), query("rollback"), sync()].concat());
    out
}

/// In which pieces bytes arrive, and where.
fn schedule() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec(
        (0..3_u8, prop_oneof![1..4_usize, 4..60_usize, Just(500)]),
        0..200,
    )
}

fn play(script: &[u8], schedule: &[(u8, usize)]) -> Session {
    let mut session = Session::new();
    let mut rest = script;
    for (place, count) in schedule {
        match place {
            0 => {
                let (piece, behind) = rest.split_at((*count).min(rest.len()));
                rest = behind;
                session.to_relay.extend_from_slice(piece);
                session.requests();
            }
            1 => session.deliver_to_server(*count),
            _ => session.deliver_answers(*count),
        }
    }
    session.send(rest);
    session
}

/// What holds whatever the client sends.
fn is_safe(session: &Session) {
    assert!(!session.server.dead, "the server lost the thread");
    assert!(
        session.to_relay.is_empty(),
        "something of the client's waits for ever"
    );
    let mut executes = session.executes.iter();
    for ran in &session.server.ran {
        match ran {
            Ran::Query(text) => assert!(!text.contains("secret"), "a denied text ran"),
            Ran::Bind(parameter, text) => {
                assert!(
                    !text.contains("secret") && !text.contains("unbound"),
                    "{text} was bound"
                );
                let candidates = &session.candidates[parameter];
                assert!(
                    candidates.contains(text),
                    "bound {text}, decided on {candidates:?}"
                );
            }
            Ran::Execute(parameter, _) => {
                // Those that the server read over are between.
                assert!(
                    executes.any(|tickets| tickets.contains(parameter)),
                    "ran the portal of {parameter}, decided on others"
                );
            }
        }
    }
    for ticket in session.tickets.keys() {
        let ends = session.events.iter().filter(|event| match event {
            ResponseEvent::Completed { ticket: ended, .. }
            | ResponseEvent::Failed { ticket: ended, .. }
            | ResponseEvent::Denied { ticket: ended }
            | ResponseEvent::Skipped { ticket: ended } => ended == ticket,
            ResponseEvent::Parameter { .. }
            | ResponseEvent::Answered { .. }
            | ResponseEvent::Idle { .. } => false,
        });
        assert_eq!(ends.count(), 1, "ends of ticket {ticket}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(ProptestConfig::default().cases.max(4000)) })]

    /// The client sees exactly what a server would show it that cannot parse
    /// the denied texts: every answer in its place, every ReadyForQuery, every
    /// transaction status.
    #[test]
    fn a_denial_is_an_error_of_the_server_in_its_place(
        steps in prop::collection::vec(
            step(&["rows 1", "rows 2", "begin", "commit", "fail", "secret rows 1", "copy out", ""]),
            1..20,
        ),
        schedule in schedule(),
    ) {
        let script = script(&steps);
        let mut direct = Server::default();
        direct.unparsable = Some("secret");
        direct.feed(&functions_as_denied_queries(&script));
        prop_assume!(!direct.dead);

        let mut session = play(&script, &schedule);
        is_safe(&session);
        let refusals = |summary: String| {
            ["42601", "26000", "34000"].iter().fold(summary, |s, code| s.replace(code, "42501"))
        };
        let expected = summary(&take(&mut direct.output));
        let seen = session.seen();
        prop_assert_eq!(refusals(seen), refusals(expected));
    }

    /// Names whose meaning is not certain, with a policy that decides at Bind.
    #[test]
    fn nothing_runs_that_was_not_decided(
        steps in prop::collection::vec(
            step(&["rows 1", "rows 2", "unbound rows 1", "unbound rows 2", "fail", "secret rows 1", "begin"]),
            1..25,
        ),
        schedule in schedule(),
    ) {
        let mut session = play(&script(&steps), &schedule);
        is_safe(&session);
        let seen = session.received();
        let idle = session.events.iter().filter(|e| matches!(e, ResponseEvent::Idle { .. }));
        prop_assert_eq!(seen.iter().filter(|(tag, _)| *tag == b'Z').count(), idle.count());
        prop_assert_eq!(seen.last().map(|(tag, body)| (*tag, body[0])), Some((b'Z', b'I')));
    }
}

/// A server answers FunctionCall as it answers Query; the model has only that.
fn functions_as_denied_queries(script: &[u8]) -> Vec<u8> {
    let mut script = script.to_vec();
    let messages = take(&mut script).into_iter();
    messages
        .flat_map(|(tag, body)| match tag {
            b'F' => query("secret"),
            _ => message(tag, &body),
        })
        .collect()
}
