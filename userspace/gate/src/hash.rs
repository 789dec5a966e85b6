use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

/// Largest executable that is hashed, in bytes.
const MAX_EXECUTABLE: u64 = 256 << 20;

/// Longest time a hash may take. A file system can answer as slowly as it
/// likes; what takes longer is not attested.
const MAX_HASHING: Duration = Duration::from_secs(2);

/// Digests of executables, kept by what names their content.
pub(crate) struct Hashes {
    known: Cache<FileKey, [u8; 32]>,
    hashing: Mutex<()>,
}

/// Names the content of a file, as far as a file system can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FileKey {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

impl Hashes {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(1024),
            hashing: Mutex::new(()),
        }
    }

    /// SHA-256 of what process `tgid` runs: through /proc, so that it is the
    /// file that runs, whatever stands at its path by now. None if a limit was
    /// reached.
    pub(crate) fn of(&self, tgid: u32) -> Option<[u8; 32]> {
        let file = File::open(format!("/proc/{tgid}/exe")).ok()?;
        let meta = file.metadata().ok()?;
        let key = FileKey {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            size: meta.size(),
        };
        if let Some(hash) = self.known.get(&key) {
            return Some(hash);
        }
        if key.size > MAX_EXECUTABLE {
            return None;
        }
        // One at a time: a slow file must not take every thread. Who finds it
        // taken for too long goes on without.
        let deadline = Instant::now() + MAX_HASHING;
        let _hashing = loop {
            match self.hashing.try_lock() {
                Ok(guard) => break guard,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => return None,
            }
        };
        let hash = hash_file(file, Instant::now() + MAX_HASHING)?;
        self.known.insert(key, hash);
        Some(hash)
    }
}

/// Reads in a thread of its own, since a read can hang for ever; that thread
/// then hangs alone.
fn hash_file(mut file: File, deadline: Instant) -> Option<[u8; 32]> {
    let (send, receive) = std::sync::mpsc::channel();
    let reading = std::thread::Builder::new()
        .name("hash".into())
        .spawn(move || {
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) if Instant::now() < deadline => hasher.update(&buffer[..count]),
                    Ok(_) | Err(_) => return,
                }
            }
            // Who asked may have given up.
            let _ = send.send(hasher.finalize().into());
        });
    reading.ok()?;
    receive
        .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        .ok()
}
