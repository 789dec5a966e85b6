//! The client's side of a relay.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::denial::Replaced;
use super::expected::{Expected, Running};
use super::masking::{Masked, Masking, Portal};
use super::names::Names;
use super::{DenialText, Relay, Request};
use crate::ProtocolError;
use crate::frame::{HEADER, Header, name, take_string};
use crate::messages::{put, put_string};

/// Most answers that may be due: beyond, the client does not read any.
const MAX_DUE: usize = 1 << 19;

/// A message that waits for its verdict.
#[derive(Debug)]
pub(super) enum Held {
    Query {
        frame: Bytes,
    },
    Parse {
        frame: Bytes,
        name: Bytes,
    },
    Bind {
        frame: Bytes,
        portal: Bytes,
        /// From its formats on.
        parameters: Bytes,
    },
    Execute {
        frame: Bytes,
        portal: Bytes,
        /// Whether one that the portal's name may stand for is masked.
        masked: bool,
    },
    FunctionCall,
}

impl<S: Clone> Relay<S> {
    /// Takes the client's next message off `input`. What needs no verdict is
    /// appended to `upstream`, and the next is taken; none is left when the
    /// input ends within a message, or when the next has to wait for an answer
    /// of the server ([`Relay::responses`]). CopyData goes through as it comes.
    /// What the server would read over after an error is left out.
    ///
    /// # Errors
    /// 08P01 for what the protocol does not have, 54000 for a message over
    /// [`super::RelaySettings::message_bytes`], for too many names and for too
    /// long ones. 08P01 also when the request before has had no verdict: it is
    /// not passed over. The session must then end.
    pub fn next_request(
        &mut self,
        input: &mut BytesMut,
        upstream: &mut BytesMut,
    ) -> Result<Option<Request<S>>, ProtocolError> {
        if self.held.is_some() {
            return Err(ProtocolError::violation(
                "the message before has had no verdict",
            ));
        }
        loop {
            if self.client_passing > 0 {
                let count = self.client_passing.min(input.len());
                self.client_passing -= count;
                match self.client_dropping {
                    true => input.advance(count),
                    false => upstream.unsplit(input.split_to(count)),
                }
                if self.client_passing > 0 {
                    return Ok(None);
                }
            }
            self.send_copy_fail(upstream);
            let Some(Header { tag, total }) = Header::peek(input)? else {
                return Ok(None);
            };
            self.check_header(tag, total)?;
            if tag == b'd' {
                self.client_passing = total;
                self.client_dropping = self.skipping;
                continue;
            }
            if input.len() < total {
                return Ok(None);
            }
            if self.must_wait(tag, upstream) {
                // Only a client that does not wait for its COPY gets here.
                return match input.len() > HEADER + self.settings.message_bytes {
                    true => Err(ProtocolError::limit("too much was sent behind a COPY")),
                    false => Ok(None),
                };
            }
            let frame = input.split_to(total).freeze();
            if let Some(request) = self.message(tag, frame, upstream)? {
                return Ok(Some(request));
            }
        }
    }

    /// What can be said before the whole message is there.
    fn check_header(&self, tag: u8, total: usize) -> Result<(), ProtocolError> {
        let fixed = match tag {
            // CopyData is not kept, so it may be as long as the server takes.
            b'd' => return Ok(()),
            b'Q' | b'P' | b'B' | b'E' | b'F' | b'D' | b'C' | b'f' => None,
            b'S' | b'H' | b'c' | b'X' => Some(HEADER),
            _ => return Err(unknown(tag)),
        };
        if fixed.is_some_and(|fixed| fixed != total) {
            return Err(ProtocolError::violation(format!(
                "a message of type {} has no content",
                name(tag)
            )));
        }
        if self.copy_in && !matches!(tag, b'S' | b'H' | b'c' | b'f' | b'X') {
            // The server would break the connection off.
            return Err(ProtocolError::violation(format!(
                "a message of type {} within the data of a COPY",
                name(tag)
            )));
        }
        if total > HEADER + self.settings.message_bytes {
            return Err(ProtocolError::limit(format!(
                "a message of type {} and {} bytes is over the limit of {} (limits.message_bytes)",
                name(tag),
                total - HEADER,
                self.settings.message_bytes
            )));
        }
        if self.expected.len() >= MAX_DUE {
            return Err(ProtocolError::limit(format!(
                "over {MAX_DUE} messages were sent whose answers are due; read some first"
            )));
        }
        Ok(())
    }

