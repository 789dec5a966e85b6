use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use crate::bounded::Bounded;
use crate::image::{FileKey, Image, Mount};

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
    reading: Bounded,
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
            reading: Bounded::new(MAX_STUCK),
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
        let mount = image.mount_of_root(tgid).ok_or(Unhashed::Mount)?;
        let changed = executed.is_some_and(|executed| !image.is_unchanged_since(executed));
        if changed || !image.key().is_same_file(&file) {
            return Err(Unhashed::Changed);
        }
        let key = image.key();
        let stamped = mount == Mount::Stamps;
        if stamped && let Some(hash) = self.known.get(&key) {
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
        if stamped && image.is_unchanged_since(SystemTime::now()) {
            self.known.insert(key, hash);
        }
        Ok(hash)
    }

    /// Opening or reading can hang for ever.
    fn read(&self, image: Image) -> Option<([u8; 32], Image)> {
        let deadline = Instant::now() + MAX_HASHING;
        let read = move || hash(&image, deadline).map(|hash| (hash, image));
        self.reading.run("hash", MAX_HASHING, read)?
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
