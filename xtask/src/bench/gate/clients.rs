use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// How long a server's byte may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections before those that are timed: a process that has just moved has
/// cold caches.
const WARM: usize = 20;

/// One connection, from its beginning.
#[derive(Clone, Copy)]
pub struct Visit {
    /// Until connect(2) returned.
    pub connected: Duration,
    /// Until the server's first byte was there.
    pub answered: Duration,
}

/// Connects, hears the server's byte, and waits for the end.
pub fn visit(to: SocketAddr) -> Result<Visit> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(to).context("connect")?;
    let connected = begun.elapsed();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0]).context("the first byte")?;
    let answered = begun.elapsed();
    let more = stream.read(&mut [0]).context("the end")?;
    ensure!(more == 0, "more than was said");
    Ok(Visit {
        connected,
        answered,
    })
}

/// Times socket(2) and connect(2) `count` times. Nobody accepts meanwhile, and
/// both ends are thrown away without a trace afterwards.
pub fn connect_only(listener: &TcpListener, count: usize) -> Result<Vec<Duration>> {
    let to = listener.local_addr()?;
    let mut times = Vec::with_capacity(count);
    let mut streams = Vec::with_capacity(WARM + count);
    for number in 0..WARM + count {
        let begun = Instant::now();
        let stream = TcpStream::connect(to)?;
        let took = begun.elapsed();
        if number >= WARM {
            times.push(took);
        }
        // A reset leaves no port in TIME_WAIT for the next round to avoid.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&stream, sockopt::Linger, &at_once)?;
        streams.push(stream);
    }
    drop(streams);
    for _ in 0..WARM + count {
        listener.accept()?;
    }
    Ok(times)
}

/// What came of opening many.
pub struct Held {
    pub open: Vec<TcpStream>,
    pub failed: u64,
}

/// Opens `count` connections, each of which has heard the server.
pub fn open(to: SocketAddr, count: usize) -> Held {
    const THREADS: usize = 4;
    let share = move |number: usize| count / THREADS + usize::from(number < count % THREADS);
    let begin = move |number| thread::spawn(move || (0..share(number)).map(|_| held(to)).collect());
    let threads: Vec<_> = (0..THREADS).map(begin).collect();
    let mut all = Held {
        open: Vec::with_capacity(count),
        failed: 0,
    };
    for thread in threads {
        let results: Vec<Result<TcpStream>> = thread.join().unwrap_or_default();
        for result in results {
            match result {
                Ok(stream) => all.open.push(stream),
                Err(error) => {
                    if all.failed == 0 {
                        eprintln!("[bench] gate, the first that failed: {error:#}");
                    }
                    all.failed += 1;
                }
            }
        }
    }
    all
}

fn held(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0]).context("the first byte")?;
    Ok(stream)
}

/// What came of connecting again and again.
#[derive(Default)]
pub struct Many {
    pub made: u64,
    pub failed: u64,
    /// The first failure of some client.
    pub why: Option<String>,
    pub took: Duration,
}

/// `clients` connect for `duration`, each again once its last one has ended.
pub fn full_speed(to: SocketAddr, clients: usize, duration: Duration) -> Many {
    let begun = Instant::now();
    let client = move || {
        let mut mine = Many::default();
        while begun.elapsed() < duration {
            match visit(to) {
                Ok(_) => mine.made += 1,
                Err(error) => {
                    mine.failed += 1;
                    mine.why.get_or_insert(format!("{error:#}"));
                }
            }
        }
        mine
    };
    let threads: Vec<_> = (0..clients).map(|_| thread::spawn(client)).collect();
    let mut all = Many::default();
    for thread in threads {
        // One that panicked is a failure like any other.
        let mine = thread.join().unwrap_or(Many {
            failed: 1,
            ..Many::default()
        });
        all.made += mine.made;
        all.failed += mine.failed;
        all.why = all.why.or(mine.why);
    }
    all.took = begun.elapsed();
    all
}
