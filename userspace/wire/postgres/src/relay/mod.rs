//! A session between a client and a server.

mod client;
mod denial;
mod expected;
mod masking;
mod names;
mod question;
mod server;

pub use denial::DenialText;
pub use masking::{CopyRows, Masking};

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::messages::{put, put_string};
use denial::Replaced;
use expected::{Expected, Running};
use masking::Portal;
use names::Names;

/// Relays one session: takes the client's messages one by one, each of which
/// is allowed or denied by its caller, and follows the server's answers.
///
/// `S` is the caller's payload for a prepared statement. A ticket is the
/// caller's number for one command.
///
/// lockgate keeps no transaction state of its own. A denied message is
/// replaced by one that the server refuses in every state, so that what a
/// denial does to the transaction is what the server does:
///
/// | denied | replaced by | the server's answer |
/// | --- | --- | --- |
/// | Query, FunctionCall | Query of a text that cannot parse | 42601 |
/// | Parse | Parse of such a text under the same name | 42601 |
/// | Bind | Bind of a statement of that name | 26000 |
/// | Execute | Execute of a portal of that name | 34000 |
/// | COPY that takes data ([`Relay::fail_copy`]) | CopyFail with such a reason | 57014 |
///
/// The text and the names hold a nonce of 128 bits; an error that repeats it
/// is our own and is given the caller's words.
#[derive(Debug)]
pub struct Relay<S> {
    settings: RelaySettings,
    statements: Names<S>,
    portals: Names<Portal>,
    /// What the server has yet to answer, in order.
    expected: VecDeque<Expected>,
    /// A message of the client that waits for its verdict.
    held: Option<client::Held>,
    /// Number of the client's Syncs: messages between two of them share the
    /// fate of the first that fails.
    batch: u64,
    /// The server reads over everything that comes, until Sync: there was an
    /// error in an extended batch, or one is certain.
    skipping: bool,
    /// The server reads COPY data, and over Flush and Sync, until the data end
    /// (section 54.2.6).
    copy_in: bool,
    /// What a COPY is to be ended with as soon as the client's message is whole.
    copy_fail: Option<String>,
    /// Syncs that were sent into a COPY. Those that met one which had failed
    /// already are answered, the others are not.
    unanswered: usize,
    /// A Flush was sent so that the COPY's end is heard of.
    flushed: bool,
    /// Bytes of the client's current CopyData that go as they come.
    client_passing: usize,
    /// Those bytes go nowhere, since the server would read over them.
    client_dropping: bool,
    /// Bytes of the server's current message that go through as they come.
    server_passing: usize,
    /// Binds that the server confirmed and whose end was not reported:
    /// ticket, rows, bytes.
    open: Vec<(u64, u64, u64)>,
    status: u8,
}

/// Bounds and habits of a relay.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// Largest message of the client, apart from CopyData, in bytes.
    pub message_bytes: usize,
    /// Whether errors and notices lose everything but severity and code.
    pub scrub_errors: bool,
}

/// A message of the client that needs a verdict, or a look. Call one of the
/// `allow_…` that fits, or [`Relay::deny`], before the next.
#[derive(Debug)]
pub enum Request<S> {
    /// A simple query; several statements are possible.
    Query {
        /// The text, without its NUL.
        text: Bytes,
    },
    /// A statement is prepared.
    Parse {
        /// The text, without its NUL.
        text: Bytes,
        /// Types of its parameters by their oids, zero for what the server is to
        /// find out. It makes such values of what Bind brings.
        types: SmallVec<[u32; 4]>,
    },
    /// A prepared statement gets its parameters. This alone can run code.
    Bind {
        /// Every payload the statement's name may stand for at the server by
        /// the time it gets there. Empty: none was prepared here.
        candidates: SmallVec<[S; 1]>,
        /// Whether the portal gets a name, by which SQL can read it, too.
        named: bool,
        /// Formats and values, as sent.
        parameters: Bytes,
    },
    /// A portal is run, or run on.
    Execute {
        /// The tickets of every Bind that the portal's name may stand for.
        /// Empty: none was bound here.
        tickets: SmallVec<[u64; 1]>,
    },
    /// A function is called by its OID. Always denied.
    FunctionCall,
    /// The client says goodbye; it was passed on.
    Terminate,
}

