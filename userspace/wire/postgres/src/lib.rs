//! PostgreSQL's frontend/backend protocol 3.0 and 3.2 as sans-IO state
//! machines: bytes and decisions in, bytes and events out.
//!
//! Source of all forms: PostgreSQL 18 documentation, chapter 54
//! "Frontend/Backend Protocol"; where it is silent, `src/backend/tcop/postgres.c`.
//!
//! * [`ClientStartup`]: the server's part of the startup, towards a client.
//! * [`UpstreamLogin`]: the client's part, towards a server.
//! * [`Relay`]: a session between the two. It forwards a message only when it
//!   is whole and decided, and replaces a denied one, in its place, by one that
//!   the server refuses in every state.
#![forbid(unsafe_code)]

mod cancel;
mod error;
mod frame;
mod login;
mod messages;
mod relay;
mod startup;

pub use cancel::{CancelKey, cancel_request};
pub use error::{ErrorFields, ProtocolError};
pub use login::{LoginDone, LoginEvent, LoginRequest, Mechanism, UpstreamLogin};
pub use messages::{error_response, greet, ssl_request};
pub use relay::{CopyRows, DenialText, Masking, Relay, RelaySettings, Request, ResponseEvent};
pub use startup::{ClientStartup, StartupEvent, StartupMessage};
