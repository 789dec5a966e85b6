use bytes::{Buf, Bytes, BytesMut};

use crate::frame::take_string;
use crate::{CancelKey, ProtocolError, cancel};

pub(crate) const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// As in the server (MAX_STARTUP_PACKET_LENGTH in pqcomm.h).
const MAX_PACKET: usize = 10_000;

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Newest minor version of protocol 3 that is spoken here.
const NEWEST_MINOR: u16 = 2;

/// The server's part of the startup, towards a client (section 54.2.1 and
/// 54.2.10 to 54.2.12).
#[derive(Debug, Default)]
pub struct ClientStartup {
    tls: bool,
    asked_tls: bool,
    asked_gss: bool,
}

/// What a client's first bytes ask for.
#[derive(Debug)]
pub enum StartupEvent {
    /// More bytes are needed.
    NeedMore,
    /// Send this and go on.
    Reply(&'static [u8]),
    /// Send `reply`, begin TLS, then call [`ClientStartup::tls_done`].
    StartTls {
        /// `S`, or nothing for direct TLS.
        reply: &'static [u8],
        /// The client began with TLS; ALPN must then be `postgresql`, and the
        /// bytes in the input are the first of the handshake.
        direct: bool,
    },
    /// The client wants a session.
    Startup(StartupMessage),
    /// The client wants to cancel a command of another connection.
    Cancel(CancelKey),
}

impl ClientStartup {
    /// Nothing has been read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// TLS stands; what is fed from now came through it.
    pub fn tls_done(&mut self) {
        self.tls = true;
    }

    /// Takes the next packet off `input`.
    ///
    /// # Errors
    /// 08P01 for what is no startup packet, for a packet over 10,000 bytes and
    /// for bytes in clear behind an SSLRequest; 0A000 for replication and for
    /// protocols other than 3.
    pub fn feed(&mut self, input: &mut BytesMut) -> Result<StartupEvent, ProtocolError> {
        if !self.tls && !self.asked_tls && !self.asked_gss && input.first() == Some(&TLS_HANDSHAKE)
        {
            self.asked_tls = true;
            return Ok(StartupEvent::StartTls {
                reply: b"",
                direct: true,
            });
        }
        let Some((length, _)) = input.split_first_chunk::<4>() else {
            return Ok(StartupEvent::NeedMore);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if !(8..=MAX_PACKET).contains(&length) {
            return Err(ProtocolError::violation(format!(
                "a startup packet of {length} bytes is none"
            )));
        }
        if input.len() < length {
            return Ok(StartupEvent::NeedMore);
        }
        let mut packet = input.split_to(length).freeze();
        packet.advance(4);
        match packet.get_u32() {
            SSL_REQUEST if length == 8 && !self.tls && !self.asked_tls => {
                self.asked_tls = true;
                // Bytes sent in clear behind the request would be taken for
                // bytes that came through TLS (CVE-2021-23214).
                if !input.is_empty() {
                    return Err(ProtocolError::violation(
                        "there are bytes in clear behind the SSLRequest",
                    ));
                }
                Ok(StartupEvent::StartTls {
                    reply: b"S",
                    direct: false,
                })
            }
            GSSENC_REQUEST if length == 8 && !self.tls && !self.asked_gss => {
                self.asked_gss = true;
                if !input.is_empty() {
                    return Err(ProtocolError::violation(
                        "there are bytes in clear behind the GSSENCRequest",
                    ));
                }
                Ok(StartupEvent::Reply(b"N"))
            }
            cancel::CODE => CancelKey::parse(&packet).map(StartupEvent::Cancel),
            code if code >> 16 == 3 => {
                StartupMessage::parse(code as u16, packet).map(StartupEvent::Startup)
            }
            code => Err(ProtocolError::unsupported(format!(
                "protocol {}.{} is not spoken here, 3.0 and 3.2 are",
                code >> 16,
                code & 0xffff
            ))),
        }
    }
}

/// A StartupMessage. Everything in it is the client's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    minor: u16,
    parameters: Vec<(String, String)>,
}

impl StartupMessage {
    fn parse(minor: u16, mut body: Bytes) -> Result<Self, ProtocolError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            let name = take_utf8(&mut body)?;
            if name.is_empty() {
                break;
            }
            let value = take_utf8(&mut body)?;
            // The server would take the last one; a reader in between might not.
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(ProtocolError::violation(format!(
                    "the startup parameter `{name}` is given twice"
                )));
            }
            parameters.push((name, value));
        }
        if !body.is_empty() {
            return Err(ProtocolError::violation(
                "there are bytes behind the startup parameters",
            ));
        }
        let message = Self { minor, parameters };
        if message.user().is_empty() {
            return Err(ProtocolError::violation("the startup names no user"));
        }
        match message.get("replication") {
            None | Some("false" | "off" | "no" | "0") => Ok(message),
            Some(_) => Err(ProtocolError::unsupported(
                "replication connections are refused: lockgate cannot read what they do",
            )),
        }
    }

    /// Major and minor version both sides speak.
    pub fn protocol(&self) -> (u16, u16) {
        // 3.1 was never used; the server treats it as 3.0, too.
        (
            3,
            if self.minor >= NEWEST_MINOR {
                NEWEST_MINOR
            } else {
                0
            },
        )
    }

    /// Major and minor version the client asked for.
    pub fn requested_protocol(&self) -> (u16, u16) {
        (3, self.minor)
    }

    /// All parameters in the client's order.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// One parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The role the client names.
    pub fn user(&self) -> &str {
        self.get("user").unwrap_or("")
    }

    /// The database the client names; without one, its user's name.
    pub fn database(&self) -> &str {
        match self.get("database") {
            Some(database) if !database.is_empty() => database,
            _ => self.user(),
        }
    }
}

fn take_utf8(body: &mut Bytes) -> Result<String, ProtocolError> {
    String::from_utf8(take_string(body)?.to_vec())
        .map_err(|_| ProtocolError::violation("a startup parameter is not UTF-8"))
}
