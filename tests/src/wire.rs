use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Workload;

/// Longest wait for the server's next bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of PostgreSQL's protocol that sends what it is told to, byte by
/// byte: no driver would send most of it.
#[derive(Debug)]
pub struct Wire {
    output: Option<Box<dyn WriteDebug>>,
    input: Receiver<Vec<u8>>,
    pending: Vec<u8>,
    socket: Option<UnixStream>,
    process: Option<Child>,
    /// BackendKeyData: process and secret.
    pub key: Vec<u8>,
}

trait WriteDebug: Write + Send + std::fmt::Debug {}
impl<T: Write + Send + std::fmt::Debug> WriteDebug for T {}

/// What a server said until it was ready, or gone.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Types and bodies of messages.
    pub messages: Vec<(u8, Vec<u8>)>,
    /// The connection has ended.
    pub closed: bool,
}

impl Wire {
    /// Connects a process of `workload` to `address`, port 5432. Nothing is
    /// sent yet.
    pub fn dial(workload: &Workload, address: &str) -> Result<Self> {
        // The shell connects; what it starts copies to and fro.
        let relay = "exec 3<>/dev/tcp/$1/5432 4<&0; cat <&4 >&3 & exec cat <&3 4<&-";
        let mut process = workload
            .command("bash")
            .args(["-c", relay, "bash", address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = process.stdin.take().context("no stdin")?;
        let input = process.stdout.take().context("no stdout")?;
        Ok(Self::new(output, input, Some(process)))
    }

    /// Connects to the server itself, past the network, through its socket.
    pub fn direct(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let mut wire = Self::new(stream.try_clone()?, stream.try_clone()?, None);
        wire.socket = Some(stream);
        Ok(wire)
    }

    fn new(
        output: impl WriteDebug + 'static,
        mut input: impl Read + Send + 'static,
        process: Option<Child>,
    ) -> Self {
        let (sender, receiver) = channel();
        // It ends with the connection.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            output: Some(Box::new(output)),
            input: receiver,
            pending: Vec::new(),
            socket: None,
            process,
            key: Vec::new(),
        }
    }

    /// Begins a session of protocol 3.0 with these parameters.
    pub fn start(&mut self, parameters: &[(&str, &str)]) -> Result<Answer> {
        let mut body = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend(text(name));
            body.extend(text(value));
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        self.send(&packet);
        let answer = self.until_ready()?;
        if let Some((_, key)) = answer.messages.iter().find(|(tag, _)| *tag == b'K') {
            self.key.clone_from(key);
        }
        Ok(answer)
    }

    /// Sends bytes. Whoever does not want them has closed, which the next
    /// answer says.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(output) = &mut self.output {
            let _ = output.write_all(bytes).and_then(|()| output.flush());
        }
    }

    /// Sends nothing more, as one who has gone.
    pub fn hang_up(&mut self) {
        self.output = None;
    }

    /// The next message; none when the connection has ended.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn message(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((&[tag, a, b, c, d], rest)) = self.pending.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let Some(size) = length.checked_sub(4) else {
                    bail!("a message of {length} bytes");
                };
                if let Some(body) = rest.get(..size) {
                    let body = body.to_vec();
                    self.pending.drain(..=length);
                    return Ok(Some((tag, body)));
                }
            }
            match self.input.recv_timeout(PATIENCE) {
                Ok(bytes) => self.pending.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no answer in {PATIENCE:?}; so far {:?}", self.pending)
                }
            }
        }
    }

    /// Everything up to the next ReadyForQuery, to a COPY that wants data, or
    /// to the connection's end.
    pub fn until_ready(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            match self.message()? {
                Some((tag, body)) => {
                    answer.messages.push((tag, body));
                    if matches!(tag, b'Z' | b'G' | b'W') {
                        return Ok(answer);
                    }
                }
                None => {
                    answer.closed = true;
                    return Ok(answer);
                }
            }
        }
    }

    /// Everything up to the connection's end.
    pub fn until_closed(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        while !answer.closed {
            answer.take(self.until_ready()?);
        }
        Ok(answer)
    }

    /// Sends `messages` and reads until the server is ready.
    pub fn ask(&mut self, messages: &[u8]) -> Result<Answer> {
        self.send(messages);
        self.until_ready()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.output = None;
        if let Some(socket) = &self.socket {
            // It may be closed already. The thread that reads has a copy.
            let _ = socket.shutdown(Shutdown::Both);
        }
        if let Some(process) = &mut self.process {
            // Our own child.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Answer {
    /// Adds what came later.
    pub fn take(&mut self, later: Answer) {
        self.messages.extend(later.messages);
        self.closed |= later.closed;
    }

    /// All bytes that the client got, without the types and lengths.
    pub fn bytes(&self) -> Vec<u8> {
        let bodies = self.messages.iter().map(|(_, body)| body.as_slice());
        bodies.collect::<Vec<_>>().join(&b'\n')
    }

    /// Bodies of one type.
    pub fn of(&self, tag: u8) -> Vec<&[u8]> {
        let found = self.messages.iter().filter(|(found, _)| *found == tag);
        found.map(|(_, body)| body.as_slice()).collect()
    }

    /// SQLSTATE and text of each error.
    pub fn errors(&self) -> Vec<String> {
        let field = |body: &[u8], kind| {
            let fields = body.split(|byte| *byte == 0);
            fields
                .filter_map(|field| field.split_first())
                .find(|(found, _)| **found == kind)
                .map(|(_, text)| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        };
        let errors = self.of(b'E').into_iter();
        errors
            .map(|body| format!("{} {}", field(body, b'C'), field(body, b'M')))
            .collect()
    }

    /// A COPY waits for the client's data.
    pub fn wants_data(&self) -> bool {
        matches!(self.messages.last(), Some((b'G', _)))
    }
}

/// A string as the protocol has it.
pub fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A message of type `tag`.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[tag][..], &length, body].concat()
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &text(sql))
}

/// Parse without types of parameters.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[&text(name)[..], &text(sql), &[0, 0]].concat())
}

/// Bind without parameters, results in text.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(
        b'B',
        &[&text(portal)[..], &text(statement), &[0; 6]].concat(),
    )
}

/// Execute, all rows if `rows` is zero.
pub fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(b'E', &[&text(portal)[..], &rows.to_be_bytes()].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}
