use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// One socket, with or without TLS.
pub(crate) enum Stream {
    /// Cleartext.
    Plain(TcpStream),
    /// lockgate is the TLS server: towards a client.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// lockgate is the TLS client: towards a target.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket below.
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(tls) => tls.get_ref().0,
            Self::Client(tls) => tls.get_ref().0,
        }
    }

    /// Closes with RST, so that the peer cannot take the end for a clean one.
    pub(crate) fn reset(self) {
        // Not fatal: the socket is closed in any case.
        let _ =
            rustix::net::sockopt::set_socket_linger(self.socket(), Some(std::time::Duration::ZERO));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Server(tls) => Pin::new(tls).poll_read(cx, buffer),
            Self::Client(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Server(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Client(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Server(tls) => Pin::new(tls).poll_flush(cx),
            Self::Client(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Server(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Client(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Bytes a single read may bring. Also the size of a pooled buffer.
const READ: usize = 64 * 1024;

/// How long a peer may take to read the last of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Above this many unsent bytes for one side, the other side is not read.
const HIGH_WATER: usize = 256 * 1024;

/// A socket with what has been read from it and what waits to be sent to it.
pub(crate) struct Side {
    /// The socket.
    pub(crate) stream: Stream,
    /// Read, not yet taken.
    pub(crate) input: BytesMut,
    /// To be sent.
    pub(crate) output: BytesMut,
    /// The peer has sent its last byte.
    pub(crate) ended: bool,
    /// Bytes read so far.
    pub(crate) received: u64,
}

/// What one [`Side::poll`] saw.
#[derive(Clone, Copy, Default)]
pub(crate) struct Progress {
    /// New bytes, or the end.
    pub(crate) read: bool,
    /// Some bytes left.
    pub(crate) wrote: bool,
}

impl Side {
    /// An idle side.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            ended: false,
            received: 0,
        }
    }

    /// Whether so much waits to be sent that its source should pause.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= HIGH_WATER
    }

    /// Sends and receives what is possible now. Reads only when `read` says
    /// so; wakes the task when more becomes possible.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, read: bool) -> io::Result<Progress> {
        let wrote = self.poll_send(cx)?;
        let read = read && !self.ended && self.poll_receive(cx)?;
        Ok(Progress { read, wrote })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = false;
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.output.advance(count);
                    wrote = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(wrote),
            }
        }
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(cx) {
            result?;
        }
        if wrote {
            pool::give(&mut self.output);
        }
        Ok(wrote)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            if self.input.is_empty() {
                self.input = pool::take();
            } else {
                self.input.reserve(READ);
            }
        }
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Ready(Ok(0)) => {
                self.ended = true;
                Ok(true)
            }
            Poll::Ready(Ok(count)) => {
                self.received += count as u64;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => {
                pool::give(&mut self.input);
                Ok(false)
            }
        }
    }

    /// Sends all of the output.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            self.poll_send(cx)?;
            if !self.output.is_empty() {
                return Poll::Pending;
            }
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Sends what is left and ends the connection as the peer expects it: over
    /// TLS, an end without a notice looks like an attack. The peer may have gone
    /// away already, or never read again; it is over either way.
    pub(crate) async fn close(mut self) {
        let _ = tokio::time::timeout(PATIENCE, async {
            self.flush().await?;
            self.stream.shutdown().await
        })
        .await;
    }

    /// Waits for more input; false at the end.
    pub(crate) async fn receive(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| match self.poll_receive(cx) {
            Ok(true) => Poll::Ready(Ok(!self.ended)),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }
}

/// Waits until something was sent or received on either side. A side is not
/// read while too much waits to be sent to the other one.
pub(crate) async fn progress(left: &mut Side, right: &mut Side) -> io::Result<()> {
    std::future::poll_fn(|cx| {
        let (left_full, right_full) = (left.is_full(), right.is_full());
        let seen = [left.poll(cx, !right_full)?, right.poll(cx, !left_full)?];
        match seen.iter().any(|side| side.read || side.wrote) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    })
    .await
}

/// A socket as it came over a channel, for this thread's runtime.
pub(crate) fn to_tokio(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    TcpStream::from_std(socket)
}

/// Buffers that idle connections do not need are shared by the connections of
/// a thread: an idle connection keeps none.
mod pool {
    use super::{BytesMut, READ, RefCell};

    /// Buffers kept per thread: 2 MiB.
    const KEPT: usize = 32;

    thread_local! {
        static FREE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> BytesMut {
        FREE.with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| BytesMut::with_capacity(READ))
    }

    /// Takes `buffer` back if nothing is in it.
    pub(super) fn give(buffer: &mut BytesMut) {
        if !buffer.is_empty() || buffer.capacity() == 0 {
            return;
        }
        let mut buffer = std::mem::take(buffer);
        // After many `advance`s little room is left behind the cursor;
        // `reserve` moves the cursor back where the block is large enough.
        if buffer.try_reclaim(READ) {
            FREE.with_borrow_mut(|free| {
                if free.len() < KEPT {
                    free.push(buffer);
                }
            });
        }
    }
}
