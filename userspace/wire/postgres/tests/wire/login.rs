//! Logging in at a server.

use bytes::BytesMut;
use lockgate_wire_postgres::{
    LoginDone, LoginEvent, LoginRequest, Mechanism, ProtocolError, UpstreamLogin,
};

use crate::message::*;

struct Login {
    login: UpstreamLogin,
    out: BytesMut,
}

impl Login {
    fn new(tls: bool, setup: &[&str]) -> Self {
        let request = LoginRequest {
            tls,
            user: "report".into(),
            database: "shop".into(),
            parameters: vec![("application_name".into(), "psql".into())],
            setup: setup.iter().map(|text| (*text).to_owned()).collect(),
        };
        let mut login = Self {
            login: UpstreamLogin::new(request),
            out: BytesMut::new(),
        };
        login.login.start(&mut login.out);
        login
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<LoginEvent, ProtocolError> {
        self.login.feed(&mut BytesMut::from(bytes), &mut self.out)
    }

    fn sent(&mut self) -> Vec<u8> {
        self.out.split().to_vec()
    }
}

fn authentication(code: u32, more: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], more].concat())
}

fn welcome() -> Vec<u8> {
    [
        authentication(0, b""),
        message(b'S', b"server_version\x0015.18\0"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'S', b"TimeZone\0CET\0"),
        message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]),
        ready(b'I'),
    ]
    .concat()
}

fn done(event: Result<LoginEvent, ProtocolError>) -> LoginDone {
    match event {
        Ok(LoginEvent::Ready(done)) => done,
        other => panic!("{other:?}"),
    }
}

const STARTUP: &[u8] =
    b"\0\0\0\x3f\0\x03\0\0user\0report\0database\0shop\0application_name\0psql\0\0";

#[test]
fn the_startup_message_is_the_requests() {
    let mut login = Login::new(false, &[]);
    let mut expected = STARTUP.to_vec();
    expected[..4].copy_from_slice(&(STARTUP.len() as u32).to_be_bytes());
    assert_eq!(login.sent(), expected);
    let done = done(login.feed(&welcome()));
    let parameters: Vec<(&str, &str)> = done
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        parameters,
        [("server_version", "15.18"), ("TimeZone", "CET")]
    );
    assert!(done.key.is_some());
}

