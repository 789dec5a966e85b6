//! A relay between a script and the model server, with a policy: texts with
//! `secret` are denied where they are seen first, texts with `unbound` at Bind.

use std::collections::BTreeMap;

use bytes::BytesMut;
use lockgate_wire_postgres::{DenialText, Relay, RelaySettings, Request, ResponseEvent};

use crate::model::Server;

/// What the client is told of a denial.
pub const DENIED: &str = "denied by the tests' policy";

pub struct Session {
    pub relay: Relay<String>,
    pub server: Server,
    pub to_relay: BytesMut,
    pub to_server: BytesMut,
    pub from_server: BytesMut,
    pub to_client: BytesMut,
    pub events: Vec<ResponseEvent>,
    /// Candidates of each Bind, by its parameter.
    pub candidates: BTreeMap<String, Vec<String>>,
    /// Bind parameters of the tickets of each Execute, in order.
    pub executes: Vec<Vec<String>>,
    pub tickets: BTreeMap<u64, String>,
    next: u64,
}

pub fn denial() -> DenialText {
    DenialText {
        message: DENIED.into(),
        hint: Some("ask".into()),
        detail: None,
    }
}

pub fn nonce(number: u64) -> [u8; 16] {
    let mut nonce = [0xa5; 16];
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

impl Session {
    pub fn new() -> Self {
        let settings = RelaySettings {
            message_bytes: 4096,
            scrub_errors: false,
        };
        Self {
            relay: Relay::new(settings),
            server: Server::default(),
            to_relay: BytesMut::new(),
            to_server: BytesMut::new(),
            from_server: BytesMut::new(),
            to_client: BytesMut::new(),
            events: Vec::new(),
            candidates: BTreeMap::new(),
            executes: Vec::new(),
            tickets: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes and decides every request that is there.
    pub fn requests(&mut self) {
        while let Some(request) = self
            .relay
            .next_request(&mut self.to_relay, &mut self.to_server)
            .expect("the script keeps to the protocol")
        {
            self.decide(request);
        }
    }

    fn decide(&mut self, request: Request<String>) {
        let ticket = self.next;
        self.next += 1;
        let out = &mut self.to_server;
        let mut deny = |relay: &mut Relay<String>, ticket| {
            relay.deny(ticket, denial(), nonce(self.next), out);
        };
        match request {
            Request::Query { text } => {
                let text = String::from_utf8(text.to_vec()).expect("scripts are UTF-8");
                self.tickets.insert(ticket, text.clone());
                match text.contains("secret") {
                    true => deny(&mut self.relay, Some(ticket)),
                    false => self.relay.allow_query(ticket, None, out),
                }
            }
            Request::Parse { text, .. } => {
                let text = String::from_utf8(text.to_vec()).expect("scripts are UTF-8");
                match text.contains("secret") {
                    true => {
                        self.tickets.insert(ticket, text);
                        deny(&mut self.relay, Some(ticket));
                    }
                    false => self.relay.allow_parse(text, out),
                }
            }
            Request::Bind {
                candidates,
                parameters,
                ..
            } => {
                let parameter = &parameters[8..parameters.len() - 2];
                let parameter = String::from_utf8_lossy(parameter).into_owned();
                self.tickets.insert(ticket, parameter.clone());
                let denied =
                    candidates.is_empty() || candidates.iter().any(|text| text.contains("unbound"));
                self.candidates.insert(parameter, candidates.to_vec());
                match denied {
                    true => deny(&mut self.relay, Some(ticket)),
                    false => self.relay.allow_bind(ticket, None, out),
                }
            }
            Request::Execute { tickets } => {
                let bound = tickets.iter().map(|ticket| self.tickets[ticket].clone());
                self.executes.push(bound.collect());
                match tickets.is_empty() {
                    true => deny(&mut self.relay, None),
                    false => self.relay.allow_execute(out),
                }
            }
            Request::FunctionCall => {
                self.tickets.insert(ticket, "function".into());
                deny(&mut self.relay, Some(ticket));
            }
            Request::Terminate => {}
        }
    }

    /// At most `count` bytes of what was sent reach the server.
    pub fn deliver_to_server(&mut self, count: usize) {
        let bytes = self.to_server.split_to(count.min(self.to_server.len()));
        self.server.feed(&bytes);
    }

    /// At most `count` bytes of the server's answers reach the relay.
    pub fn deliver_answers(&mut self, count: usize) {
        let count = count.min(self.server.output.len());
        self.from_server.extend(self.server.output.drain(..count));
        self.relay
            .responses(&mut self.from_server, &mut self.to_client, &mut self.events)
            .expect("the server keeps to the protocol");
    }

    /// Everything on its way arrives.
    pub fn settle(&mut self) {
        loop {
            self.requests();
            if self.to_server.is_empty() && self.server.output.is_empty() {
                return;
            }
            self.deliver_to_server(usize::MAX);
            self.deliver_answers(usize::MAX);
        }
    }

    /// The client sends `bytes`, and everything on its way arrives.
    pub fn send(&mut self, bytes: &[u8]) {
        self.to_relay.extend_from_slice(bytes);
        self.settle();
    }

    /// What the client has got since the last call.
    pub fn received(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut bytes = self.to_client.split().to_vec();
        let messages = crate::message::take(&mut bytes);
        assert!(bytes.is_empty(), "the client has half a message");
        messages
    }

    /// Types of the messages the client has got, a status behind each `Z`.
    pub fn seen(&mut self) -> String {
        summary(&self.received())
    }
}

/// Types of messages; ReadyForQuery with its status, errors with SQLSTATE.
pub fn summary(messages: &[(u8, Vec<u8>)]) -> String {
    let mut out = String::new();
    for (tag, body) in messages {
        out.push(*tag as char);
        match tag {
            b'Z' => out.push(body[0] as char),
            b'E' => out.push_str(&crate::message::field(body, b'C').expect("a SQLSTATE")),
            _ => {}
        }
        out.push(' ');
    }
    out.pop();
    out
}
