//! The server's side of a relay.

use bytes::{Buf, Bytes, BytesMut};

use super::denial::scrub;
use super::expected::{Expected, Running};
use super::masking::{Portal, other_result};
use super::{Relay, ResponseEvent};
use crate::ProtocolError;
use crate::error::fields;
use crate::frame::{HEADER, Header, name, take_string};

/// Largest message that must be whole to be understood, in bytes. Rows and
/// COPY data go through as they come.
const MAX_WHOLE: usize = 16 << 20;

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
            let Some(Header { tag, total }) = Header::peek(&input[at..])? else {
                break;
            };
            if !is_known(tag) {
                return Err(self.unexpected(tag));
            }
            if matches!(tag, b'D' | b'd') && !self.is_asking() {
                if !self.is_masked()? {
                    self.row(tag, total)?;
                    self.server_passing = total;
                    continue;
                }
                if total > MAX_WHOLE {
                    return Err(ProtocolError::limit(format!(
                        "a row of {total} bytes is over {MAX_WHOLE}: its values cannot be masked"
                    )));
                }
                if input.len() - at < total {
                    break;
                }
                pass(input, at, client);
                at = 0;
                let masked = self.row(tag, total)?.masked.as_mut();
                let before = client.len();
                let row = masked
                    .ok_or_else(other_result)?
                    .row(&input[..total], client);
                if let Err(error) = row {
                    // Nothing of it was meant to be seen.
                    client.truncate(before);
                    return Err(error);
                }
                input.advance(total);
                continue;
            }
            if total > MAX_WHOLE {
                return Err(ProtocolError::limit(format!(
                    "a message of type {} and {total} bytes from the server",
                    name(tag)
                )));
            }
            let Some(frame) = input.get(at..at + total) else {
                break;
            };
            if self.takes_answer(tag, &frame[HEADER..], events) {
                pass(input, at, client);
                input.advance(total);
                at = 0;
                continue;
            }
            match self.answer(tag, &frame[HEADER..], events)? {
                Fate::Pass => at += total,
                Fate::Replace(message) => {
                    pass(input, at, client);
                    input.advance(total);
                    client.extend_from_slice(&message);
                    at = 0;
                }
            }
        }
        pass(input, at, client);
        Ok(())
    }

    /// A DataRow, or CopyData of a COPY TO.
    fn row(&mut self, tag: u8, total: usize) -> Result<&mut Running, ProtocolError> {
        let is_running = |running: &mut Running| {
            running.replaced.is_none() && !running.ended && !running.copying
        };
        let front = self.expected.front_mut().and_then(Expected::running);
        if !front.is_some_and(is_running) {
            return Err(self.unexpected(tag));
        }
        match self.expected.front_mut().and_then(Expected::running) {
            Some(running) => {
                running.bytes += total as u64;
                running.shown += 1;
                Ok(running)
            }
            None => Err(other_result()),
        }
    }

    /// Whether the rows that come now are to be masked.
    fn is_masked(&mut self) -> Result<bool, ProtocolError> {
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => Ok(running.masked.is_some()),
            Some(Expected::Execute {
                portal,
                running,
                may_be_masked,
            }) => {
                if *may_be_masked && running.masked.is_none() {
                    // One that was forgotten meanwhile could be either.
                    let portal = self.portals.current(portal).ok_or_else(other_result)?;
                    running.masked.clone_from(&portal.masked);
                    *may_be_masked = running.masked.is_some();
                }
                Ok(*may_be_masked)
            }
            _ => Ok(false),
        }
    }

    /// A result begins: it must be the one that was to be masked.
    fn result_begins(&mut self, tag: u8, body: &[u8]) -> Result<(), ProtocolError> {
        if !self.is_masked()? {
            return Ok(());
        }
        let running = self.expected.front_mut().and_then(Expected::running);
        match running {
            Some(Running {
                masked: Some(masked),
                answered: false,
                ..
            }) => masked.check(tag, body),
            _ => Err(other_result()),
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
        if tag == b'G' {
            self.copy_begins()?;
            return Ok(Fate::Pass);
        }
        if matches!(
            (tag, self.expected.front()),
            (b'T', Some(Expected::Query(_))) | (b'H', Some(_))
        ) {
            self.result_begins(tag, body)?;
        }
        let known = match (tag, self.expected.front_mut()) {
            (b'1', Some(Expected::Parse { .. }))
            | (b'2', Some(Expected::Bind { .. }))
            | (b'3', Some(Expected::Close { .. }))
            | (b'T' | b'n', Some(Expected::Describe)) => {
                self.complete(events);
                true
            }
            (b't', Some(Expected::Describe)) => true,
            (_, Some(Expected::Query(running))) if !running.ended => match tag {
                b'C' | b'I' => {
                    running.rows = running.rows.saturating_add(rows(body));
                    running.answered = true;
                    running.copying = false;
                    self.copy_in = false;
                    true
                }
                b'T' | b'H' | b'c' => !running.copying,
                _ => false,
            },
            (_, Some(Expected::Execute { running, .. })) => match tag {
                b'C' | b'I' | b's' => {
                    running.rows = match tag {
                        b's' => running.shown,
                        _ => rows(body),
                    };
                    self.copy_in = false;
                    self.executed(tag, events);
                    true
                }
                b'H' | b'c' => !running.copying,
                _ => false,
            },
            _ => false,
        };
        if !known {
            return Err(self.unexpected(tag));
        }
        // Whoever answers this has done with the Syncs before it.
        self.unanswered = 0;
        Ok(Fate::Pass)
    }

    /// The answer that was due first is there.
    fn pop(&mut self) -> Option<Expected> {
        let popped = self.expected.pop_front();
        while matches!(self.expected.front(), Some(Expected::CopyEnd)) {
            self.expected.pop_front();
        }
        popped
    }

    fn complete(&mut self, events: &mut Vec<ResponseEvent>) {
        match self.pop() {
            Some(Expected::Parse { name, number }) => {
                self.statements.confirmed(&name, number);
            }
            Some(Expected::Bind {
                portal,
                number,
                ticket,
            }) => {
                if let Some(before) = self.portals.confirmed(&portal, number) {
                    self.done_with(before.ticket, events);
                }
                self.open.push((ticket, 0, 0));
            }
            Some(Expected::Close {
                statement: true,
                name,
            }) => {
                self.statements.closed(&name);
            }
            Some(Expected::Close {
                statement: false,
                name,
            }) => {
                if let Some(portal) = self.portals.closed(&name) {
                    self.done_with(portal.ticket, events);
                }
            }
            _ => {}
        }
    }

    /// A portal is gone; what it has done was its command's all.
    fn done_with(&mut self, ticket: u64, events: &mut Vec<ResponseEvent>) {
        if let Some((ticket, rows, bytes)) = self.take_open(ticket) {
            events.push(ResponseEvent::Completed {
                ticket,
                rows,
                bytes,
            });
        }
    }

    fn take_open(&mut self, ticket: u64) -> Option<(u64, u64, u64)> {
        let at = self.open.iter().position(|(open, ..)| *open == ticket)?;
        Some(self.open.swap_remove(at))
    }

    /// An Execute has ended, or was suspended by its row limit.
    fn executed(&mut self, tag: u8, events: &mut Vec<ResponseEvent>) {
        let Some(Expected::Execute {
            portal, running, ..
        }) = self.pop()
        else {
            return;
        };
        let Some(&Portal { ticket, .. }) = self.portals.current(&portal) else {
            return;
        };
        // It may have ended before: then this one had no rows.
        let Some((_, rows, bytes)) = self.take_open(ticket) else {
            return;
        };
        let rows = rows.saturating_add(running.rows);
        let bytes = bytes + running.bytes;
        match tag {
            b's' => self.open.push((ticket, rows, bytes)),
            _ => events.push(ResponseEvent::Completed {
                ticket,
                rows,
                bytes,
            }),
        }
    }

    /// The server takes COPY data now. It has read over the Syncs that are on
    /// their way, unless the COPY fails before it gets to them; anything else
    /// would be read as a broken COPY.
    fn copy_begins(&mut self) -> Result<(), ProtocolError> {
        match self.expected.front_mut().and_then(Expected::running) {
            Some(running) if !running.ended && !running.copying => running.copying = true,
            _ => return Err(self.unexpected(b'G')),
        }
        self.flushed = false;
        loop {
            match self.expected.get(1) {
                None => {
                    self.copy_in = true;
                    return Ok(());
                }
                Some(Expected::Sync) => self.unanswered += 1,
                Some(Expected::CopyEnd) => {
                    self.expected.remove(1);
                    return Ok(());
                }
                Some(other) => {
                    return Err(ProtocolError::violation(format!(
                        "a {} was sent into a COPY that takes data",
                        other.name()
                    )));
                }
            }
            self.expected.remove(1);
        }
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
        let code = fields(body)?
            .iter()
            .find(|(kind, _)| *kind == b'C')
            .map(|(_, code)| *code);
        let sqlstate = code
            .and_then(|code| code.try_into().ok())
            .unwrap_or(*b"XX000");
        let denied = own.is_some();
        let end = |ticket| match denied {
            true => ResponseEvent::Denied { ticket },
            false => ResponseEvent::Failed { ticket, sqlstate },
        };
        match self.expected.front_mut() {
            Some(Expected::Query(running)) => {
                if !running.ended {
                    events.extend(running.ticket.map(end));
                }
                running.ended = true;
                running.answered = true;
                running.copying = false;
                self.copy_ended();
            }
            // What comes of itself, and a commit that failed at Sync.
            None | Some(Expected::Sync | Expected::Question { .. }) => {}
            Some(_) => {
                let ticket = match self.pop() {
                    Some(Expected::Bind {
                        portal,
                        number,
                        ticket,
                    }) => {
                        self.portals.refused(&portal, number);
                        Some(ticket)
                    }
                    Some(Expected::Parse { name, number }) => {
                        self.statements.refused(&name, number);
                        None
                    }
                    // If it had ended before, that has been reported.
                    Some(Expected::Execute { portal, .. }) => self
                        .portals
                        .current(&portal)
                        .map(|portal| portal.ticket)
                        .filter(|ticket| self.take_open(*ticket).is_some()),
                    Some(Expected::Refused(replaced)) => replaced.ticket,
                    _ => None,
                };
                if let Some(ticket) = ticket {
                    // A denied Execute may go by its Bind's ticket.
                    self.take_open(ticket);
                    events.push(end(ticket));
                }
                self.copy_ended();
                self.skip_to_sync(events);
            }
        }
        match own {
            Some(own) => Ok(Fate::Replace(own)),
            None if self.settings.scrub_errors => scrub(b'E', body).map(Fate::Replace),
            None => Ok(Fate::Pass),
        }
    }

    fn copy_ended(&mut self) {
        self.copy_in = false;
        self.copy_fail = None;
    }

    /// After an error in an extended batch the server reads over everything
    /// until Sync (section 54.2.3), simple queries too.
    fn skip_to_sync(&mut self, events: &mut Vec<ResponseEvent>) {
        while !matches!(self.expected.front(), Some(Expected::Sync)) {
            let ticket = match self.pop() {
                Some(Expected::Parse { name, number }) => {
                    self.statements.refused(&name, number);
                    None
                }
                Some(Expected::Bind {
                    portal,
                    number,
                    ticket,
                }) => {
                    self.portals.refused(&portal, number);
                    Some(ticket)
                }
                Some(Expected::Refused(replaced)) => replaced.ticket,
                Some(Expected::Query(running)) => running.ticket,
                Some(Expected::Execute { portal, .. }) => self.never_run(&portal),
                Some(
                    Expected::Describe
                    | Expected::Question { .. }
                    | Expected::Close { .. }
                    | Expected::Sync
                    | Expected::CopyEnd,
                ) => None,
                None => {
                    self.skipping = true;
                    return;
                }
            };
            events.extend(ticket.map(|ticket| ResponseEvent::Skipped { ticket }));
        }
    }

    /// The command of a portal whose Execute was read over, if it was the
    /// first.
    fn never_run(&mut self, portal: &[u8]) -> Option<u64> {
        let &Portal { ticket, .. } = self.portals.current(portal)?;
        let fresh = self.open.contains(&(ticket, 0, 0));
        fresh
            .then(|| self.take_open(ticket))?
            .map(|(ticket, ..)| ticket)
    }

    fn ready(
        &mut self,
        body: &[u8],
        events: &mut Vec<ResponseEvent>,
    ) -> Result<Fate, ProtocolError> {
        let &[status @ (b'I' | b'T' | b'E')] = body else {
            return Err(ProtocolError::violation(
                "ReadyForQuery with a status there is not",
            ));
        };
        match self.expected.front() {
            Some(Expected::Query(running)) if running.answered && !running.copying => {
                let (ticket, rows, bytes) = (running.ticket, running.rows, running.bytes);
                if !running.ended {
                    let ended = |ticket| ResponseEvent::Completed {
                        ticket,
                        rows,
                        bytes,
                    };
                    events.extend(ticket.map(ended));
                }
                self.pop();
            }
            Some(Expected::Sync) => {
                self.pop();
            }
            front if self.unanswered > 0 => {
                self.unanswered -= 1;
                if front.is_none() {
                    self.skipping = false;
                }
            }
            _ => return Err(self.unexpected(b'Z')),
        }
        self.status = status;
        if status == b'I' {
            // Portals do not outlive their transaction.
            self.portals.all_closed();
            let ended = |(ticket, rows, bytes)| ResponseEvent::Completed {
                ticket,
                rows,
                bytes,
            };
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

/// The first `count` bytes go to the client as they are.
fn pass(input: &mut BytesMut, count: usize, client: &mut BytesMut) {
    if count > 0 {
        client.unsplit(input.split_to(count));
    }
}

/// Whether a server says this in a session (section 54.7). Replication and
/// FunctionCall have more, but neither gets here.
fn is_known(tag: u8) -> bool {
    matches!(
        tag,
        b'1' | b'2'
            | b'3'
            | b'A'
            | b'C'
            | b'D'
            | b'E'
            | b'G'
            | b'H'
            | b'I'
            | b'N'
            | b'S'
            | b'T'
            | b'Z'
            | b'c'
            | b'd'
            | b'n'
            | b's'
            | b't'
    )
}

/// The count in a CommandComplete tag: its last word, if that is a number.
fn rows(tag: &[u8]) -> u64 {
    let tag = tag.strip_suffix(&[0]).unwrap_or(tag);
    let last = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(last)
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

fn string(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
