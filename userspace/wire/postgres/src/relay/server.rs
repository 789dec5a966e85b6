//! The server's side of a relay.

use bytes::{Buf, Bytes, BytesMut};

use super::denial::scrub;
use super::expected::{Expected, Running};
use super::{Relay, ResponseEvent};
use crate::frame::{HEADER, Header, name, take_string};
use crate::{ErrorFields, ProtocolError};

/// Largest message that must be whole to be understood, in bytes. Rows and
/// COPY data go through as they come.
const MAX_WHOLE: usize = 64 << 20;

/// What becomes of a message of the server.
enum Fate {
    Pass,
    Replace(BytesMut),
}

impl<S: Clone> Relay<S> {
    /// Takes what the server sent, appends to `client` what the client may see
    /// and to `events` what it means.
    ///
    /// # Errors
    /// 08P01 for an answer to nothing that was sent, and for a server that did
    /// not refuse a replaced message. The session must then end at once.
    pub fn responses(
        &mut self,
        input: &mut BytesMut,
        client: &mut BytesMut,
        events: &mut Vec<ResponseEvent>,
    ) -> Result<(), ProtocolError> {
        // Bytes before `at` go through unchanged, all in one piece.
        let mut at = 0;
        loop {
            if self.server_passing > 0 {
                let count = self.server_passing.min(input.len() - at);
                self.server_passing -= count;
                at += count;
                if self.server_passing > 0 {
                    break;
                }
            }
            let Some(Header { tag, total }) = Header::peek(&input[at..])? else { break };
            if matches!(tag, b'D' | b'd') {
                self.row(tag, total)?;
                self.server_passing = total;
                continue;
            }
            if total > MAX_WHOLE {
                return Err(ProtocolError::limit(format!(
                    "a message of type {} and {total} bytes from the server",
                    name(tag)
                )));
            }
            let Some(frame) = input.get(at..at + total) else { break };
            match self.answer(tag, &frame[HEADER..], events)? {
                Fate::Pass => at += total,
                Fate::Replace(message) => {
                    client.unsplit(input.split_to(at));
                    input.advance(total);
                    client.extend_from_slice(&message);
                    at = 0;
                }
            }
        }
        client.unsplit(input.split_to(at));
        Ok(())
    }

    /// A DataRow, or CopyData of a COPY TO.
    fn row(&mut self, tag: u8, total: usize) -> Result<(), ProtocolError> {
        match self.expected.front_mut() {
            Some(Expected::Query(running) | Expected::Execute(running))
                if running.replaced.is_none() =>
            {
                running.bytes += total as u64;
                Ok(())
            }
            _ => Err(self.unexpected(tag)),
        }
    }

