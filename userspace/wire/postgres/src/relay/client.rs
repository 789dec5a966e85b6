//! The client's side of a relay.

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::denial::Replaced;
use super::expected::{Expected, Running};
use super::{DenialText, Relay, Request};
use crate::ProtocolError;
use crate::frame::{HEADER, Header, name, take_string};
use crate::messages::{put, put_string};

/// A message that waits for its verdict.
#[derive(Debug)]
pub(super) enum Held {
    Query { frame: Bytes },
    Parse { frame: Bytes, name: Bytes },
    Bind { frame: Bytes, portal: Bytes },
    Execute { frame: Bytes, tickets: SmallVec<[u64; 1]> },
    FunctionCall,
}

impl<S: Clone> Relay<S> {
    /// Takes the client's next message off `input`. What needs no verdict is
    /// appended to `upstream`, and the next is taken; none is left when the
    /// input ends within a message. CopyData goes through as it comes.
    ///
    /// # Errors
    /// 08P01 for what the protocol does not have, 54000 for a message over
    /// [`super::RelaySettings::message_bytes`]. The session must then end.
    ///
    /// # Panics
    /// When the request before has had no verdict.
    pub fn next_request(
        &mut self,
        input: &mut BytesMut,
        upstream: &mut BytesMut,
    ) -> Result<Option<Request<S>>, ProtocolError> {
        assert!(self.held.is_none(), "the request before has had no verdict");
        loop {
            if self.client_passing > 0 {
                let count = self.client_passing.min(input.len());
                self.client_passing -= count;
                upstream.unsplit(input.split_to(count));
                if self.client_passing > 0 {
                    return Ok(None);
                }
            }
            let Some(Header { tag, total }) = Header::peek(input)? else { return Ok(None) };
            if tag == b'd' && !self.skipping {
                self.client_passing = total;
                continue;
            }
            if total > HEADER + self.settings.message_bytes {
                return Err(ProtocolError::limit(format!(
                    "a message of type {} and {} bytes is over the limit of {} (limits.message_bytes)",
                    name(tag),
                    total - HEADER,
                    self.settings.message_bytes
                )));
            }
            if input.len() < total {
                return Ok(None);
            }
            let frame = input.split_to(total).freeze();
            if let Some(request) = self.message(tag, frame, upstream)? {
                return Ok(Some(request));
            }
        }
    }

    fn message(
        &mut self,
        tag: u8,
        frame: Bytes,
        upstream: &mut BytesMut,
    ) -> Result<Option<Request<S>>, ProtocolError> {
        // The server reads over everything until Sync, so there is nothing to
        // decide; it need not have it either.
        if self.skipping && tag != b'S' && tag != b'X' {
            return match tag {
                b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'F' | b'H' | b'c' | b'd' | b'f' => {
                    Ok(None)
                }
                _ => Err(unknown(tag)),
            };
        }
        let mut body = frame.slice(HEADER..);
        match tag {
            b'Q' => {
                let text = take_string(&mut body)?;
                end(&body, "Query")?;
                self.held = Some(Held::Query { frame });
                return Ok(Some(Request::Query { text }));
            }
            b'P' => {
                let name = take_string(&mut body)?;
                let text = take_string(&mut body)?;
                let types = take_count(&mut body, "Parse")?;
                if body.len() != 4 * types {
                    return Err(length("Parse"));
                }
                self.held = Some(Held::Parse { frame, name });
                return Ok(Some(Request::Parse { text }));
            }
            b'B' => {
                let portal = take_string(&mut body)?;
                let statement = take_string(&mut body)?;
                check_bind(body.clone())?;
                let candidates = self.statements.candidates(&statement);
                self.held = Some(Held::Bind { frame, portal });
                return Ok(Some(Request::Bind { candidates, parameters: body }));
            }
            b'E' => {
                let portal = take_string(&mut body)?;
                if body.len() != 4 {
                    return Err(length("Execute"));
                }
                let tickets: SmallVec<[u64; 1]> =
                    self.portals.candidates(&portal).into_iter().flatten().collect();
                self.held = Some(Held::Execute { frame, tickets: tickets.clone() });
                return Ok(Some(Request::Execute { tickets }));
            }
            b'F' => {
                self.held = Some(Held::FunctionCall);
                return Ok(Some(Request::FunctionCall));
            }
            b'D' | b'C' => {
                let (statement, target) = take_name(tag, body)?;
                self.expected.push_back(match tag {
                    b'D' => Expected::Describe,
                    _ => Expected::Close { statement, name: target },
                });
            }
            b'S' => {
                end(&body, "Sync")?;
                if self.copy_in {
                    self.unanswered += 1;
                } else {
                    self.skipping = false;
                    self.expected.push_back(Expected::Sync);
                }
            }
            b'H' => end(&body, "Flush")?,
            b'c' => {
                end(&body, "CopyDone")?;
                self.copy_in = false;
            }
            b'f' => {
                take_string(&mut body)?;
                end(&body, "CopyFail")?;
                self.copy_in = false;
            }
            b'X' => {
                end(&body, "Terminate")?;
                upstream.extend_from_slice(&frame);
                return Ok(Some(Request::Terminate));
            }
            _ => return Err(unknown(tag)),
        }
        upstream.extend_from_slice(&frame);
        Ok(None)
    }

