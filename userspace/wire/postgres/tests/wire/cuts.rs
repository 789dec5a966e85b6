//! Where the bytes are cut changes nothing.

use lockgate_wire_postgres::ResponseEvent;
use proptest::prelude::*;

use crate::message::*;
use crate::session::Session;

/// A script with everything in it, and the same denials each time.
fn everything() -> Vec<u8> {
    [
        parse("", "rows 2"),
        bind("", "", "a"),
        describe(b'P', ""),
        execute("", 0),
        sync(),
        query("rows 1;rows 2"),
        query("secret"),
        query("copy in"),
        copy_data(&[b'x'; 700]),
        copy_done(),
        parse("s", "secret"),
        bind("", "s", "b"),
        sync(),
        query("copy out"),
        parse("", "copy in"),
        bind("", "", "c"),
        execute("", 0),
        flush(),
        copy_data(b"one"),
        sync(),
        copy_fail("no"),
        sync(),
        query("fail"),
        query(""),
    ]
    .concat()
}

/// Feeds `script` cut at `cuts`, then the server's answers cut so, too.
fn in_pieces(script: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<u8>, Vec<ResponseEvent>) {
    let pieces = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        at.windows(2)
            .map(|pair| bytes[pair[0]..pair[1]].to_vec())
            .collect()
    };
    let mut session = Session::new();
    let mut sent = Vec::new();
    for piece in pieces(script) {
        session.to_relay.extend_from_slice(&piece);
        session.requests();
        sent.extend_from_slice(&session.to_server.split());
    }
    session.server.feed(&sent);
    assert!(!session.server.dead);
    let answers = std::mem::take(&mut session.server.output);
    for piece in pieces(&answers) {
        session.server.output = piece;
        session.deliver_answers(usize::MAX);
    }
    (sent, session.to_client.to_vec(), session.events)
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let script = everything();
    let whole = in_pieces(&script, &[]);
    assert!(whole.2.len() > 10);
    for cut in 0..=script.len() {
        assert_eq!(in_pieces(&script, &[cut]), whole, "cut at {cut}");
    }
    let every: Vec<usize> = (0..100_000).collect();
    assert_eq!(in_pieces(&script, &every), whole, "cut everywhere");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(ProptestConfig::default().cases.max(500)) })]

    #[test]
    fn cuts_anywhere_change_nothing(cuts in prop::collection::vec(any::<usize>(), 0..30)) {
        let script = everything();
        prop_assert_eq!(in_pieces(&script, &cuts), in_pieces(&script, &[]));
    }
}
