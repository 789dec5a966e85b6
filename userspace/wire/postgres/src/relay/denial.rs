use bytes::{BufMut, BytesMut};

use crate::ProtocolError;
use crate::error::fields;
use crate::messages::{put, put_string};

/// What the client is told of a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialText {
    /// Field M.
    pub message: String,
    /// Field H.
    pub hint: Option<String>,
    /// Field D.
    pub detail: Option<String>,
}

/// A message that was replaced.
#[derive(Clone, Debug)]
pub(super) struct Replaced {
    pub(super) ticket: Option<u64>,
    pub(super) text: DenialText,
    pub(super) name: String,
}

impl Replaced {
    pub(super) fn new(ticket: Option<u64>, text: DenialText, nonce: [u8; 16]) -> Self {
        // No text that begins with a lone identifier parses, and no statement
        // or portal has this name.
        let mut name = String::from("lockgate_denied_");
        for byte in nonce {
            name.push_str(&format!("{byte:02x}"));
        }
        Self { ticket, text, name }
    }

    /// The client's error, if `body` is the server's refusal of the
    /// replacement: then the nonce is in it. Severity stays the server's.
    pub(super) fn answer(&self, body: &[u8]) -> Result<Option<BytesMut>, ProtocolError> {
        if memchr::memmem::find(body, self.name.as_bytes()).is_none() {
            return Ok(None);
        }
        let fields = fields(body)?;
        let severity = |kind| {
            fields
                .iter()
                .find(|(found, _)| *found == kind)
                .map_or(&b"ERROR"[..], |(_, text)| text)
        };
        let mut out = BytesMut::new();
        put(&mut out, b'E', |out| {
            let parts = [
                (b'S', Some(severity(b'S'))),
                (b'V', Some(severity(b'V'))),
                (b'C', Some(&b"42501"[..])),
                (b'M', Some(self.text.message.as_bytes())),
                (b'D', self.text.detail.as_deref().map(str::as_bytes)),
                (b'H', self.text.hint.as_deref().map(str::as_bytes)),
            ];
            for (kind, text) in parts {
                if let Some(text) = text {
                    out.put_u8(kind);
                    put_string(out, text);
                }
            }
            out.put_u8(0);
        });
        Ok(Some(out))
    }
}

/// What stands in the place of a message that may hold a value.
const WITHHELD: &str = "lockgate: the server's message is withheld, since it may show a value of a tagged column; \
     its SQLSTATE says what kind it is";

/// An error or notice without what can hold a value, the primary message too:
/// only severity and code stay. An input function quotes what it was given, a
/// constraint the row.
pub(super) fn scrub(tag: u8, body: &[u8]) -> Result<BytesMut, ProtocolError> {
    let fields = fields(body)?;
    let mut out = BytesMut::new();
    put(&mut out, tag, |out| {
        for (kind, text) in fields {
            if matches!(kind, b'S' | b'V' | b'C') {
                out.put_u8(kind);
                put_string(out, text);
            }
        }
        out.put_u8(b'M');
        put_string(out, WITHHELD.as_bytes());
        out.put_u8(0);
    });
    Ok(out)
}
