//! What is fuzzed. Each body panics where something does not hold.
#![allow(dead_code, reason = "each target uses one of them")]

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BytesMut;
use lockgate_config::Mask;
use lockgate_mask::postgres::Masker;
use lockgate_wire_postgres::{
    ClientStartup, CopyRows, DenialText, LoginEvent, LoginRequest, Masking, Relay, RelaySettings,
    Request, StartupEvent, UpstreamLogin,
};

const LIMIT: usize = 256;

/// A client's first packets, and a server's: what they mean does not depend
/// on how they are cut.
pub fn startup(data: &[u8]) {
    assert_eq!(greeting(data, data.len()), greeting(data, 1));
    assert_eq!(login(data, data.len()), login(data, 1));
}

fn greeting(data: &[u8], piece: usize) -> Vec<String> {
    let mut startup = ClientStartup::new();
    let mut seen = Vec::new();
    // A request for encryption must be the last that was sent, so that where
    // it ends is told by the cut; only the first packet is compared.
    let length = match data.first_chunk::<4>() {
        Some(_) if data[0] == 0x16 => 1,
        Some(length) => (u32::from_be_bytes(*length) as usize).min(data.len()),
        None => data.len(),
    };
    let mut input = BytesMut::new();
    for bytes in data[..length].chunks(piece.max(1)) {
        input.extend_from_slice(bytes);
        match startup.feed(&mut input) {
            Ok(StartupEvent::NeedMore) => {}
            Ok(event) => {
                seen.push(format!("{event:?}"));
                break;
            }
            Err(error) => {
                seen.push(error.to_string());
                break;
            }
        }
    }
    seen
}

fn login(data: &[u8], piece: usize) -> String {
    let mut login = UpstreamLogin::new(LoginRequest {
        tls: false,
        user: "u".into(),
        database: "d".into(),
        parameters: Vec::new(),
        setup: vec!["SELECT 1".into()],
    });
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    login.start(&mut out);
    let mut chunks = data.chunks(piece.max(1));
    loop {
        match login.feed(&mut input, &mut out) {
            Ok(LoginEvent::NeedMore) => match chunks.next() {
                Some(bytes) => input.extend_from_slice(bytes),
                None => return "waits".into(),
            },
            Ok(event) => return format!("{event:?}"),
            Err(error) => return error.to_string(),
        }
    }
}

/// Both sides of a session: the first byte of each piece says whose it is, how
/// long it is, and what the verdicts are. Nothing but decided, whole messages
/// may go to the server.
pub fn relay(data: &[u8]) {
    let mut session = Session::default();
    let mut rest = data;
    while let Some((&control, tail)) = rest.split_first() {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(control >> 2)));
        rest = tail;
        let goes_on = match control & 1 {
            0 => session.client(bytes, control & 2 != 0),
            _ => session.server(bytes),
        };
        if !goes_on {
            break;
        }
    }
    session.check();
}

/// Of every third command rows are masked, of another COPY data.
fn masking(number: u64) -> Option<Arc<Masking>> {
    let copy = match number % 3 {
        0 => return None,
        1 => None,
        _ => Some(CopyRows::Csv {
            delimiter: b',',
            header: number.is_multiple_of(2),
        }),
    };
    let mask = Masker::new(Mask::Redact, "text", None).ok()?;
    Masking::new(1, [(0, mask)], copy).map(Arc::new)
}

struct Session {
    relay: Relay<u64>,
    from_client: BytesMut,
    to_server: BytesMut,
    sent: Vec<u8>,
    from_server: BytesMut,
    to_client: BytesMut,
    received: usize,
    allowed: HashSet<Vec<u8>>,
    number: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            relay: Relay::new(RelaySettings {
                message_bytes: LIMIT,
                scrub_errors: false,
            }),
            from_client: BytesMut::new(),
            to_server: BytesMut::new(),
            sent: Vec::new(),
            from_server: BytesMut::new(),
            to_client: BytesMut::new(),
            received: 0,
            allowed: HashSet::new(),
            number: 0,
        }
    }
}

impl Session {
    fn client(&mut self, bytes: &[u8], deny: bool) -> bool {
        self.from_client.extend_from_slice(bytes);
        loop {
            let request = match self
                .relay
                .next_request(&mut self.from_client, &mut self.to_server)
            {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(_) => return false,
            };
            self.number += 1;
            let (relay, out) = (&mut self.relay, &mut self.to_server);
            match request {
                Request::Terminate => return false,
                Request::Query { text } if !deny => {
                    self.allowed.insert(text.to_vec());
                    relay.allow_query(self.number, masking(self.number), out);
                }
                Request::Parse { text, .. } if !deny => {
                    self.allowed.insert(text.to_vec());
                    relay.allow_parse(self.number, out);
                }
                Request::Bind { candidates, .. } if !deny && !candidates.is_empty() => {
                    relay.allow_bind(self.number, masking(self.number), out);
                }
                Request::Execute { tickets } if !deny && !tickets.is_empty() => {
                    relay.allow_execute(out);
                }
                _ => {
                    let text = DenialText {
                        message: "no".into(),
                        hint: None,
                        detail: None,
                    };
                    let nonce = u128::from(self.number).to_be_bytes();
                    relay.deny(Some(self.number), text, nonce, out);
                }
            }
        }
        self.sent.extend_from_slice(&self.to_server.split());
        true
    }

    fn server(&mut self, bytes: &[u8]) -> bool {
        self.received += bytes.len();
        self.from_server.extend_from_slice(bytes);
        let mut events = Vec::new();
        let done = self
            .relay
            .responses(&mut self.from_server, &mut self.to_client, &mut events);
        done.is_ok()
    }

    fn check(&mut self) {
        self.sent.extend_from_slice(&self.to_server.split());
        let mut rest = &self.sent[..];
        while let Some((&[tag, a, b, c, d], tail)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize - 4;
            if tag == b'd' {
                rest = &tail[length.min(tail.len())..];
                continue;
            }
            assert!(tail.len() >= length, "a message was not sent whole");
            let (body, behind) = tail.split_at(length);
            rest = behind;
            let mut strings = body.split(|byte| *byte == 0);
            let text = match tag {
                b'Q' => strings.next(),
                b'P' => strings.nth(1),
                b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'c' | b'f' | b'X' => None,
                other => panic!("a message of type {other} was sent"),
            };
            if let Some(text) = text {
                let decided = self.allowed.contains(text) || text.starts_with(b"lockgate_denied_");
                assert!(decided, "a text was sent that was not decided");
            }
        }
        // The head of CopyData goes as it comes, so up to four bytes of it may
        // be all there is.
        assert!(rest.is_empty(), "half a header was sent");
    }
}