/// What the server's answers mean for the caller's tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseEvent {
    /// The command has ended well.
    Completed {
        /// Which.
        ticket: u64,
        /// Rows returned or changed, by the command tags.
        rows: u64,
        /// Bytes of its rows and COPY data.
        bytes: u64,
    },
    /// The server refused or failed.
    Failed {
        /// Which.
        ticket: u64,
        /// Its SQLSTATE.
        sqlstate: [u8; 5],
    },
    /// The server refused the replacement; the denied command did not run.
    Denied {
        /// Which.
        ticket: u64,
    },
    /// The server read over it, after an error before it.
    Skipped {
        /// Which.
        ticket: u64,
    },
    /// ParameterStatus.
    Parameter {
        /// Name.
        name: String,
        /// New value.
        value: String,
    },
    /// The answer to [`Relay::ask`].
    Answered {
        /// In text; none if the server failed.
        rows: Option<Vec<Vec<Option<String>>>>,
    },
    /// ReadyForQuery.
    Idle {
        /// `I` outside a transaction, `T` in one, `E` in a failed one.
        status: u8,
    },
}

impl<S: Clone> Relay<S> {
    /// A session that has just been greeted.
    pub fn new(settings: RelaySettings) -> Self {
        Self {
            settings,
            statements: Names::default(),
            portals: Names::default(),
            expected: VecDeque::new(),
            held: None,
            batch: 0,
            skipping: false,
            copy_in: false,
            copy_fail: None,
            unanswered: 0,
            flushed: false,
            client_passing: 0,
            client_dropping: false,
            server_passing: 0,
            open: Vec::new(),
            status: b'I',
        }
    }

    /// Whether errors and notices lose everything but severity and code from now
    /// on.
    pub fn set_scrub_errors(&mut self, scrub: bool) {
        self.settings.scrub_errors = scrub;
    }

    /// Whether everything sent has been answered and no transaction is open.
    pub fn is_idle_outside_transaction(&self) -> bool {
        self.expected.is_empty() && self.unanswered == 0 && !self.skipping && self.status == b'I'
    }

    /// A PREPARE in SQL gives `name`, which is the same name as Parse gives, a
    /// meaning besides those it may have; call it before that command is
    /// allowed. False if the name has too many: then nothing that was prepared
    /// so far is known from now on, and Bind of it has no candidates.
    #[must_use]
    pub fn prepares(&mut self, name: &[u8], payload: S) -> bool {
        let known = self.statements.may_be(name, payload);
        if !known {
            self.statements.forget();
        }
        known
    }

    /// Every payload that the name of a prepared statement may stand for by
    /// the time a Query sent now gets to the server. Empty: none is known.
    pub fn prepared(&self, name: &[u8]) -> SmallVec<[S; 1]> {
        self.statements.all(name)
    }

    /// No portal that was bound so far is known from now on: Execute of it has
    /// no candidates. For a DECLARE in SQL, whose names are the same names; call
    /// it before that command is allowed.
    pub fn forget_portals(&mut self) {
        self.portals.forget();
    }

    /// Whether what was bound by that ticket may still have rows to give.
    pub fn may_be_open(&self, ticket: u64) -> bool {
        !self.expected.is_empty() || self.open.iter().any(|(open, ..)| *open == ticket)
    }

    /// Whether a COPY takes the client's data now.
    pub fn is_copying_in(&self) -> bool {
        self.copy_in
    }

    /// Ends a COPY that takes data: the server is sent CopyFail in the place of
    /// the rest, as soon as the client's current message is whole, and rolls
    /// the COPY back. False if no COPY takes data now. `nonce` as in
    /// [`Relay::deny`]; the ticket of the COPY's command is then denied.
    pub fn fail_copy(
        &mut self,
        text: DenialText,
        nonce: [u8; 16],
        upstream: &mut BytesMut,
    ) -> bool {
        let front = self.expected.front_mut().and_then(Expected::running);
        let Some(running) = front.filter(|running| self.copy_in && running.copying) else {
            return false;
        };
        let replaced = Replaced::new(running.ticket, text, nonce);
        self.copy_fail = Some(replaced.name.clone());
        running.replaced = Some(Box::new(replaced));
        self.copy_in = false;
        self.send_copy_fail(upstream);
        true
    }

    fn send_copy_fail(&mut self, upstream: &mut BytesMut) {
        if self.client_passing == 0
            && let Some(reason) = self.copy_fail.take()
        {
            put(upstream, b'f', |out| put_string(out, reason.as_bytes()));
        }
    }

    /// Whether the end of the data of a COPY was sent, and its answer is due.
    fn copy_is_ending(&mut self) -> bool {
        let running = self.expected.front_mut().and_then(Expected::running);
        running.is_some_and(|running: &mut Running| running.copying) && !self.copy_in
    }
}