    fn answer(
        &mut self,
        tag: u8,
        body: &[u8],
        events: &mut Vec<ResponseEvent>,
    ) -> Result<Fate, ProtocolError> {
        match tag {
            b'E' => return self.error(body, events),
            b'N' if self.settings.scrub_errors => return scrub(tag, body).map(Fate::Replace),
            b'N' | b'A' => return Ok(Fate::Pass),
            b'S' => {
                let mut body = Bytes::copy_from_slice(body);
                let name = string(take_string(&mut body)?);
                let value = string(take_string(&mut body)?);
                events.push(ResponseEvent::Parameter { name, value });
                return Ok(Fate::Pass);
            }
            b'Z' => return self.ready(body, events),
            _ => {}
        }
        // Whatever else it is, it says that the server goes on with what is
        // due next. It must not do so with what it was meant to refuse.
        if self.expected.front().and_then(Expected::replaced).is_some() {
            return Err(self.unexpected(tag));
        }
        match (tag, self.expected.front_mut()) {
            (b'1', Some(Expected::Parse { .. })) => {
                if let Some(Expected::Parse { name, .. }) = self.expected.pop_front() {
                    self.statements.confirmed(&name);
                }
            }
            (b'2', Some(Expected::Bind { .. })) => {
                if let Some(Expected::Bind { portal, ticket, .. }) = self.expected.pop_front() {
                    self.portals.confirmed(&portal);
                    self.open.extend(ticket.map(|ticket| (ticket, 0, 0)));
                }
            }
            (b'3', Some(Expected::Close { .. })) => {
                if let Some(Expected::Close { statement, name }) = self.expected.pop_front() {
                    match statement {
                        true => self.statements.closed(&name),
                        false => self.portals.closed(&name),
                    }
                }
            }
            (b't', Some(Expected::Describe)) => {}
            (b'T' | b'n', Some(Expected::Describe)) => {
                self.expected.pop_front();
            }
            (b'T', Some(Expected::Query(_))) => {}
            (b'C', Some(Expected::Query(running))) => {
                running.rows += rows(body);
                self.copy_in = false;
            }
            (b'I', Some(Expected::Query(_))) => {}
            (b'C' | b'I' | b's', Some(Expected::Execute(running))) => {
                running.rows += rows(body);
                self.copy_in = false;
                self.executed(tag, events);
            }
            (b'G', Some(Expected::Query(_) | Expected::Execute(_))) => self.copy_begins()?,
            (b'H' | b'c', Some(Expected::Query(_) | Expected::Execute(_))) => {}
            _ => return Err(self.unexpected(tag)),
        }
        Ok(Fate::Pass)
    }

    /// An Execute has ended, or was suspended by its row limit.
    fn executed(&mut self, tag: u8, events: &mut Vec<ResponseEvent>) {
        let Some(Expected::Execute(Running { ticket, rows, bytes, .. })) =
            self.expected.pop_front()
        else {
            return;
        };
        let Some(at) = self.open.iter().position(|(open, ..)| Some(*open) == ticket) else {
            return;
        };
        let (ticket, rows_before, bytes_before) = self.open[at];
        let (rows, bytes) = (rows_before + rows, bytes_before + bytes);
        if tag == b's' {
            self.open[at] = (ticket, rows, bytes);
        } else {
            self.open.swap_remove(at);
            events.push(ResponseEvent::Completed { ticket, rows, bytes });
        }
    }

    /// The server takes COPY data now. It has read over the Syncs that are on
    /// their way; anything else would be read as a broken COPY.
    fn copy_begins(&mut self) -> Result<(), ProtocolError> {
        if let Some(other) =
            self.expected.iter().skip(1).find(|behind| !matches!(behind, Expected::Sync))
        {
            return Err(ProtocolError::violation(format!(
                "a {} was sent into a COPY that takes data",
                other.name()
            )));
        }
        self.unanswered += self.expected.len() - 1;
        self.expected.truncate(1);
        self.copy_in = true;
        Ok(())
    }

