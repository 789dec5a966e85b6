use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use lockgate_ipc::{Channel, pair};

use super::call::map_shared;
use super::{ALL, Probe};

/// What roles are handed and must be able to use.
pub(super) struct Belongings {
    /// As a spool segment.
    file: File,
    /// As a client and its server.
    near: TcpStream,
    far: TcpStream,
    /// As a channel to a peer.
    channel: (OwnedFd, OwnedFd),
}

impl Belongings {
    pub(super) fn new() -> anyhow::Result<Self> {
        let file = rustix::fs::open(
            std::env::temp_dir(),
            rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR,
            rustix::fs::Mode::from_raw_mode(0o600),
        )?;
        let file = File::from(file);
        file.set_len(4096)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        Ok(Self {
            file,
            near,
            far,
            channel: pair()?,
        })
    }

    pub(super) fn try_out(self, probe: &mut Probe) {
        let Self {
            mut file,
            near,
            far,
            channel,
        } = self;
        probe.works(ALL, "map a file it was handed", map_shared(&file));
        probe.works(ALL, "read a file it was handed", {
            file.read_exact(&mut [0; 8])
        });
        probe.works(ALL, "write a file it was handed", {
            file.write_all(b"x").and_then(|()| file.sync_data())
        });
        probe.works(ALL, "use a connection it was handed", exchange(near, far));
        probe.works(ALL, "start a thread", {
            std::thread::Builder::new()
                .name("probe".into())
                .stack_size(64 << 20)
                .spawn(|| {})
                .and_then(|thread| thread.join().map_err(|_| io::Error::other("it panicked")))
        });
        probe.works(ALL, "make a memfd", {
            lockgate_ipc::to_memfd("probe", b"x").map(drop)
        });
        probe.works(ALL, "run tokio, pass a descriptor", in_tokio(channel));
    }
}

fn exchange(mut near: TcpStream, mut far: TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    near.write_all(b"ping")?;
    far.read_exact(&mut [0; 4])?;
    near.peer_addr()?;
    near.shutdown(Shutdown::Both)
}

fn in_tokio((left, right): (OwnedFd, OwnedFd)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (left, right) = (Channel::new(left)?, Channel::new(right)?);
        let (reader, _writer) = io::pipe()?;
        left.send(&1u8, Some(reader.into()))
            .await
            .map_err(io::Error::other)?;
        let (_, passed) = right.receive::<u8>().await.map_err(io::Error::other)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::task::spawn_blocking(|| {}).await?;
        match passed {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the descriptor did not arrive")),
        }
    })
}
