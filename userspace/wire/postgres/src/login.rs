use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{HEADER, Header, data_row, name, take_string, text};
use crate::messages::{put, put_string};
use crate::{CancelKey, ErrorFields, ProtocolError, ssl_request};

/// Most that a server may send during login, setup queries included, in bytes.
const MAX_LOGIN: usize = 4 << 20;

/// What lockgate wants of the server.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// Ask for TLS first (SSLRequest); a server without it is not logged in to.
    pub tls: bool,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Further startup parameters.
    pub parameters: Vec<(String, String)>,
    /// Queries to run after login, each a single SELECT.
    pub setup: Vec<String>,
}

/// The client's part of the startup, towards a server, in protocol 3.0
/// (section 54.2.1).
#[derive(Debug)]
pub struct UpstreamLogin {
    request: LoginRequest,
    state: State,
    parameters: Vec<(String, String)>,
    key: Option<CancelKey>,
    setup_rows: Vec<Vec<Vec<Option<String>>>>,
    /// Bytes of whole messages so far.
    received: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// SSLRequest sent.
    Tls,
    /// The driver starts TLS.
    StartingTls,
    /// StartupMessage sent.
    Authentication,
    /// SCRAM: waiting for the server's first or final message.
    SaslFirst,
    SaslFinal,
    /// SCRAM: the driver verifies the server's proof.
    SaslVerifying,
    /// SCRAM: the server has proven that it knows the password.
    SaslVerified,
    /// A password or hash was sent.
    PasswordSent,
    /// Authenticated; waiting for ReadyForQuery.
    Starting,
    /// This many setup queries were sent.
    Setup(usize),
    Done,
}

/// SASL mechanisms (RFC 5802, RFC 7677).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Without channel binding.
    ScramSha256,
    /// With channel binding.
    ScramSha256Plus,
}

/// What the driver has to do next.
#[derive(Debug)]
pub enum LoginEvent {
    /// Send what is in the output, and feed more.
    NeedMore,
    /// Begin TLS, then call [`UpstreamLogin::tls_done`].
    StartTls,
    /// The server has no TLS.
    TlsRefused,
    /// Call [`UpstreamLogin::sasl_initial`] with the client-first-message.
    NeedScram {
        /// The server offers SCRAM-SHA-256-PLUS.
        plus_offered: bool,
    },
    /// The server-first-message; call [`UpstreamLogin::sasl_response`].
    ScramContinue(Bytes),
    /// The server-final-message; verify it, then call
    /// [`UpstreamLogin::sasl_verified`].
    ScramFinal(Bytes),
    /// Call [`UpstreamLogin::password`].
    NeedPassword {
        /// For MD5; none if the server wants the password itself.
        md5_salt: Option<[u8; 4]>,
    },
    /// There is a session.
    Ready(LoginDone),
    /// The server refused.
    Failed(ErrorFields),
}

/// What the server said.
#[derive(Clone, Debug, Default)]
pub struct LoginDone {
    /// ParameterStatus, latest values.
    pub parameters: Vec<(String, String)>,
    /// BackendKeyData.
    pub key: Option<CancelKey>,
    /// Transaction status of the last ReadyForQuery.
    pub status: u8,
    /// Rows of each setup query, in text.
    pub setup_rows: Vec<Vec<Vec<Option<String>>>>,
}

impl UpstreamLogin {
    /// Nothing has been sent yet.
    pub fn new(request: LoginRequest) -> Self {
        Self {
            request,
            state: State::Authentication,
            parameters: Vec::new(),
            key: None,
            setup_rows: Vec::new(),
            received: 0,
        }
    }

    /// Appends the first packet.
    pub fn start(&mut self, out: &mut BytesMut) {
        if self.request.tls {
            self.state = State::Tls;
            out.extend_from_slice(&ssl_request());
        } else {
            self.send_startup(out);
        }
    }

    /// TLS stands; appends the startup message.
    pub fn tls_done(&mut self, out: &mut BytesMut) {
        self.send_startup(out);
    }

