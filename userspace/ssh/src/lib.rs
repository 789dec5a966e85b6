//! `ssh HOST COMMAND` under the boundary that all protocols share.
//!
//! A study, not a feature: it shows that [`lockgate_command::Judge`] serves a
//! protocol whose library owns its IO. russh is the server towards the client
//! and the client towards the server; between the two, a single command is
//! read ([`classify`]), judged, and relayed or refused. Shells, subsystems,
//! forwards, terminals and environment variables are refused.
#![forbid(unsafe_code)]

pub mod classify;
mod relay;
mod session;
mod upstream;

pub use session::{Surroundings, serve};
pub use upstream::Upstream;

/// Why a session ended, or why a command did not reach the server.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The protocol, or the connection under it, failed.
    #[error("ssh: {0}")]
    Protocol(#[from] russh::Error),
    /// The server could not be dialled.
    #[error("the server cannot be reached: {0}")]
    Dial(#[from] std::io::Error),
    /// The server did not accept the target's credential.
    #[error(
        "the server refused the key of `{0}`; check the target's credential and the server's authorized_keys"
    )]
    Login(String),
    /// The server accepted the session but not the command.
    #[error("the server refused to run the command")]
    Exec,
}
