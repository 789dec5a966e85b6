//! A connection to the test's server that sees what psql does not show: of
//! which table and column an output is.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub struct Wire(UnixStream);

/// What came back of one string of statements.
#[derive(Debug, Default)]
pub struct Answer {
    /// Of each output, the oid of its table and the number of its column; zeros
    /// where it is computed.
    pub outputs: Vec<(u32, i16)>,
    pub rows: Vec<Vec<Option<String>>>,
    /// What COPY sent.
    pub copied: String,
    pub error: Option<String>,
}

impl Wire {
    pub fn connect(folder: &Path, database: &str) -> Self {
        let socket = folder.join(".s.PGSQL.5432");
        let mut wire = Self(UnixStream::connect(socket).expect("the server listens"));
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for text in ["user", "postgres", "database", database, ""] {
            body.extend(text.as_bytes());
            body.push(0);
        }
        let length = (body.len() as u32 + 4).to_be_bytes();
        wire.0.write_all(&length).expect("the server reads");
        wire.0.write_all(&body).expect("the server reads");
        let answer = wire.answer();
        assert_eq!(answer.error, None);
        wire
    }

    pub fn query(&mut self, sql: &str) -> Answer {
        let mut message = vec![b'Q'];
        message.extend((sql.len() as u32 + 5).to_be_bytes());
        message.extend(sql.as_bytes());
        message.push(0);
        self.0.write_all(&message).expect("the server reads");
        self.answer()
    }

    /// [`Wire::query`] of what must work.
    pub fn must(&mut self, sql: &str) -> Answer {
        let answer = self.query(sql);
        assert_eq!(answer.error, None, "{sql}");
        answer
    }

    fn answer(&mut self) -> Answer {
        let mut answer = Answer::default();
        loop {
            let mut header = [0; 5];
            self.0.read_exact(&mut header).expect("the server answers");
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).expect("the server answers");
            match header[0] {
                b'Z' => return answer,
                b'T' => answer.outputs = outputs(&body),
                b'D' => answer.rows.push(values(&body)),
                b'd' => answer.copied += &String::from_utf8_lossy(&body),
                b'E' => {
                    let text = String::from_utf8_lossy(&body);
                    answer.error = Some(text.replace('\0', " "));
                }
                _ => {}
            }
        }
    }
}

fn outputs(mut body: &[u8]) -> Vec<(u32, i16)> {
    let count = take::<2>(&mut body);
    let one = |_| {
        let end = body.iter().position(|byte| *byte == 0).expect("a name");
        body = &body[end + 1..];
        let table = u32::from_be_bytes(take(&mut body));
        let column = i16::from_be_bytes(take(&mut body));
        take::<12>(&mut body);
        (table, column)
    };
    (0..i16::from_be_bytes(count)).map(one).collect()
}

fn values(mut body: &[u8]) -> Vec<Option<String>> {
    let count = take::<2>(&mut body);
    let one = |_| {
        let length = usize::try_from(i32::from_be_bytes(take(&mut body))).ok()?;
        let (value, rest) = body.split_at(length);
        body = rest;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    (0..i16::from_be_bytes(count)).map(one).collect()
}

fn take<const N: usize>(body: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = body.split_at(N);
    *body = rest;
    taken.try_into().expect("so many bytes")
}
