//! Messages as a client and a server write them, built by hand: what the crate
//! writes is not tested by what the crate writes.

/// Type byte, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend((body.len() as u32 + 4).to_be_bytes());
    out.extend(body);
    out
}

fn strings(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .collect()
}

pub fn query(text: &str) -> Vec<u8> {
    message(b'Q', &strings(&[text]))
}

pub fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut body = strings(&[name, text]);
    body.extend([0, 0]);
    message(b'P', &body)
}

/// With one parameter in text.
pub fn bind(portal: &str, statement: &str, parameter: &str) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend([0, 0, 0, 1]);
    body.extend((parameter.len() as u32).to_be_bytes());
    body.extend(parameter.bytes());
    body.extend([0, 0]);
    message(b'B', &body)
}

/// Without parameters.
pub fn bind_plain(portal: &str, statement: &str) -> Vec<u8> {
    let mut body = strings(&[portal, statement]);
    body.extend([0; 6]);
    message(b'B', &body)
}

pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    named(b'D', kind, name)
}

pub fn close(kind: u8, name: &str) -> Vec<u8> {
    named(b'C', kind, name)
}

fn named(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(strings(&[name]));
    message(tag, &body)
}

/// With a row limit; 0 is none.
pub fn execute(portal: &str, limit: u32) -> Vec<u8> {
    let mut body = strings(&[portal]);
    body.extend(limit.to_be_bytes());
    message(b'E', &body)
}

pub fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub fn flush() -> Vec<u8> {
    message(b'H', &[])
}

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    message(b'd', data)
}

pub fn copy_done() -> Vec<u8> {
    message(b'c', &[])
}

pub fn copy_fail(reason: &str) -> Vec<u8> {
    message(b'f', &strings(&[reason]))
}

/// ErrorResponse.
pub fn error(sqlstate: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [
        "SERROR",
        "VERROR",
        &format!("C{sqlstate}"),
        &format!("M{text}"),
    ] {
        body.extend(strings(&[field]));
    }
    body.push(0);
    message(b'E', &body)
}

/// CommandComplete.
pub fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &strings(&[tag]))
}

/// ReadyForQuery.
pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// DataRow of one column.
pub fn row(value: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend((value.len() as u32).to_be_bytes());
    body.extend(value.bytes());
    message(b'D', &body)
}

/// RowDescription of no column.
pub fn description() -> Vec<u8> {
    message(b'T', &[0, 0])
}

/// CopyInResponse in text with no columns.
pub fn copy_in() -> Vec<u8> {
    message(b'G', &[0, 0, 0])
}

/// CopyOutResponse.
pub fn copy_out() -> Vec<u8> {
    message(b'H', &[0, 0, 0])
}

/// Takes whole messages off the front of `bytes`: type byte and body.
pub fn take(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((&[tag, a, b, c, d], rest)) = bytes[at..].split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize - 4;
        let Some(body) = rest.get(..length) else {
            break;
        };
        found.push((tag, body.to_vec()));
        at += 5 + length;
    }
    bytes.drain(..at);
    found
}

/// Splits off a string that ends with NUL.
pub fn take_text(body: &mut &[u8]) -> String {
    let end = body
        .iter()
        .position(|byte| *byte == 0)
        .expect("a string ends with NUL");
    let text = String::from_utf8_lossy(&body[..end]).into_owned();
    *body = &body[end + 1..];
    text
}

/// The text of field `kind` in an error's body.
pub fn field(mut body: &[u8], kind: u8) -> Option<String> {
    while let Some((&found, rest)) = body.split_first().filter(|(found, _)| **found != 0) {
        body = rest;
        let text = take_text(&mut body);
        if found == kind {
            return Some(text);
        }
    }
    None
}
