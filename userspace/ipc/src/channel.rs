use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// First byte of every packet. A peer of another version is closed.
const VERSION: u8 = 1;

/// Largest packet in bytes. What is larger travels as a memfd.
const PACKET: usize = 64 * 1024;

/// One end of a `SOCK_SEQPACKET` pair. Packets are whole or not at all; both
/// directions can be used from several tasks at once.
#[derive(Debug)]
pub struct Channel {
    // tokio has no type for SOCK_SEQPACKET; of its own it only waits on this
    // descriptor, and packets go through `sendmsg` and `recvmsg` below.
    socket: UnixDatagram,
}

/// Why a packet was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer has closed its end or ended.
    #[error("the peer is gone")]
    Closed,
    /// The packet is over 64 KiB.
    #[error("a packet of {0} bytes is over the limit of {PACKET}")]
    TooLarge(usize),
    /// The peer sent what this version does not know.
    #[error("the peer sent a packet that cannot be read: {0}")]
    Garbled(String),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connected pair, close-on-exec, as plain descriptors that can be handed on.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

impl Channel {
    /// Wraps one end. Must be called within a tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixDatagram::from_std(socket)?,
        })
    }

    /// Sends one message, with a descriptor where there is one. Waits while the
    /// peer's queue is full.
    ///
    /// Cancel safe: a message is sent whole or not at all.
    pub async fn send<M: Serialize>(
        &self,
        message: &M,
        fd: Option<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let packet = encode(message)?;
        loop {
            self.socket.writable().await?;
            let sent = self.socket.try_io(Interest::WRITABLE, || {
                send_now(&self.socket, &packet, fd.as_ref())
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                result => return result.map_err(closed),
            }
        }
    }

    /// Sends one message without waiting; a full queue is `WouldBlock`.
    pub fn try_send<M: Serialize>(
        &self,
        message: &M,
        fd: Option<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let packet = encode(message)?;
        send_now(&self.socket, &packet, fd.as_ref()).map_err(closed)
    }

    /// Receives one message.
    ///
    /// Cancel safe: a message is received whole or stays in the queue.
    pub async fn receive<M: DeserializeOwned>(&self) -> Result<(M, Option<OwnedFd>), ChannelError> {
        // On the heap once per wait, so that futures that await it stay small.
        let mut packet = vec![0; PACKET];
        let (length, fd) = loop {
            self.socket.readable().await?;
            let received = self.socket.try_io(Interest::READABLE, || {
                receive_now(&self.socket, &mut packet)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                result => break result.map_err(closed)?,
            }
        };
        match packet[..length].split_first() {
            None => Err(ChannelError::Closed),
            Some((&VERSION, body)) => postcard::from_bytes(body)
                .map(|message| (message, fd))
                .map_err(|why| ChannelError::Garbled(why.to_string())),
            Some((other, _)) => Err(ChannelError::Garbled(format!(
                "version {other}, expected {VERSION}"
            ))),
        }
    }
}

fn encode<M: Serialize>(message: &M) -> Result<zeroize::Zeroizing<Vec<u8>>, ChannelError> {
    let packet = postcard::to_extend(message, vec![VERSION])
        .map_err(|why| ChannelError::Io(io::Error::other(why)))?;
    match packet.len() {
        length if length > PACKET => Err(ChannelError::TooLarge(length)),
        _ => Ok(zeroize::Zeroizing::new(packet)),
    }
}

fn closed(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io(error),
    }
}

fn send_now(socket: &UnixDatagram, packet: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let borrowed = fd.map(|fd| [fd.as_fd()]);
    if let Some(fds) = &borrowed {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive_now(socket: &UnixDatagram, packet: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(packet)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let fd = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .next();
    Ok((received.bytes, fd))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn a_message_and_its_descriptor_arrive() {
        let (left, right) = pair().unwrap();
        let (left, right) = (Channel::new(left).unwrap(), Channel::new(right).unwrap());
        let (mut reader, writer) = std::io::pipe().unwrap();
        left.send(&("hello", 7u32), Some(writer.into()))
            .await
            .unwrap();
        let ((text, number), fd) = right.receive::<(String, u32)>().await.unwrap();
        assert_eq!((text.as_str(), number), ("hello", 7));
        std::fs::File::from(fd.unwrap()).write_all(b"x").unwrap();
        let mut got = [0; 1];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
    }

    #[tokio::test]
    async fn the_end_of_the_peer_is_seen_on_both_sides() {
        let (left, right) = pair().unwrap();
        let left = Channel::new(left).unwrap();
        drop(right);
        assert!(matches!(
            left.receive::<u8>().await,
            Err(ChannelError::Closed)
        ));
        assert!(matches!(
            left.send(&1u8, None).await,
            Err(ChannelError::Closed)
        ));
    }

    #[tokio::test]
    async fn what_is_too_large_or_garbled_is_named() {
        let (left, right) = pair().unwrap();
        let (left, right) = (Channel::new(left).unwrap(), Channel::new(right).unwrap());
        let large = vec![0u8; PACKET];
        assert!(matches!(
            left.send(&large, None).await,
            Err(ChannelError::TooLarge(_))
        ));
        left.send(&"text", None).await.unwrap();
        let wrong = right.receive::<(u64, u64, String)>().await;
        assert!(matches!(wrong, Err(ChannelError::Garbled(_))), "{wrong:?}");
    }
}
