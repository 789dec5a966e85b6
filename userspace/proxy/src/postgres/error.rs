use std::time::Duration;

use bytes::BytesMut;
use lockgate_command::Denial;
use lockgate_wire_postgres::{ErrorFields, ProtocolError, error_response};

use crate::links::{DialError, KeeperError};
use crate::recorder::RecordError;
use crate::tls::{AcceptError, UpstreamTlsError};

/// Why a client did not get a session. The text is for the operator's log and
/// the record; [`StartupError::answer`] is what the client is told.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartupError {
    #[error("the client went away before it had a session")]
    ClientGone,
    #[error("the client's connection failed: {0}")]
    Client(std::io::Error),
    #[error("the client broke the protocol: {0}")]
    ClientProtocol(ProtocolError),
    #[error(transparent)]
    ClientTls(#[from] AcceptError),
    #[error("the client took longer than {} s (`limits.startup_s`) to begin its session", .0.as_secs())]
    TooSlow(Duration),
    #[error("a cancel request for a session that is not the caller's own")]
    ForeignCancel,
    #[error("{}", .0.message)]
    Denied(std::sync::Arc<Denial>),
    #[error("`{0}` in the client's `options` sets nothing that can be decided")]
    Options(String),
    #[error("no login at the server: {0}")]
    Login(KeeperError),
    #[error("the server cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the connection to the server failed: {0}")]
    Server(std::io::Error),
    #[error("the server closed the connection during login")]
    ServerGone,
    #[error(transparent)]
    ServerTls(#[from] UpstreamTlsError),
    #[error("the server offers no TLS, but `tls.upstream` of the target asks for it")]
    ServerWithoutTls,
    #[error("the server broke the protocol, or asks for a login lockgate does not do: {0}")]
    ServerProtocol(ProtocolError),
    #[error("the server refused the login: {}", describe(.0))]
    ServerRefused(Box<ErrorFields>),
    #[error("the server asks for a password, but the credential has none")]
    NoPassword,
    #[error("what the database's names mean cannot be read: {0}")]
    Catalogue(KeeperError),
    #[error("what the session's names mean cannot be read: {0}")]
    Names(&'static str),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl StartupError {
    /// The ErrorResponse for the client: it says whether the policy, the
    /// operator or the server is to be asked, and nothing about credentials.
    pub(super) fn answer(&self, out: &mut BytesMut) {
        let mut fatal = |code: &str, message: &str, hint: &str| {
            error_response(out, "FATAL", code, message, None, Some(hint));
        };
        match self {
            Self::ClientGone | Self::Client(_) | Self::ForeignCancel => {}
            Self::ClientTls(error) => {
                fatal(
                    "08P01",
                    &format!("lockgate: {error}"),
                    "the log of lockgate has more",
                );
            }
            Self::ClientProtocol(error) => {
                fatal(
                    error.sqlstate(),
                    &format!("lockgate: {error}"),
                    "check the client's options",
                );
            }
            Self::TooSlow(_) => fatal(
                "57014",
                &format!("lockgate: {self}"),
                "try again; if the server is slow to log in, raise limits.startup_s",
            ),
            Self::Denied(denial) => fatal("42501", &denial.message, &denial.hint),
            Self::Options(_) => fatal(
                "42501",
                &format!("lockgate: {self}"),
                "write settings as `-c name=value`",
            ),
            Self::Login(_) | Self::NoPassword => fatal(
                "28000",
                "lockgate: this workload has no login at this target",
                "ask the operator to add it under `credentials` of the target; the log of lockgate says what is missing",
            ),
            Self::ServerRefused(fields) => fatal(
                fields.sqlstate(),
                &format!(
                    "lockgate: the server refused lockgate's login: {}",
                    describe(fields)
                ),
                "ask the operator to check the target's credentials",
            ),
            Self::Dial(_) | Self::Server(_) | Self::ServerGone => fatal(
                "08001",
                &format!("lockgate: {self}"),
                "lockgate itself is running; check that the server is up and its address right",
            ),
            Self::ServerTls(_) | Self::ServerWithoutTls => fatal(
                "08001",
                &format!("lockgate: {self}"),
                "the operator can check the target's `tls` settings",
            ),
            Self::ServerProtocol(_) => {
                fatal(
                    "08P01",
                    &format!("lockgate: {self}"),
                    "the operator can check the target",
                );
            }
            Self::Catalogue(_) | Self::Names(_) | Self::Record(_) => fatal(
                "58000",
                &format!("lockgate: {self}"),
                "nothing is forwarded while this lasts; `lockgate status` and the log say more",
            ),
        }
    }
}

fn describe(fields: &ErrorFields) -> String {
    format!("{} (SQLSTATE {})", fields.message(), fields.sqlstate())
}
