//! A client's first packets.

use bytes::BytesMut;
use lockgate_wire_postgres::{
    CancelKey, ClientStartup, LoginDone, ProtocolError, StartupEvent, StartupMessage,
    cancel_request, error_response, greet,
};

use crate::message::{message, take};

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend(code.to_be_bytes());
    out.extend(body);
    out
}

fn startup(minor: u32, parameters: &[u8]) -> Vec<u8> {
    packet(3 << 16 | minor, parameters)
}

const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;

fn feed(bytes: &[u8]) -> Result<StartupEvent, ProtocolError> {
    ClientStartup::new().feed(&mut BytesMut::from(bytes))
}

fn session(bytes: &[u8]) -> StartupMessage {
    match feed(bytes) {
        Ok(StartupEvent::Startup(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_startup_message_is_read_whatever_the_cut() {
    let bytes = startup(0, b"user\0joe\0application_name\0psql\0\0");
    for cut in 0..bytes.len() {
        let mut startup = ClientStartup::new();
        let mut input = BytesMut::from(&bytes[..cut]);
        assert!(matches!(
            startup.feed(&mut input),
            Ok(StartupEvent::NeedMore)
        ));
        input.extend_from_slice(&bytes[cut..]);
        let Ok(StartupEvent::Startup(message)) = startup.feed(&mut input) else {
            panic!()
        };
        assert!(input.is_empty());
        assert_eq!((message.user(), message.database()), ("joe", "joe"));
        assert_eq!(message.get("application_name"), Some("psql"));
        assert_eq!(message.protocol(), (3, 0));
    }
}

#[test]
fn encryption_is_asked_for_in_every_order() {
    let mut startup = ClientStartup::new();
    let mut feed = |bytes: &[u8]| startup.feed(&mut BytesMut::from(bytes)).unwrap();
    assert!(matches!(
        feed(&packet(GSSENC, b"")),
        StartupEvent::Reply(b"N")
    ));
    assert!(matches!(
        feed(&packet(SSL, b"")),
        StartupEvent::StartTls {
            reply: b"S",
            direct: false
        }
    ));
    startup.tls_done();
    let again = startup.feed(&mut BytesMut::from(&packet(SSL, b"")[..]));
    assert_eq!(again.unwrap_err().sqlstate(), "0A000");
}

#[test]
fn direct_tls_is_seen_by_its_first_byte() {
    let mut startup = ClientStartup::new();
    let mut input = BytesMut::from(&b"\x16\x03\x01"[..]);
    assert!(matches!(
        startup.feed(&mut input),
        Ok(StartupEvent::StartTls {
            reply: b"",
            direct: true
        })
    ));
    assert_eq!(&input[..], b"\x16\x03\x01");
}

#[test]
fn bytes_in_clear_behind_a_request_for_encryption_are_refused() {
    for code in [SSL, GSSENC] {
        let bytes = [packet(code, b""), startup(0, b"user\0joe\0\0")].concat();
        assert_eq!(feed(&bytes).unwrap_err().sqlstate(), "08P01");
    }
}

#[test]
fn what_is_no_startup_is_refused() {
    let long = [&b"user\0"[..], &[b'x'; 10_000][..], b"\0\0"].concat();
    let cases: [(Vec<u8>, &str); 15] = [
        (b"GET / HTTP/1.1\r\n".to_vec(), "08P01"),
        (b"\0\0\0\x07".to_vec(), "08P01"),
        (b"\xff\xff\xff\xff".to_vec(), "08P01"),
        (startup(0, &long)[..4].to_vec(), "08P01"),
        (packet(2 << 16, b"x\0"), "0A000"),
        (packet(4 << 16, b"user\0joe\0\0"), "0A000"),
        (packet(SSL, b"more"), "0A000"),
        (packet(0, b""), "0A000"),
        (startup(0, b"\0"), "08P01"),
        (startup(0, b"user\0joe\0"), "08P01"),
        (startup(0, b"user\0joe\0\0more"), "08P01"),
        (startup(0, b"user\0joe\0user\0admin\0\0"), "08P01"),
        (startup(0, b"user\0\xff\xfe\0\0"), "08P01"),
        (startup(0, b"user\0joe\0replication\0database\0\0"), "0A000"),
        (startup(0, b"user\0joe\0replication\0true\0\0"), "0A000"),
    ];
    for (bytes, sqlstate) in cases {
        assert_eq!(feed(&bytes).unwrap_err().sqlstate(), sqlstate, "{bytes:?}");
    }
    assert_eq!(
        session(&startup(0, b"user\0joe\0replication\0off\0\0")).user(),
        "joe"
    );
}

#[test]
fn the_longest_packet_is_the_servers_own() {
    let fits = [
        &b"user\0joe\0x\0"[..],
        &vec![b'x'; 10_000 - 8 - 13][..],
        b"\0\0",
    ]
    .concat();
    assert_eq!(startup(0, &fits).len(), 10_000);
    assert_eq!(session(&startup(0, &fits)).user(), "joe");
    let longer = [&b"x"[..], &fits].concat();
    assert!(feed(&startup(0, &longer)).is_err());
}

#[test]
fn cancel_keys_have_four_to_256_bytes() {
    for length in [4, 32, 256] {
        let bytes = packet(CANCEL, &[&[0, 0, 0, 9][..], &vec![7; length]].concat());
        let Ok(StartupEvent::Cancel(key)) = feed(&bytes) else {
            panic!("{length}")
        };
        assert_eq!(cancel_request(&key), bytes);
        assert_eq!(format!("{key:?}"), "CancelKey(..)");
    }
    for length in [0, 3, 257] {
        assert!(
            feed(&packet(
                CANCEL,
                &[&[0, 0, 0, 9][..], &vec![7; length]].concat()
            ))
            .is_err()
        );
    }
}

fn greeting(message: &StartupMessage) -> Vec<(u8, Vec<u8>)> {
    let done = LoginDone {
        parameters: vec![("server_version".into(), "15.18".into())],
        status: b'I',
        ..LoginDone::default()
    };
    let key = CancelKey::generate(message.protocol().1, |bytes| bytes.fill(0xff));
    let mut out = BytesMut::new();
    greet(&mut out, &done, &key, message);
    take(&mut out.to_vec())
}

#[test]
fn a_client_of_3_0_is_greeted_as_always() {
    let expected = [
        (b'R', vec![0; 4]),
        (b'S', b"server_version\x0015.18\0".to_vec()),
        (b'K', [&[0x7f, 0xff, 0xff, 0xff][..], &[0xff; 4]].concat()),
        (b'Z', b"I".to_vec()),
    ];
    assert_eq!(greeting(&session(&startup(0, b"user\0joe\0\0"))), expected);
}

#[test]
fn newer_versions_and_options_are_negotiated() {
    let plain = greeting(&session(&startup(2, b"user\0joe\0\0")));
    assert_eq!(plain[0].0, b'R');
    assert_eq!(plain[2].1.len(), 4 + 32);
    let newest = session(&startup(9999, b"user\0joe\0_pq_.x\0\x31\0\0"));
    assert_eq!(newest.protocol(), (3, 2));
    let expected = (b'v', b"\0\x03\0\x02\0\0\0\x01_pq_.x\0".to_vec());
    assert_eq!(greeting(&newest)[0], expected);
    let unused = session(&startup(1, b"user\0joe\0\0"));
    assert_eq!(greeting(&unused)[0], (b'v', b"\0\x03\0\0\0\0\0\0".to_vec()));
}

#[test]
fn errors_have_the_fields_that_clients_read() {
    let mut out = BytesMut::new();
    error_response(&mut out, "FATAL", "42501", "no", Some("d"), Some("h"));
    assert_eq!(
        out[..],
        message(b'E', b"SFATAL\0VFATAL\0C42501\0Mno\0Dd\0Hh\0\0")
    );
}
