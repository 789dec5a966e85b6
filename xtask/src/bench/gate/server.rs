use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use nix::sys::socket::{Backlog, listen};

use super::wait_until;

/// Says one byte to everybody, and ends the connection or holds it.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    holding: AtomicBool,
    held: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// On an address of loopback that nobody else uses, so that the ports to it
    /// are all its own.
    pub fn start() -> Result<Self> {
        let listener = listener("127.101.9.1:0")?;
        let server = Self {
            address: listener.local_addr()?,
            shared: Arc::default(),
        };
        let shared = server.shared.clone();
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.serve(stream);
            }
        });
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds what comes from now.
    pub fn hold(&self) {
        self.shared.holding.store(true, SeqCst);
    }

    /// Waits until it holds `count`.
    pub fn holds(&self, count: usize) -> Result<()> {
        let shared = &self.shared;
        wait_until("the server holds them all", || shared.held().len() == count)
    }

    /// Sends a byte over each connection and back; how many are there.
    pub fn reaches(&self, clients: &[TcpStream]) -> Result<usize> {
        let servers = self.shared.held();
        for mut server in servers.iter() {
            server.write_all(b"?")?;
        }
        for mut client in clients {
            client.read_exact(&mut [0])?;
            client.write_all(b"!")?;
        }
        for mut server in servers.iter() {
            server.set_read_timeout(Some(Duration::from_secs(10)))?;
            server.read_exact(&mut [0])?;
        }
        Ok(servers.len())
    }

    /// Lets go of what it holds, once the clients have ended it all, and holds
    /// nothing any more.
    pub fn releases(&self) -> Result<()> {
        self.shared.holding.store(false, SeqCst);
        let held = std::mem::take(&mut *self.shared.held());
        for mut stream in held {
            // The end, or a reset: either is the last that is heard of it.
            let _ = stream.read(&mut [0]);
        }
        Ok(())
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        // Who has gone already does not need it.
        let _ = stream.write_all(b".");
        if self.holding.load(SeqCst) {
            self.held().push(stream);
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that accepts nobody by itself: no thread runs while connect(2) does.
pub fn silent() -> Result<TcpListener> {
    listener("127.101.9.2:0")
}

/// With room for more than the 128 that the standard library asks for.
fn listener(address: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listen(&listener, Backlog::new(4096)?)?;
    Ok(listener)
}