    fn error(
        &mut self,
        body: &[u8],
        events: &mut Vec<ResponseEvent>,
    ) -> Result<Fate, ProtocolError> {
        let replaced = self.expected.front().and_then(Expected::replaced);
        let own = match replaced {
            Some(replaced) => replaced.answer(body)?,
            None => None,
        };
        let fields = ErrorFields::parse(body)?;
        let mut sqlstate = *b"XX000";
        if let Ok(code) = fields.sqlstate().as_bytes().try_into() {
            sqlstate = code;
        }
        let denied = own.is_some();
        let mut end = |ticket: Option<u64>| {
            events.extend(ticket.map(|ticket| match denied {
                true => ResponseEvent::Denied { ticket },
                false => ResponseEvent::Failed { ticket, sqlstate },
            }));
        };
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                if !running.ended {
                    end(running.ticket);
                    running.ended = true;
                }
                self.copy_in = false;
            }
            // What comes of itself, and a commit that failed at Sync.
            None | Some(Expected::Sync) => {}
            Some(front) => {
                let ticket = match front {
                    Expected::Bind { ticket, .. } => *ticket,
                    Expected::Execute(running) => running.ticket,
                    Expected::Parse { replaced, .. } => replaced.as_ref().and_then(|r| r.ticket),
                    Expected::Query(_) | Expected::Describe | Expected::Close { .. } | Expected::Sync => None,
                };
                end(ticket);
                self.open.retain(|(open, ..)| Some(*open) != ticket);
                self.skip_to_sync(events);
            }
        }
        match own {
            Some(own) => Ok(Fate::Replace(own)),
            None if self.settings.scrub_errors => scrub(b'E', body).map(Fate::Replace),
            None => Ok(Fate::Pass),
        }
    }

    /// After an error in an extended batch the server reads over everything
    /// until Sync (section 54.2.3).
    fn skip_to_sync(&mut self, events: &mut Vec<ResponseEvent>) {
        self.copy_in = false;
        let mut first = true;
        loop {
            match self.expected.front() {
                None => {
                    self.skipping = true;
                    return;
                }
                Some(Expected::Sync) => return,
                Some(_) => {}
            }
            let ticket = match self.expected.pop_front() {
                Some(Expected::Parse { name, replaced }) => {
                    if replaced.is_none() {
                        self.statements.refused(&name);
                    }
                    replaced.and_then(|replaced| replaced.ticket)
                }
                Some(Expected::Bind { portal, ticket, replaced }) => {
                    if replaced.is_none() {
                        self.portals.refused(&portal);
                    }
                    ticket
                }
                // An Execute's ticket is its Bind's, which has been reported.
                Some(Expected::Execute(running)) => running.replaced.and(running.ticket),
                Some(Expected::Query(running)) => running.ticket,
                Some(Expected::Describe | Expected::Close { .. } | Expected::Sync) | None => None,
            };
            if !std::mem::take(&mut first) {
                events.extend(ticket.map(|ticket| ResponseEvent::Skipped { ticket }));
            }
        }
    }

    fn ready(
        &mut self,
        body: &[u8],
        events: &mut Vec<ResponseEvent>,
    ) -> Result<Fate, ProtocolError> {
        let &[status @ (b'I' | b'T' | b'E')] = body else {
            return Err(ProtocolError::violation("ReadyForQuery with a status there is not"));
        };
        match self.expected.front() {
            Some(Expected::Query(running)) => {
                let (ticket, rows, bytes) = (running.ticket, running.rows, running.bytes);
                if running.replaced.is_some() && !running.ended {
                    return Err(self.unexpected(b'Z'));
                }
                if !running.ended {
                    let ended = |ticket| ResponseEvent::Completed { ticket, rows, bytes };
                    events.extend(ticket.map(ended));
                }
                self.expected.pop_front();
            }
            Some(Expected::Sync) => {
                self.expected.pop_front();
            }
            None if self.unanswered > 0 => {
                self.unanswered -= 1;
                self.skipping = false;
            }
            _ => return Err(self.unexpected(b'Z')),
        }
        if self.expected.is_empty() {
            self.copy_in = false;
            if !self.skipping {
                self.unanswered = 0;
            }
        }
        self.status = status;
        if status == b'I' {
            // Portals do not outlive their transaction.
            let ended =
                |(ticket, rows, bytes)| ResponseEvent::Completed { ticket, rows, bytes };
            events.extend(self.open.drain(..).map(ended));
        }
        events.push(ResponseEvent::Idle { status });
        Ok(Fate::Pass)
    }

    fn unexpected(&self, tag: u8) -> ProtocolError {
        let front = self.expected.front();
        let due = front.map_or("nothing", Expected::name);
        let refused = match front.and_then(Expected::replaced) {
            Some(_) => " that it was meant to refuse",
            None => "",
        };
        ProtocolError::violation(format!(
            "the server sent a message of type {} where an answer to {due}{refused} was due",
            name(tag)
        ))
    }
}

/// The count in a CommandComplete tag: its last word, if that is a number.
fn rows(tag: &[u8]) -> u64 {
    let tag = tag.strip_suffix(&[0]).unwrap_or(tag);
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(last).ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn string(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