    fn send_startup(&mut self, out: &mut BytesMut) {
        self.state = State::Authentication;
        let at = out.len();
        out.put_u32(0);
        out.put_u16(3);
        out.put_u16(0);
        let own = [
            ("user", &self.request.user),
            ("database", &self.request.database),
        ];
        let others = self
            .request
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        for (name, value) in own.into_iter().chain(others) {
            put_string(out, name.as_bytes());
            put_string(out, value.as_bytes());
        }
        out.put_u8(0);
        let length = (out.len() - at) as u32;
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends SASLInitialResponse.
    pub fn sasl_initial(&mut self, mechanism: Mechanism, first: &[u8], out: &mut BytesMut) {
        self.state = State::SaslFirst;
        put(out, b'p', |out| {
            let name = match mechanism {
                Mechanism::ScramSha256 => "SCRAM-SHA-256",
                Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            };
            put_string(out, name.as_bytes());
            out.put_u32(first.len() as u32);
            out.put_slice(first);
        });
    }

    /// Appends SASLResponse.
    pub fn sasl_response(&mut self, message: &[u8], out: &mut BytesMut) {
        self.state = State::SaslFinal;
        put(out, b'p', |out| out.put_slice(message));
    }

    /// The server's proof was right.
    pub fn sasl_verified(&mut self) {
        self.state = State::SaslVerified;
    }

    /// Appends PasswordMessage.
    pub fn password(&mut self, secret: &[u8], out: &mut BytesMut) {
        self.state = State::PasswordSent;
        put(out, b'p', |out| put_string(out, secret));
    }

    /// Takes what the server sent.
    ///
    /// # Errors
    /// For authentication methods that are not done here (named), for a server
    /// that lets lockgate in before it has proven that it knows the password,
    /// and for whatever does not belong into a login.
    pub fn feed(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<LoginEvent, ProtocolError> {
        if self.state == State::Tls {
            return match input.first() {
                None => Ok(LoginEvent::NeedMore),
                Some(b'S') => {
                    // Bytes in clear behind it would be taken for bytes that
                    // came through TLS (CVE-2021-23222).
                    input.advance(1);
                    if !input.is_empty() {
                        return Err(ProtocolError::violation(
                            "the server sent bytes in clear behind its answer to SSLRequest",
                        ));
                    }
                    self.state = State::StartingTls;
                    Ok(LoginEvent::StartTls)
                }
                // An old server's or an attacker's error is not to be believed
                // before TLS (CVE-2024-10977).
                Some(_) => Ok(LoginEvent::TlsRefused),
            };
        }
        loop {
            let Some(header) = Header::peek(input)? else {
                return Ok(LoginEvent::NeedMore);
            };
            if header.total > MAX_LOGIN - self.received {
                return Err(ProtocolError::limit(format!(
                    "the server sent over {MAX_LOGIN} bytes during login"
                )));
            }
            if input.len() < header.total {
                return Ok(LoginEvent::NeedMore);
            }
            self.received += header.total;
            let body = input.split_to(header.total).freeze().slice(HEADER..);
            if let Some(event) = self.message(header.tag, body, out)? {
                return Ok(event);
            }
        }
    }

    fn message(
        &mut self,
        tag: u8,
        mut body: Bytes,
        out: &mut BytesMut,
    ) -> Result<Option<LoginEvent>, ProtocolError> {
        match (tag, self.state) {
            (b'E', _) => return ErrorFields::parse(&body).map(|e| Some(LoginEvent::Failed(e))),
            (b'N', _) => {}
            (b'R', _) => return self.authentication(body),
            (b'S', State::Starting | State::Setup(_)) => {
                let name = text(take_string(&mut body)?)?;
                let value = text(take_string(&mut body)?)?;
                self.parameters.retain(|(known, _)| *known != name);
                self.parameters.push((name, value));
            }
            (b'K', State::Starting) => self.key = Some(CancelKey::parse(&body)?),
            (b'Z', State::Starting | State::Setup(_)) => return self.ready(&body, out),
            (b'T', State::Setup(_)) => self.setup_rows.push(Vec::new()),
            (b'D', State::Setup(_)) => {
                let row = data_row(body)?;
                match self.setup_rows.last_mut() {
                    Some(rows) => rows.push(row),
                    None => return Err(ProtocolError::violation("a row without a description")),
                }
            }
            (b'C', State::Setup(_)) => {}
            (tag, _) => {
                return Err(ProtocolError::violation(format!(
                    "a message of type {} during login",
                    name(tag)
                )));
            }
        }
        Ok(None)
    }

    fn authentication(&mut self, mut body: Bytes) -> Result<Option<LoginEvent>, ProtocolError> {
        if body.len() < 4 {
            return Err(ProtocolError::violation(
                "an authentication request is too short",
            ));
        }
        let code = body.get_u32();
        let event = match (code, self.state) {
            (0, State::Authentication | State::SaslVerified | State::PasswordSent) => {
                self.state = State::Starting;
                return Ok(None);
            }
            (0, _) => {
                return Err(ProtocolError::violation(
                    "the server ended SCRAM without proof that it knows the password",
                ));
            }
            (3, State::Authentication) => LoginEvent::NeedPassword { md5_salt: None },
            (5, State::Authentication) => match body[..].try_into() {
                Ok(salt) => LoginEvent::NeedPassword {
                    md5_salt: Some(salt),
                },
                Err(_) => return Err(ProtocolError::violation("an MD5 salt has four bytes")),
            },
            (10, State::Authentication) => return scram(body).map(Some),
            (11, State::SaslFirst) => LoginEvent::ScramContinue(body),
            (12, State::SaslFinal) => {
                self.state = State::SaslVerifying;
                LoginEvent::ScramFinal(body)
            }
            (code, _) => {
                return Err(ProtocolError::unsupported(format!(
                    "the server asks for {}, which lockgate does not do; use scram-sha-256 for this role in pg_hba.conf",
                    method(code)
                )));
            }
        };
        Ok(Some(event))
    }

    fn ready(
        &mut self,
        body: &[u8],
        out: &mut BytesMut,
    ) -> Result<Option<LoginEvent>, ProtocolError> {
        let &[status] = body else {
            return Err(ProtocolError::violation("ReadyForQuery has one byte"));
        };
        let next = match self.state {
            State::Setup(sent) => sent,
            _ => 0,
        };
        if let Some(query) = self.request.setup.get(next) {
            put(out, b'Q', |out| put_string(out, query.as_bytes()));
            self.state = State::Setup(next + 1);
            return Ok(None);
        }
        if status != b'I' {
            return Err(ProtocolError::violation(
                "the session does not begin outside a transaction",
            ));
        }
        self.state = State::Done;
        Ok(Some(LoginEvent::Ready(LoginDone {
            parameters: std::mem::take(&mut self.parameters),
            key: self.key.take(),
            status,
            setup_rows: std::mem::take(&mut self.setup_rows),
        })))
    }
}

fn scram(mut body: Bytes) -> Result<LoginEvent, ProtocolError> {
    let mut mechanisms = Vec::new();
    loop {
        let mechanism = take_string(&mut body)?;
        if mechanism.is_empty() {
            break;
        }
        mechanisms.push(mechanism);
    }
    let offers = |name: &[u8]| mechanisms.iter().any(|mechanism| mechanism == name);
    if offers(b"SCRAM-SHA-256") || offers(b"SCRAM-SHA-256-PLUS") {
        return Ok(LoginEvent::NeedScram {
            plus_offered: offers(b"SCRAM-SHA-256-PLUS"),
        });
    }
    Err(ProtocolError::unsupported(
        "the server offers no SASL mechanism that lockgate does",
    ))
}

fn method(code: u32) -> String {
    let name = match code {
        2 => "Kerberos V5",
        6 => "SCM credentials",
        7 => "GSSAPI",
        8 => "GSSAPI data",
        9 => "SSPI",
        11 | 12 => "SASL out of order",
        code => return format!("authentication method {code}"),
    };
    name.to_owned()
}
