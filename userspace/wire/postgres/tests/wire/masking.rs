//! Rows that are shown in another form.

use std::sync::Arc;

use bytes::BytesMut;
use lockgate_config::Mask;
use lockgate_mask::postgres::Masker;
use lockgate_wire_postgres::{CopyRows, Masking, ProtocolError, Relay};

use crate::message::*;
use crate::relay::{answers, next, relay};

/// Two columns, of which the second shows its last two characters.
fn masking(copy: Option<CopyRows>) -> Option<Arc<Masking>> {
    let mask = Masker::new(Mask::KeepLast(2), "text", None).unwrap();
    Masking::new(2, [(1, mask)], copy).map(Arc::new)
}

fn described(columns: u16) -> Vec<u8> {
    let mut body = columns.to_be_bytes().to_vec();
    for column in 0..columns {
        body.extend(format!("c{column}\0").bytes());
        body.extend([0; 18]);
    }
    message(b'T', &body)
}

fn row_of(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(value.bytes());
            }
        }
    }
    message(b'D', &body)
}

fn copy_out_of(columns: u16, format: u8) -> Vec<u8> {
    let mut body = vec![format];
    body.extend(columns.to_be_bytes());
    body.extend((0..columns).flat_map(|_| u16::from(format).to_be_bytes()));
    message(b'H', &body)
}

fn asked(copy: Option<CopyRows>) -> Relay<String> {
    let mut relay = relay();
    let mut out = BytesMut::new();
    next(&mut relay, &query("x"), &mut out).unwrap();
    relay.allow_query(1, masking(copy), &mut out);
    relay
}

/// What the client gets of `bytes`, cut at every place.
fn shown(relay: impl Fn() -> Relay<String>, bytes: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let whole = answers(&mut relay(), bytes).map(|(client, _)| client);
    for cut in 0..bytes.len() {
        let mut relay = relay();
        let (mut input, mut client) = (BytesMut::from(&bytes[..cut]), BytesMut::new());
        let mut events = Vec::new();
        let mut both = relay.responses(&mut input, &mut client, &mut events);
        if both.is_ok() {
            input.extend_from_slice(&bytes[cut..]);
            both = relay.responses(&mut input, &mut client, &mut events);
        }
        match (both, &whole) {
            (Ok(()), Ok(whole)) => assert_eq!(&client, whole, "cut at {cut}"),
            (Err(error), Err(other)) => assert_eq!(&error, other, "cut at {cut}"),
            (one, other) => panic!("cut at {cut}: {one:?}, not {other:?}"),
        }
    }
    whole
}

#[test]
fn rows_of_a_query() {
    let rows = |secrets: [Option<&str>; 3]| {
        let [a, b, c] = secrets.map(|secret| row_of(&[Some("open"), secret]));
        [described(2), a, b, c, complete("SELECT 3"), ready(b'I')].concat()
    };
    let seen = shown(|| asked(None), &rows([Some("secret"), None, Some("")])).unwrap();
    assert_eq!(seen, rows([Some("****et"), None, Some("")]));
}

#[test]
fn rows_of_a_copy() {
    let text = CopyRows::Text {
        delimiter: b'\t',
        header: true,
    };
    let data = |secret: &str| {
        let line = format!("open\t{secret}\n");
        [
            copy_out_of(2, 0),
            copy_data(b"a\tb\n"),
            copy_data(line.as_bytes()),
            copy_done(),
            complete("COPY 1"),
            ready(b'I'),
        ]
        .concat()
    };
    let seen = shown(|| asked(Some(text)), &data("secret")).unwrap();
    assert_eq!(seen, data("****et"));

    let signature = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let body = |row: &[u8]| row[5..].to_vec();
    let data = |secret: &str| {
        let row = body(&row_of(&[None, Some(secret)]));
        [
            copy_out_of(2, 1),
            copy_data(&[signature, &row[..]].concat()),
            copy_data(&row),
            copy_data(&[0xff, 0xff]),
            copy_done(),
            complete("COPY 2"),
            ready(b'I'),
        ]
        .concat()
    };
    let seen = shown(|| asked(Some(CopyRows::Binary)), &data("secret")).unwrap();
    assert_eq!(seen, data("****et"));
}

