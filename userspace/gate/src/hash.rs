use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::image::{FileKey, Image};

/// Largest executable that is hashed, in bytes.
const MAX_EXECUTABLE: u64 = 256 << 20;

/// Longest time a hash may take. A file system can answer as slowly as it
/// likes; what takes longer is not attested.
const MAX_HASHING: Duration = Duration::from_secs(2);

/// How many files may be waited for that do not answer.
const MAX_STUCK: usize = 16;

/// Digests of executables, kept by what names their content.
pub(crate) struct Hashes {
    known: Cache<FileKey, [u8; 32]>,
    hashing: Mutex<()>,
    reading: Arc<AtomicUsize>,
}

/// Why an executable has no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unhashed {
    #[error("its process has gone")]
    Gone,
    #[error("it is on a file system that root has not mounted, or that a process answers for")]
    Mount,
    #[error("it was changed after it was executed, or up to 10 ms before")]
    Changed,
    #[error("it has more than 256 MiB")]
    Size,
    #[error("it could not be read within 2 seconds")]
    Time,
}

impl Hashes {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(1024),
            hashing: Mutex::new(()),
            reading: Arc::default(),
        }
    }

    /// SHA-256 of `file`, which process `tgid` runs since `executed`; none for a
    /// process that was there before anybody looked.
    pub(crate) fn of(
        &self,
        tgid: u32,
        file: FileKey,
        executed: Option<SystemTime>,
    ) -> Result<[u8; 32], Unhashed> {
        let image = Image::of(tgid).map_err(|_| Unhashed::Gone)?;
        // Also before one that is known: what names a content here is what a
        // file system says.
        if !image.is_on_a_mount_of_root(tgid) {
            return Err(Unhashed::Mount);
        }
        let changed = executed.is_some_and(|executed| !image.is_unchanged_since(executed));
        if changed || !image.key().is_same_file(&file) {
            return Err(Unhashed::Changed);
        }
        let key = image.key();
        if let Some(hash) = self.known.get(&key) {
            return Ok(hash);
        }
        if image.size() > MAX_EXECUTABLE {
            return Err(Unhashed::Size);
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
                Err(_) => return Err(Unhashed::Time),
            }
        };
        let (hash, image) = self.read(image).ok_or(Unhashed::Time)?;
        if !image.is_as_it_was() {
            return Err(Unhashed::Changed);
        }
        // Not one that could be changed again without another time stamp.
        if image.is_unchanged_since(SystemTime::now()) {
            self.known.insert(key, hash);
        }
        Ok(hash)
    }

    /// Reads in a thread of its own, since opening or reading can hang for ever;
    /// that thread then hangs alone.
    fn read(&self, image: Image) -> Option<([u8; 32], Image)> {
        let reading = Reading::begin(&self.reading)?;
        let deadline = Instant::now() + MAX_HASHING;
        let (send, receive) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                let hash = hash(&image, deadline);
                drop(reading);
                // Who asked may have given up.
                let _ = send.send(hash.map(|hash| (hash, image)));
            });
        thread.ok()?;
        receive.recv_timeout(MAX_HASHING).ok()?
    }
}

fn hash(image: &Image, deadline: Instant) -> Option<[u8; 32]> {
    let mut file = image.open().ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(hasher.finalize().into()),
            Ok(count) if Instant::now() < deadline => hasher.update(&buffer[..count]),
            Ok(_) | Err(_) => return None,
        }
    }
}

/// One of those who read.
struct Reading(Arc<AtomicUsize>);

impl Reading {
    fn begin(count: &Arc<AtomicUsize>) -> Option<Self> {
        let reading = Self(count.clone());
        (count.fetch_add(1, SeqCst) < MAX_STUCK).then_some(reading)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_files_are_waited_for_than_may_hang() {
        let count = Arc::default();
        let held: Vec<_> = (0..MAX_STUCK).map(|_| Reading::begin(&count)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(Reading::begin(&count).is_none());
        drop(held);
        assert!(Reading::begin(&count).is_some());
    }
}
