use bytes::{Buf, Bytes};

use crate::ProtocolError;

/// Type byte and length word.
pub(crate) const HEADER: usize = 5;

/// No message is longer: the server's own limit for one (MaxAllocSize).
const MAX_LENGTH: usize = 0x3fff_ffff;

/// One whole message: type byte, then the body behind the length word.
#[derive(Debug)]
pub(crate) struct Header {
    /// Type byte.
    pub(crate) tag: u8,
    /// Length of the whole message, type byte included.
    pub(crate) total: usize,
}

impl Header {
    /// Reads the header at the start of `input`; none if it is not there yet.
    pub(crate) fn peek(input: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((&[tag, a, b, c, d], _)) = input.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MAX_LENGTH).contains(&length) {
            return Err(ProtocolError::violation(format!(
                "a message of type {} says it is {length} bytes long",
                name(tag)
            )));
        }
        Ok(Some(Self {
            tag,
            total: length + 1,
        }))
    }
}

/// The type byte as a person writes it.
pub(crate) fn name(tag: u8) -> String {
    match tag {
        b'!'..=b'~' => format!("'{}'", tag as char),
        _ => format!("0x{tag:02x}"),
    }
}

/// Takes a NUL-terminated string off the front of `body`.
pub(crate) fn take_string(body: &mut Bytes) -> Result<Bytes, ProtocolError> {
    let end =
        memchr::memchr(0, body).ok_or_else(|| ProtocolError::violation("a string has no end"))?;
    let text = body.split_to(end);
    body.advance(1);
    Ok(text)
}

/// The values of a DataRow, in text format.
pub(crate) fn data_row(mut body: Bytes) -> Result<Vec<Option<String>>, ProtocolError> {
    let short = || ProtocolError::violation("a row ends early");
    if body.len() < 2 {
        return Err(short());
    }
    let mut row = Vec::new();
    for _ in 0..body.get_u16() {
        if body.len() < 4 {
            return Err(short());
        }
        row.push(match body.get_i32() {
            -1 => None,
            length if length >= 0 && length as usize <= body.len() => {
                Some(text(body.split_to(length as usize))?)
            }
            _ => return Err(short()),
        });
    }
    Ok(row)
}

/// Text of the server, which lockgate has to read.
pub(crate) fn text(bytes: Bytes) -> Result<String, ProtocolError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ProtocolError::violation("text of the server is not UTF-8"))
}