    /// Forwards the held Query.
    ///
    /// # Panics
    /// Like the other verdicts, when something else is held.
    pub fn allow_query(&mut self, ticket: u64, upstream: &mut BytesMut) {
        let Some(Held::Query { frame }) = self.held.take() else { panic!("no Query is held") };
        self.expected
            .push_back(Expected::Query(Running { ticket: Some(ticket), ..Running::default() }));
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Parse; `payload` comes back at each Bind of its name.
    pub fn allow_parse(&mut self, payload: S, upstream: &mut BytesMut) {
        let Some(Held::Parse { frame, name }) = self.held.take() else {
            panic!("no Parse is held")
        };
        self.statements.sent(name.clone(), payload);
        self.expected.push_back(Expected::Parse { name, replaced: None });
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Bind.
    pub fn allow_bind(&mut self, ticket: u64, upstream: &mut BytesMut) {
        let Some(Held::Bind { frame, portal }) = self.held.take() else {
            panic!("no Bind is held")
        };
        self.portals.sent(portal.clone(), SmallVec::from_elem(ticket, 1));
        self.expected.push_back(Expected::Bind { portal, ticket: Some(ticket), replaced: None });
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Execute.
    pub fn allow_execute(&mut self, upstream: &mut BytesMut) {
        let Some(Held::Execute { frame, tickets }) = self.held.take() else {
            panic!("no Execute is held")
        };
        let running = Running { ticket: tickets.first().copied(), ..Running::default() };
        self.expected.push_back(Expected::Execute(running));
        upstream.extend_from_slice(&frame);
    }

    /// Replaces the held message by one that the server refuses. `nonce` must
    /// be random and new: the refusal is recognised by it.
    pub fn deny(
        &mut self,
        ticket: Option<u64>,
        text: DenialText,
        nonce: [u8; 16],
        upstream: &mut BytesMut,
    ) {
        let replaced = Replaced::new(ticket, text, nonce);
        let refused = replaced.name.clone().into_bytes();
        let running = |replaced| Running { ticket, replaced: Some(replaced), ..Running::default() };
        match self.held.take() {
            Some(Held::Query { .. } | Held::FunctionCall) => {
                put(upstream, b'Q', |out| put_string(out, &refused));
                self.expected.push_back(Expected::Query(running(replaced)));
            }
            Some(Held::Parse { name, .. }) => {
                put(upstream, b'P', |out| {
                    put_string(out, &name);
                    put_string(out, &refused);
                    out.extend_from_slice(&[0, 0]);
                });
                self.expected.push_back(Expected::Parse { name, replaced: Some(replaced) });
            }
            Some(Held::Bind { portal, .. }) => {
                put(upstream, b'B', |out| {
                    put_string(out, &portal);
                    put_string(out, &refused);
                    // No parameter formats, no parameters, no result formats.
                    out.extend_from_slice(&[0; 6]);
                });
                self.expected.push_back(Expected::Bind {
                    portal,
                    ticket,
                    replaced: Some(replaced),
                });
            }
            Some(Held::Execute { .. }) => {
                put(upstream, b'E', |out| {
                    put_string(out, &refused);
                    out.extend_from_slice(&[0; 4]);
                });
                self.expected.push_back(Expected::Execute(running(replaced)));
            }
            None => panic!("nothing is held"),
        }
    }
}

fn unknown(tag: u8) -> ProtocolError {
    ProtocolError::violation(format!("a message of type {} from the client", name(tag)))
}

fn length(message: &str) -> ProtocolError {
    ProtocolError::violation(format!("the length of a {message} message does not fit its content"))
}

fn end(body: &[u8], message: &str) -> Result<(), ProtocolError> {
    if body.is_empty() { Ok(()) } else { Err(length(message)) }
}

fn take_count(body: &mut Bytes, message: &str) -> Result<usize, ProtocolError> {
    if body.len() < 2 {
        return Err(length(message));
    }
    Ok(body.get_u16().into())
}

/// The name in a Describe or Close, and whether it is a statement's.
fn take_name(tag: u8, mut body: Bytes) -> Result<(bool, Bytes), ProtocolError> {
    let message = if tag == b'D' { "Describe" } else { "Close" };
    let statement = match body.first() {
        Some(b'S') => true,
        Some(b'P') => false,
        _ => return Err(length(message)),
    };
    body.advance(1);
    let target = take_string(&mut body)?;
    end(&body, message)?;
    Ok((statement, target))
}

/// Formats, values, result formats: their lengths must add up.
fn check_bind(mut body: Bytes) -> Result<(), ProtocolError> {
    let message = "Bind";
    let formats = take_count(&mut body, message)?;
    skip(&mut body, 2 * formats)?;
    for _ in 0..take_count(&mut body, message)? {
        if body.len() < 4 {
            return Err(length(message));
        }
        match body.get_i32() {
            -1 => {}
            size if size >= 0 => skip(&mut body, size as usize)?,
            _ => return Err(length(message)),
        }
    }
    let formats = take_count(&mut body, message)?;
    skip(&mut body, 2 * formats)?;
    end(&body, message)
}

fn skip(body: &mut Bytes, count: usize) -> Result<(), ProtocolError> {
    if body.len() < count {
        return Err(length("Bind"));
    }
    body.advance(count);
    Ok(())
}
