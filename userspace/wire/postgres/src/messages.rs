use bytes::{BufMut, Bytes, BytesMut};

use crate::{CancelKey, LoginDone, StartupMessage};

/// Appends a message: type byte, length, and what `body` appends.
pub(crate) fn put(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a NUL-terminated string. A NUL inside would end it early and is
/// left out.
pub(crate) fn put_string(out: &mut BytesMut, text: &[u8]) {
    out.extend(text.iter().filter(|byte| **byte != 0));
    out.put_u8(0);
}

/// Appends an ErrorResponse (section 54.8).
pub fn error_response(
    out: &mut BytesMut,
    severity: &str,
    sqlstate: &str,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    put(out, b'E', |out| {
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(sqlstate)),
            (b'M', Some(message)),
            (b'D', detail),
            (b'H', hint),
        ];
        for (kind, text) in fields {
            if let Some(text) = text {
                out.put_u8(kind);
                put_string(out, text.as_bytes());
            }
        }
        out.put_u8(0);
    });
}

/// What a client hears after its startup, once the server has let lockgate in:
/// AuthenticationOk, the server's parameters, a cancel key of lockgate's own,
/// ReadyForQuery. Protocol 3.0 and 3.2; a client that asked for another minor
/// version or an unknown option hears NegotiateProtocolVersion first.
pub fn greet(out: &mut BytesMut, done: &LoginDone, key: &CancelKey, message: &StartupMessage) {
    let unknown: Vec<&str> = message
        .parameters()
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    let (_, wanted) = message.requested_protocol();
    let (_, minor) = message.protocol();
    if wanted != minor || !unknown.is_empty() {
        put(out, b'v', |out| {
            out.put_u16(3);
            out.put_u16(minor);
            out.put_u32(unknown.len() as u32);
            for name in unknown {
                put_string(out, name.as_bytes());
            }
        });
    }
    put(out, b'R', |out| out.put_u32(0));
    for (name, value) in &done.parameters {
        put(out, b'S', |out| {
            put_string(out, name.as_bytes());
            put_string(out, value.as_bytes());
        });
    }
    put(out, b'K', |out| {
        out.put_u32(key.process);
        out.put_slice(&key.secret);
    });
    put(out, b'Z', |out| out.put_u8(done.status));
}

/// An SSLRequest.
pub fn ssl_request() -> Bytes {
    let mut out = BytesMut::with_capacity(8);
    out.put_u32(8);
    out.put_u32(crate::startup::SSL_REQUEST);
    out.freeze()
}
