//! Connections to what is protected now that were made before it was: the
//! hooks never see them again, so they are ended.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use lockgate_abi::{INET, INET6};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cgroup::Attached;
use crate::kernel::Exemptions;
use crate::namespace::Namespace;
use crate::protected::Protected;

/// What is looked for.
pub(crate) struct Earlier<'g> {
    pub(crate) protected: &'g Protected,
    /// Who dialled for the proxy that may still be there.
    pub(crate) exemptions: &'g Exemptions,
    /// Where the programs are attached; sockets elsewhere are not lockgate's.
    pub(crate) cgroup: &'g Attached,
}

impl Earlier<'_> {
    /// Ends them in one network namespace, with RST, and says how many there
    /// were.
    ///
    /// # Errors
    /// When the kernel cannot be asked for its sockets (CONFIG_INET_DIAG), or
    /// does not end them (CONFIG_INET_DIAG_DESTROY).
    pub(crate) fn end(&self, namespace: &Namespace) -> io::Result<usize> {
        let mut diag = namespace.inside(open)?;
        let mut found = Vec::new();
        for family in [INET, INET6] {
            let dump = dump(family, self.exemptions.as_raw_fd());
            for message in ask(&mut diag, &dump)? {
                found.extend(Open::read(&message).filter(|open| self.is_meant(open)));
            }
        }
        for open in &found {
            match ask(&mut diag, &destroy(open.family, &open.id)) {
                // It has ended by itself.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                result => drop(result?),
            }
        }
        Ok(found.len())
    }

    fn is_meant(&self, open: &Open) -> bool {
        !open.is_gates
            && self.protected.covers(open.peer)
            && open.cgroup.is_none_or(|id| self.cgroup.covers(id))
    }
}

/// Whether this kernel ends connections when it is asked to.
pub(crate) fn can_end() -> io::Result<bool> {
    let nobody = destroy(INET as u8, &[0xff; ID]);
    let answer = open().and_then(|mut diag| ask(&mut diag, &nobody));
    match answer.map_err(|error| error.raw_os_error()) {
        Err(Some(libc::ENOENT)) => Ok(true),
        Err(Some(libc::EOPNOTSUPP)) => Ok(false),
        Err(Some(code)) => Err(io::Error::from_raw_os_error(code)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// One open TCP socket.
#[derive(Debug)]
struct Open {
    family: u8,
    /// `struct inet_diag_sockid`, by which the kernel finds it again.
    id: [u8; ID],
    peer: SocketAddr,
    cgroup: Option<u64>,
    is_gates: bool,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
const HEADER: usize = 16;
const ID: usize = 48;
const MESSAGE: usize = 72;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
/// Attributes of a request and of an answer.
const REQUEST_STORAGES: u16 = 2;
const REQUEST_MAP: u16 = 1;
const STORAGES: u16 = 20;
const CGROUP: u16 = 21;
const ATTRIBUTE_TYPE: u16 = 0x3fff;
/// All states but TIME_WAIT, CLOSE, LISTEN and NEW_SYN_RECV: what can send.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

fn open() -> io::Result<Socket> {
    const NETLINK_SOCK_DIAG: i32 = 4;
    Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::DGRAM,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )
}

/// Asks for all TCP sockets of a family, each with its value in the map
/// `storage`, if it has one.
fn dump(family: u16, storage: i32) -> Vec<u8> {
    let map = attribute(REQUEST_MAP, &storage.to_ne_bytes());
    let mut body = request(family as u8, &[0; ID]);
    body.extend(attribute(REQUEST_STORAGES, &map));
    message(SOCK_DIAG_BY_FAMILY, DUMP, &body)
}

fn destroy(family: u8, id: &[u8; ID]) -> Vec<u8> {
    let body = request(family, id);
    message(SOCK_DESTROY, ACKNOWLEDGE, &body)
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, id: &[u8; ID]) -> Vec<u8> {
    let mut body = vec![family, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(STATES.to_ne_bytes());
    body.extend(id);
    body
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((flags | REQUEST).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

/// All attributes here are whole words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute
}

/// Sends a request and collects what is answered, without headers.
fn ask(diag: &mut Socket, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    diag.write_all(request)?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let length = diag.read(&mut buffer)?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, after)) = next(rest) {
            match kind {
                DONE => return Ok(answers),
                ERROR => {
                    let code = body
                        .first_chunk()
                        .map_or(-libc::EPROTO, |code| i32::from_ne_bytes(*code));
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    return Ok(answers);
                }
                _ => answers.push(body.to_vec()),
            }
            rest = after;
        }
    }
}

/// Type and body of the first message, and what is behind it.
fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    let aligned = length.next_multiple_of(4).min(bytes.len());
    Some((kind, body, &bytes[aligned..]))
}

impl Open {
    /// From a `struct inet_diag_msg` and its attributes.
    fn read(message: &[u8]) -> Option<Self> {
        let (fixed, mut rest) = message.split_at_checked(MESSAGE)?;
        let id: [u8; ID] = *fixed.get(4..)?.first_chunk()?;
        let port = u16::from_be_bytes([id[2], id[3]]);
        let address: [u8; 16] = *id.get(20..)?.first_chunk()?;
        let ip = match u16::from(fixed[0]) {
            INET => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
            _ => IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
        };
        let mut open = Self {
            family: fixed[0],
            id,
            peer: SocketAddr::new(ip, port),
            cgroup: None,
            is_gates: false,
        };
        while let Some((length, kind)) = rest.first_chunk::<4>().map(|[a, b, c, d]| {
            let length = usize::from(u16::from_ne_bytes([*a, *b]));
            (length, u16::from_ne_bytes([*c, *d]) & ATTRIBUTE_TYPE)
        }) {
            let value = rest.get(4..length)?;
            match kind {
                STORAGES => open.is_gates = true,
                CGROUP => open.cgroup = value.first_chunk().map(|id| u64::from_ne_bytes(*id)),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(open)
    }
}