/// Whatever is not the result that was decided on ends the session, before
/// the client has a byte of it.
#[test]
fn another_result_is_not_shown() {
    let text = Some(CopyRows::Text {
        delimiter: b'\t',
        header: false,
    });
    let secret = row_of(&[Some("open"), Some("secret")]);
    for (what, copy, bytes) in [
        ("fewer columns", None, vec![described(1)]),
        ("more columns", None, vec![described(3)]),
        (
            "a row of fewer",
            None,
            vec![described(2), row_of(&[Some("secret")])],
        ),
        (
            "a row of more",
            None,
            vec![
                described(2),
                row_of(&[Some("a"), Some("b"), Some("secret")]),
            ],
        ),
        (
            "a second result",
            None,
            vec![described(2), complete("SELECT 0"), described(2)],
        ),
        ("a COPY", None, vec![copy_out_of(2, 0)]),
        (
            "COPY data",
            None,
            vec![described(2), copy_data(b"open\tsecret\n")],
        ),
        ("rows for a COPY", text, vec![described(2), secret.clone()]),
        (
            "rows in a COPY",
            text,
            vec![copy_out_of(2, 0), secret.clone()],
        ),
        ("a COPY in binary", text, vec![copy_out_of(2, 1)]),
        ("a COPY of more", text, vec![copy_out_of(3, 0)]),
        (
            "half a line",
            text,
            vec![copy_out_of(2, 0), copy_data(b"open\tsec")],
        ),
        (
            "two lines",
            text,
            vec![
                copy_out_of(2, 0),
                copy_data(b"open\tsecret\nopen\tsecret\n"),
            ],
        ),
        (
            "a value that ends late",
            None,
            vec![
                described(2),
                message(b'D', b"\0\x02\0\0\0\x01a\0\0\0\x09secret"),
            ],
        ),
        (
            "a value of no length",
            None,
            vec![
                described(2),
                message(b'D', b"\0\x02\0\0\0\x01a\xff\xff\xff\xfesecret"),
            ],
        ),
        (
            "more than its values",
            None,
            vec![
                described(2),
                message(b'D', b"\0\x02\0\0\0\x01a\xff\xff\xff\xffsecret"),
            ],
        ),
    ] {
        let mut relay = asked(copy);
        let (mut client, mut events) = (BytesMut::new(), Vec::new());
        let mut input = BytesMut::from(&bytes.concat()[..]);
        let error = relay.responses(&mut input, &mut client, &mut events);
        assert_eq!(error.unwrap_err().sqlstate(), "08P01", "{what}");
        let seen = String::from_utf8_lossy(&client).into_owned();
        assert!(!seen.contains("secret"), "{what}: {seen}");
    }
}

#[test]
fn a_row_that_is_too_large_to_be_masked_ends_the_session() {
    let mut relay = asked(None);
    answers(&mut relay, &described(2)).unwrap();
    let huge = row_of(&[Some("open"), Some(&"x".repeat(16 << 20))]);
    let error = answers(&mut relay, &huge[..100]).unwrap_err();
    assert_eq!(error.sqlstate(), "54000");
}

/// Sends a masked Bind and its Execute; `between` what comes between them.
fn bound(portal: &str, between: impl FnOnce(&mut Relay<String>)) -> Relay<String> {
    let mut relay = relay();
    let mut out = BytesMut::new();
    next(&mut relay, &parse("", "x"), &mut out).unwrap();
    relay.allow_parse("x".into(), &mut out);
    next(&mut relay, &bind(portal, "", "x"), &mut out).unwrap();
    relay.allow_bind(2, masking(None), &mut out);
    between(&mut relay);
    relay
}

fn executed(relay: &mut Relay<String>, portal: &str) {
    let mut out = BytesMut::new();
    next(relay, &execute(portal, 0), &mut out).unwrap();
    relay.allow_execute(&mut out);
    next(relay, &sync(), &mut out).unwrap();
}

#[test]
fn rows_of_a_portal() {
    for portal in ["", "p"] {
        let asked = || {
            bound(portal, |relay| {
                executed(relay, portal);
            })
        };
        let rows = |secret| {
            [
                message(b'1', &[]),
                message(b'2', &[]),
                row_of(&[None, Some(secret)]),
                complete("SELECT 1"),
                ready(b'I'),
            ]
            .concat()
        };
        assert_eq!(shown(asked, &rows("secret")).unwrap(), rows("****et"));
    }
}

/// A name that is bound again shows what it is bound to by then.
#[test]
fn a_portal_bound_again_is_another() {
    let mut relay = bound("", |relay| executed(relay, ""));
    let mut out = BytesMut::new();
    next(&mut relay, &bind("", "", "x"), &mut out).unwrap();
    relay.allow_bind(3, None, &mut out);
    executed(&mut relay, "");
    let rows = |first: &str, second: &str| {
        let row = |value| row_of(&[None, Some(value)]);
        [
            message(b'1', &[]),
            message(b'2', &[]),
            row(first),
            complete("SELECT 1"),
            ready(b'I'),
            message(b'2', &[]),
            row(second),
            complete("SELECT 1"),
            ready(b'I'),
        ]
        .concat()
    };
    let seen = answers(&mut relay, &rows("secret", "public")).unwrap().0;
    assert_eq!(seen, rows("****et", "public"));
}

/// What is forgotten between Execute and its rows could have been masked.
#[test]
fn rows_of_a_portal_that_was_forgotten_are_not_shown() {
    let mut relay = bound("p", |relay| executed(relay, "p"));
    relay.forget_portals();
    let bytes = [
        message(b'1', &[]),
        message(b'2', &[]),
        row_of(&[None, Some("secret")]),
    ];
    let (mut client, mut events) = (BytesMut::new(), Vec::new());
    let mut input = BytesMut::from(&bytes.concat()[..]);
    let error = relay.responses(&mut input, &mut client, &mut events);
    assert_eq!(error.unwrap_err().sqlstate(), "08P01");
    assert!(!client.ends_with(b"secret"), "{client:?}");
}
