//! What is not of the protocol, too long or too much, from either side.

use bytes::BytesMut;

use crate::message::*;
use crate::relay::{answers, next, relay};
use crate::session::Session;

#[test]
fn bad_messages_are_refused_by_their_header() {
    let cases: [(&[u8], &str); 13] = [
        (b"Q\0\0\0\x03", "08P01"),
        (b"S\0\0\0\0", "08P01"),
        (b"Q\xff\xff\xff\xff", "08P01"),
        (b"d\x7f\xff\xff\xff", "08P01"),
        (b"Q\0\0\x04\0", "54000"),
        (b"P\x10\0\0\0", "54000"),
        (b"S\0\0\0\x05", "08P01"),
        (b"c\0\0\x03\0", "08P01"),
        (b"p\0\0\0\x08", "08P01"),
        (b"R\0\0\0\x08", "08P01"),
        (b"W\0\0\0\x08", "08P01"),
        (b"\0\0\0\0\x08", "08P01"),
        (b"\xff\0\0\0\x08", "08P01"),
    ];
    for (header, sqlstate) in cases {
        let mut out = BytesMut::new();
        let error = next(&mut relay(), header, &mut out).unwrap_err();
        assert_eq!(error.sqlstate(), sqlstate, "{header:?}: {error}");
        assert!(out.is_empty());
    }
}

#[test]
fn lengths_that_do_not_add_up_are_refused() {
    let mut bind_longer = bind("", "", "abc");
    let at = bind_longer.len() - 6;
    bind_longer[at] = 99;
    let cases = [
        message(b'Q', b"no end"),
        message(b'Q', b"two\0texts\0"),
        message(b'P', b"\0text\0\0"),
        message(b'P', b"\0text\0\0\x02\0\0\0\x17"),
        message(b'B', b"\0\0"),
        message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        bind_longer,
        message(b'E', b"\0\0\0\0"),
        message(b'D', b"X\0"),
        message(b'D', b""),
        message(b'C', b"Sname"),
        message(b'f', b"reason"),
    ];
    for bytes in cases {
        let mut out = BytesMut::new();
        let error = next(&mut relay(), &bytes, &mut out).unwrap_err();
        assert_eq!(error.sqlstate(), "08P01", "{bytes:?}");
        assert!(out.is_empty(), "{bytes:?} was forwarded");
    }
}

#[test]
fn names_that_the_server_would_cut_are_refused() {
    let long = "x".repeat(64);
    for bytes in [
        parse(&long, "x"),
        bind(&long, "", "x"),
        bind("", &long, "x"),
        execute(&long, 0),
        close(b'S', &long),
        describe(b'P', &long),
    ] {
        assert_eq!(
            next(&mut relay(), &bytes, &mut BytesMut::new())
                .unwrap_err()
                .sqlstate(),
            "54000"
        );
    }
    let fits = parse(&long[1..], "x");
    assert!(
        next(&mut relay(), &fits, &mut BytesMut::new())
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_session_has_so_many_names_and_no_more() {
    let mut relay = relay();
    let mut out = BytesMut::new();
    for number in 0..16_384 {
        next(&mut relay, &parse(&number.to_string(), "x"), &mut out).unwrap();
        relay.allow_parse(String::new(), &mut out);
    }
    // Names that are there, and the unnamed statement, still go.
    for name in ["5", ""] {
        next(&mut relay, &parse(name, "x"), &mut out).unwrap();
        relay.allow_parse(String::new(), &mut out);
    }
    assert_eq!(
        next(&mut relay, &parse("one more", "x"), &mut out)
            .unwrap_err()
            .sqlstate(),
        "54000"
    );
}

#[test]
fn messages_within_copy_data_end_the_session() {
    let mut session = Session::new();
    session.send(&query("copy in"));
    for bytes in [
        query("x"),
        parse("", "x"),
        execute("", 0),
        message(b'F', &[0; 12]),
    ] {
        let mut out = BytesMut::new();
        assert!(next(&mut session.relay, &bytes, &mut out).is_err());
        assert!(out.is_empty());
    }
}

#[test]
fn answers_to_nothing_are_not_passed_on() {
    for bytes in [
        row("x"),
        copy_data(b"x"),
        complete("SELECT 1"),
        ready(b'I'),
        message(b'1', &[]),
        message(b'W', &[0, 0, 0]),
        message(b'R', &[0; 4]),
        message(b'K', &[0; 8]),
        message(b'V', &[0; 4]),
        message(b'v', &[0; 8]),
        copy_in(),
        message(b'Q', b"x\0"),
        message(b'E', b"SERROR"),
        message(b'E', b""),
        message(b'E', b"SERROR\0\0more"),
        b"T\0\0\0\x03".to_vec(),
        b"N\x3f\0\0\0".to_vec(),
        b"W\0\0".to_vec()[..1].repeat(5),
    ] {
        let mut relay = relay();
        let (mut client, mut events) = (BytesMut::new(), Vec::new());
        relay
            .responses(&mut BytesMut::from(&bytes[..]), &mut client, &mut events)
            .expect_err("a message that does not belong there");
        assert!(client.is_empty());
    }
    let mut relay = relay();
    next(&mut relay, &sync(), &mut BytesMut::new()).unwrap();
    for bytes in [ready(b'X'), message(b'Z', b""), row("x")] {
        assert!(answers(&mut relay, &bytes).is_err());
    }
}
