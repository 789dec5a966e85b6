//! Questions of lockgate's own, between two commands of the client.

use bytes::{BufMut, Bytes, BytesMut};

use super::expected::Expected;
use super::{Relay, ResponseEvent};
use crate::error::fields;
use crate::frame::data_row;
use crate::messages::{put, put_string};

impl<S: Clone> Relay<S> {
    /// Asks the server something that the client does not see: a single SELECT.
    /// [`ResponseEvent::Answered`] brings the answer. `nonce` must be random and
    /// new.
    ///
    /// It goes by a statement and a portal of names that no client has, so that
    /// the unnamed ones live on, which a Query would end (section 54.2.2).
    ///
    /// False, and nothing is asked, unless
    /// [`Relay::is_idle_outside_transaction`]: within a transaction it could
    /// fail and abort it, or take its snapshot.
    #[must_use]
    pub fn ask(&mut self, question: &str, nonce: [u8; 16], upstream: &mut BytesMut) -> bool {
        if !self.is_idle_outside_transaction() {
            return false;
        }
        let name: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("lockgate_asks_{name}").into_bytes();
        put(upstream, b'P', |out| {
            put_string(out, &name);
            put_string(out, question.as_bytes());
            out.put_u16(0);
        });
        put(upstream, b'B', |out| {
            put_string(out, &name);
            put_string(out, &name);
            // No parameter formats, no parameters, all results in text.
            out.put_slice(&[0; 6]);
        });
        put(upstream, b'E', |out| {
            put_string(out, &name);
            out.put_u32(0);
        });
        put(upstream, b'S', |_| {});
        // In a batch of its own, so that it is closed after an error, too.
        put(upstream, b'C', |out| {
            out.put_u8(b'S');
            put_string(out, &name);
        });
        put(upstream, b'S', |_| {});
        self.expected.push_back(Expected::Question {
            rows: Some(Vec::new()),
            closing: false,
        });
        true
    }

    pub(super) fn is_asking(&self) -> bool {
        matches!(self.expected.front(), Some(Expected::Question { .. }))
    }

    /// Whether `tag` belongs to the answer to a question, and not to the client.
    /// What comes of itself is the client's, and so is what ends the session.
    pub(super) fn takes_answer(
        &mut self,
        tag: u8,
        body: &[u8],
        events: &mut Vec<ResponseEvent>,
    ) -> bool {
        let Some(Expected::Question { rows, closing }) = self.expected.front_mut() else {
            return false;
        };
        match tag {
            b'1' | b'2' | b'3' | b'C' => true,
            b'D' => {
                let row = data_row(Bytes::copy_from_slice(body)).ok();
                *rows = rows.take().zip(row).map(|(mut rows, row)| {
                    rows.push(row);
                    rows
                });
                true
            }
            b'E' => {
                *rows = None;
                !is_fatal(body)
            }
            b'Z' if !*closing => {
                *closing = true;
                true
            }
            b'Z' => {
                events.push(ResponseEvent::Answered { rows: rows.take() });
                self.expected.pop_front();
                if let [status] = body {
                    self.status = *status;
                }
                true
            }
            _ => false,
        }
    }
}

fn is_fatal(body: &[u8]) -> bool {
    fields(body).is_ok_and(|fields| {
        let severity = fields.iter().find(|(kind, _)| *kind == b'V');
        severity.is_some_and(|(_, text)| *text != b"ERROR")
    })
}