    /// Syncs that were on their way when a COPY began were read over by the
    /// server if the COPY took data then, and answered if it had failed. Until
    /// that is known, nobody can say whether what follows will be read.
    fn must_wait(&mut self, tag: u8, upstream: &mut BytesMut) -> bool {
        let waits = self.unanswered > 0
            && !matches!(tag, b'S' | b'H' | b'c' | b'f' | b'X')
            && self.copy_is_ending();
        if waits && !self.flushed {
            self.flushed = true;
            put(upstream, b'H', |_| {});
        }
        waits
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
            return Ok(None);
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
                let name = Names::<S>::own(&take_string(&mut body)?)?;
                self.statements.check_room(&name)?;
                let text = take_string(&mut body)?;
                let types = take_count(&mut body, "Parse")?;
                if body.len() != 4 * types {
                    return Err(length("Parse"));
                }
                let types = std::iter::from_fn(|| (!body.is_empty()).then(|| body.get_u32()));
                let types = types.collect();
                self.held = Some(Held::Parse { frame, name });
                return Ok(Some(Request::Parse { text, types }));
            }
            b'B' => {
                let portal = Names::<Portal>::own(&take_string(&mut body)?)?;
                self.portals.check_room(&portal)?;
                let statement = Names::<S>::own(&take_string(&mut body)?)?;
                check_bind(body.clone())?;
                let candidates = self.statements.candidates(&statement, self.batch);
                let named = !portal.is_empty();
                self.held = Some(Held::Bind {
                    frame,
                    portal,
                    parameters: body.clone(),
                });
                return Ok(Some(Request::Bind {
                    candidates,
                    named,
                    parameters: body,
                }));
            }
            b'E' => {
                let portal = Names::<Portal>::own(&take_string(&mut body)?)?;
                if body.len() != 4 {
                    return Err(length("Execute"));
                }
                let candidates = self.portals.candidates(&portal, self.batch);
                let masked = candidates.iter().any(|portal| portal.masked.is_some());
                let tickets = candidates.iter().map(|portal| portal.ticket).collect();
                self.held = Some(Held::Execute {
                    frame,
                    portal,
                    masked,
                });
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
                    _ => Expected::Close {
                        statement,
                        name: target,
                    },
                });
            }
            b'S' => {
                self.batch += 1;
                if self.copy_in {
                    self.unanswered += 1;
                } else {
                    self.skipping = false;
                    self.expected.push_back(Expected::Sync);
                }
            }
            b'f' => {
                take_string(&mut body)?;
                end(&body, "CopyFail")?;
                self.copy_data_ends();
            }
            b'c' => self.copy_data_ends(),
            b'X' => {
                upstream.extend_from_slice(&frame);
                return Ok(Some(Request::Terminate));
            }
            // Flush.
            _ => {}
        }
        upstream.extend_from_slice(&frame);
        Ok(None)
    }

    fn copy_data_ends(&mut self) {
        // Outside a COPY the server reads over it; where nothing is due, it is
        // outside for certain.
        if !std::mem::take(&mut self.copy_in) && !self.expected.is_empty() {
            self.expected.push_back(Expected::CopyEnd);
        }
    }

    /// Forwards the held Query. With `masking`, that is how its rows are shown.
    ///
    /// # Panics
    /// Like the other verdicts, when something else is held.
    pub fn allow_query(
        &mut self,
        ticket: u64,
        masking: Option<Arc<Masking>>,
        upstream: &mut BytesMut,
    ) {
        let Some(Held::Query { frame }) = self.held.take() else {
            panic!("no Query is held")
        };
        self.expected.push_back(Expected::Query(Running {
            ticket: Some(ticket),
            masked: masking.map(Masked::query),
            ..Running::default()
        }));
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Parse; `payload` comes back at each Bind of its name.
    pub fn allow_parse(&mut self, payload: S, upstream: &mut BytesMut) {
        let Some(Held::Parse { frame, name }) = self.held.take() else {
            panic!("no Parse is held")
        };
        let number = self.statements.sent(&name, self.batch, payload);
        self.expected.push_back(Expected::Parse { name, number });
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Bind. With `masking`, that is how the portal's rows are
    /// shown to who executes it; SQL can still read a named one as it is.
    pub fn allow_bind(
        &mut self,
        ticket: u64,
        masking: Option<Arc<Masking>>,
        upstream: &mut BytesMut,
    ) {
        let Some(Held::Bind {
            frame,
            portal,
            parameters,
        }) = self.held.take()
        else {
            panic!("no Bind is held")
        };
        let masked = masking.map(|masking| Masked::bound(masking, parameters));
        let bound = Portal { ticket, masked };
        let number = self.portals.sent(&portal, self.batch, bound);
        self.expected.push_back(Expected::Bind {
            portal,
            number,
            ticket,
        });
        upstream.extend_from_slice(&frame);
    }

    /// Forwards the held Execute.
    pub fn allow_execute(&mut self, upstream: &mut BytesMut) {
        let Some(Held::Execute {
            frame,
            portal,
            masked,
        }) = self.held.take()
        else {
            panic!("no Execute is held")
        };
        self.expected.push_back(Expected::Execute {
            portal,
            running: Running::default(),
            may_be_masked: masked,
        });
        upstream.extend_from_slice(&frame);
    }

    /// Replaces the held message by one that the server refuses. `nonce` must
    /// be random and new: the refusal is recognised by it.
    ///
    /// A denied Parse, Bind or Execute makes the server read over everything
    /// until Sync, so [`Relay::next_request`] gives nothing of that.
    pub fn deny(
        &mut self,
        ticket: Option<u64>,
        text: DenialText,
        nonce: [u8; 16],
        upstream: &mut BytesMut,
    ) {
        let replaced = Box::new(Replaced::new(ticket, text, nonce));
        let refused = replaced.name.clone().into_bytes();
        let expected = match self.held.take() {
            Some(Held::Query { .. } | Held::FunctionCall) => {
                put(upstream, b'Q', |out| put_string(out, &refused));
                let replaced = Some(replaced);
                Expected::Query(Running {
                    ticket,
                    replaced,
                    ..Running::default()
                })
            }
            Some(Held::Parse { name, .. }) => {
                put(upstream, b'P', |out| {
                    put_string(out, &name);
                    put_string(out, &refused);
                    out.extend_from_slice(&[0, 0]);
                });
                self.skipping = true;
                Expected::Refused(replaced)
            }
            Some(Held::Bind { portal, .. }) => {
                put(upstream, b'B', |out| {
                    put_string(out, &portal);
                    put_string(out, &refused);
                    // No parameter formats, no parameters, no result formats.
                    out.extend_from_slice(&[0; 6]);
                });
                self.skipping = true;
                Expected::Refused(replaced)
            }
            Some(Held::Execute { .. }) => {
                put(upstream, b'E', |out| {
                    put_string(out, &refused);
                    out.extend_from_slice(&[0; 4]);
                });
                self.skipping = true;
                Expected::Refused(replaced)
            }
            None => panic!("nothing is held"),
        };
        self.expected.push_back(expected);
    }
}

fn unknown(tag: u8) -> ProtocolError {
    ProtocolError::violation(format!("a message of type {} from the client", name(tag)))
}

fn length(message: &str) -> ProtocolError {
    ProtocolError::violation(format!(
        "the length of a {message} message does not fit its content"
    ))
}

fn end(body: &[u8], message: &str) -> Result<(), ProtocolError> {
    if body.is_empty() {
        Ok(())
    } else {
        Err(length(message))
    }
}

pub(super) fn take_count(body: &mut Bytes, message: &str) -> Result<usize, ProtocolError> {
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
    let target = Names::<Portal>::own(&take_string(&mut body)?)?;
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