#[test]
fn a_login_is_the_same_whatever_the_cut() {
    let answers = [
        welcome(),
        description(),
        row("shop"),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat();
    for cut in 0..answers.len() {
        let mut login = Login::new(false, &["SELECT 1"]);
        login.sent();
        let mut input = BytesMut::from(&answers[..cut]);
        let mut event = login.login.feed(&mut input, &mut login.out);
        input.extend_from_slice(&answers[cut..]);
        while matches!(event, Ok(LoginEvent::NeedMore)) {
            event = login.login.feed(&mut input, &mut login.out);
        }
        assert_eq!(
            done(event).setup_rows,
            [vec![vec![Some("shop".to_owned())]]]
        );
        assert_eq!(login.sent(), query("SELECT 1"));
    }
}

#[test]
fn tls_comes_first_or_not_at_all() {
    let mut login = Login::new(true, &[]);
    assert_eq!(login.sent(), [0, 0, 0, 8, 4, 210, 22, 47]);
    assert!(matches!(login.feed(b""), Ok(LoginEvent::NeedMore)));
    assert!(matches!(login.feed(b"S"), Ok(LoginEvent::StartTls)));
    login.login.tls_done(&mut login.out);
    assert_eq!(login.sent()[4..8], [0, 3, 0, 0]);
    for refusal in [&b"N"[..], b"E\0\0\0\x05"] {
        assert!(matches!(
            Login::new(true, &[]).feed(refusal),
            Ok(LoginEvent::TlsRefused)
        ));
    }
    assert_eq!(
        Login::new(true, &[]).feed(b"SR").unwrap_err().sqlstate(),
        "08P01"
    );
}

#[test]
fn scram_ends_with_the_servers_proof() {
    let offer = authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    let mut login = Login::new(false, &[]);
    login.sent();
    assert!(matches!(
        login.feed(&offer),
        Ok(LoginEvent::NeedScram { plus_offered: true })
    ));
    login
        .login
        .sasl_initial(Mechanism::ScramSha256Plus, b"first", &mut login.out);
    assert_eq!(
        login.sent(),
        message(b'p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x05first")
    );
    match login.feed(&authentication(11, b"r=1")) {
        Ok(LoginEvent::ScramContinue(bytes)) => assert_eq!(bytes, "r=1"),
        other => panic!("{other:?}"),
    }
    login.login.sasl_response(b"proof", &mut login.out);
    assert_eq!(login.sent(), message(b'p', b"proof"));
    match login.feed(&authentication(12, b"v=1")) {
        Ok(LoginEvent::ScramFinal(bytes)) => assert_eq!(bytes, "v=1"),
        other => panic!("{other:?}"),
    }
    login.login.sasl_verified();
    done(login.feed(&welcome()));
}

#[test]
fn a_server_that_skips_its_proof_is_refused() {
    let steps: [fn(&mut Login); 4] = [
        |login| {
            login
                .login
                .sasl_initial(Mechanism::ScramSha256, b"first", &mut login.out)
        },
        |login| drop(login.feed(&authentication(11, b"r=1"))),
        |login| login.login.sasl_response(b"proof", &mut login.out),
        |login| drop(login.feed(&authentication(12, b"v=1"))),
    ];
    for count in 1..=steps.len() {
        let mut login = Login::new(false, &[]);
        assert!(
            login
                .feed(&authentication(10, b"SCRAM-SHA-256\0\0"))
                .is_ok()
        );
        steps[..count].iter().for_each(|step| step(&mut login));
        assert_eq!(
            login.feed(&authentication(0, b"")).unwrap_err().sqlstate(),
            "08P01"
        );
    }
}

#[test]
fn passwords_are_asked_for_by_name() {
    let mut login = Login::new(false, &[]);
    login.sent();
    let event = login.feed(&authentication(5, &[1, 2, 3, 4]));
    assert!(matches!(
        event,
        Ok(LoginEvent::NeedPassword {
            md5_salt: Some([1, 2, 3, 4])
        })
    ));
    login.login.password(b"md5abc", &mut login.out);
    assert_eq!(login.sent(), message(b'p', b"md5abc\0"));
    done(login.feed(&welcome()));
    let event = Login::new(false, &[]).feed(&authentication(3, b""));
    assert!(matches!(
        event,
        Ok(LoginEvent::NeedPassword { md5_salt: None })
    ));
}

#[test]
fn other_ways_to_authenticate_are_refused_by_name() {
    for (code, name) in [
        (7, "GSSAPI"),
        (9, "SSPI"),
        (2, "Kerberos V5"),
        (77, "method 77"),
    ] {
        let error = Login::new(false, &[])
            .feed(&authentication(code, b""))
            .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let none = authentication(10, b"OAUTHBEARER\0\0");
    assert_eq!(
        Login::new(false, &[]).feed(&none).unwrap_err().sqlstate(),
        "0A000"
    );
}

#[test]
fn the_servers_refusal_is_passed_on() {
    let refusal = error("28P01", "password authentication failed");
    match Login::new(false, &[]).feed(&refusal) {
        Ok(LoginEvent::Failed(fields)) => {
            assert_eq!(fields.sqlstate(), "28P01");
            assert_eq!(fields.message(), "password authentication failed");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_does_not_belong_into_a_login_is_refused() {
    for bytes in [
        row("x"),
        ready(b'I'),
        message(b'K', &[0; 8]),
        message(b'R', &[0]),
        message(b'1', &[]),
        authentication(11, b"r=1"),
        authentication(12, b"v=1"),
        authentication(5, &[1]),
        b"R\0\0\0\x01".to_vec(),
        b"R\0\x50\0\0".to_vec(),
        b"S\xff\0\0\0".to_vec(),
    ] {
        assert!(Login::new(false, &[]).feed(&bytes).is_err(), "{bytes:?}");
    }
    let in_transaction = [authentication(0, b""), ready(b'T')].concat();
    assert!(Login::new(false, &[]).feed(&in_transaction).is_err());
}

#[test]
fn an_endless_welcome_ends() {
    let mut login = Login::new(false, &["SELECT 1"]);
    assert!(login.feed(&welcome()).is_ok());
    let rows = [description(), row(&"x".repeat(1000)).repeat(1000)].concat();
    let error = (0..10)
        .find_map(|_| login.feed(&rows).err())
        .expect("an end");
    assert_eq!(error.sqlstate(), "54000");
}
