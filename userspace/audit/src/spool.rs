use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use uuid::Uuid;

mod reader;
mod segment;
mod writer;

pub use reader::{Damage, Entry, ReadError, SpoolReader};
pub use segment::{SegmentHeader, SegmentName};
pub use writer::{SpoolSync, SpoolWriter};

use segment::{ALIGNMENT, HEADER_BYTES, PREFIX_BYTES};

/// The folder of segments that wait to be sealed. One process owns it.
///
/// ```text
/// lock                       held by the owner
/// next-stream                decimal number of the next unused stream
/// 0000002a-00000000.segment  stream 42, first segment
/// ```
#[derive(Debug)]
pub struct Spool {
    dir: PathBuf,
    boot: Uuid,
    settings: SpoolSettings,
    next_stream: u32,
    _lock: File,
}

/// Bounds of a [`Spool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Size of a segment in bytes.
    pub segment_bytes: u64,
    /// How many segments may exist.
    pub max_segments: u32,
}

/// How full a [`Spool`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fullness {
    /// Segments that exist.
    pub segments: u32,
    /// Segments that may exist.
    pub max_segments: u32,
    /// Bytes they take on disk.
    pub bytes: u64,
}

/// Why the spool does not take an event or give a segment.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The event does not fit into what is left of the segment.
    #[error("the spool segment is full")]
    Full,
    /// The event does not fit into any segment.
    #[error("the event is larger than a segment of {limit} bytes; raise `audit.segment_mib`")]
    TooLarge {
        /// Bytes that a segment takes.
        limit: u64,
    },
    /// The event has no encoding, such as a path that is not UTF-8.
    #[error("the event cannot be encoded: {0}")]
    Encode(postcard::Error),
    /// A writer was there before.
    #[error("segment {0} was written to already")]
    Used(SegmentName),
    /// There are as many segments as may be.
    #[error(
        "{0} segments wait to be sealed, as many as `audit.max_segments` allows; see what keeper's log says of sealing"
    )]
    TooManySegments(u32),
    /// The disk is full.
    #[error("no space for a segment of {bytes} bytes in {dir}; free some: {source}")]
    NoSpace {
        /// Size of the segment.
        bytes: u64,
        /// The spool's folder.
        dir: PathBuf,
        /// As the kernel says it.
        source: io::Error,
    },
    /// Another process has this spool.
    #[error("the spool in {0} belongs to another running process; stop it first")]
    Owned(PathBuf),
    /// Every number was used.
    #[error("all 4294967295 stream numbers of this host are used")]
    NoStreams,
    /// The folder holds something that should be a segment.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The folder or a file failed.
    #[error("the spool failed: {0}")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Opens the spool in `dir`, creating it where it is missing. `boot` is
    /// written into each new segment.
    pub fn open(dir: &Path, boot: Uuid, settings: SpoolSettings) -> Result<Self, SpoolError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::Owned(dir.to_owned()))?;
        let least = HEADER_BYTES + PREFIX_BYTES + ALIGNMENT;
        let segment_bytes = settings
            .segment_bytes
            .max(least)
            .next_multiple_of(ALIGNMENT);
        let mut spool = Self {
            dir: dir.to_owned(),
            boot,
            settings: SpoolSettings {
                segment_bytes,
                ..settings
            },
            next_stream: 0,
            _lock: lock,
        };
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path)?;
            }
        }
        let stored = match fs::read_to_string(dir.join("next-stream")) {
            Ok(text) => text.trim().parse().map_err(|_| {
                io::Error::other(format!(
                    "{} is damaged: write a number into it that is above every stream of the audit store",
                    dir.join("next-stream").display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error.into()),
        };
        let seen = spool
            .segments()?
            .last()
            .map_or(0, |last| last.stream.saturating_add(1));
        spool.next_stream = seen.max(stored);
        Ok(spool)
    }

    /// Changes the bounds; existing segments keep their size.
    pub fn set_bounds(&mut self, settings: SpoolSettings) {
        let least = HEADER_BYTES + PREFIX_BYTES + ALIGNMENT;
        let segment_bytes = settings
            .segment_bytes
            .max(least)
            .next_multiple_of(ALIGNMENT);
        self.settings = SpoolSettings {
            segment_bytes,
            ..settings
        };
    }

    /// A stream number that was never used on this host: on disk before it is
    /// returned.
    pub fn new_stream(&mut self) -> Result<u32, SpoolError> {
        let stream = self.next_stream;
        let next = stream.checked_add(1).ok_or(SpoolError::NoStreams)?;
        let fresh = self.dir.join("next-stream.new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{next}")?;
        file.sync_all()?;
        fs::rename(&fresh, self.dir.join("next-stream"))?;
        self.sync_dir()?;
        self.next_stream = next;
        Ok(stream)
    }

    /// Makes the segment `index` of `stream`, all of it allocated, and returns
    /// the descriptor for its writer. As long as a copy of that descriptor or
    /// a mapping of it is left anywhere, [`Spool::has_writer`] says yes.
    pub fn create(&mut self, stream: u32, index: u32) -> Result<OwnedFd, SpoolError> {
        let fullness = self.fullness()?;
        if fullness.segments >= fullness.max_segments {
            return Err(SpoolError::TooManySegments(fullness.segments));
        }
        let name = SegmentName { stream, index };
        let fresh = self.dir.join(format!("{name}.new"));
        let result = self.allocate(&fresh, name);
        if result.is_err() {
            // Else a full disk stays full of a segment that nobody has.
            let _ = fs::remove_file(&fresh);
        }
        result
    }

    fn allocate(&self, fresh: &Path, name: SegmentName) -> Result<OwnedFd, SpoolError> {
        let bytes = self.settings.segment_bytes;
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(fresh)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(|errno| match errno {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG => {
                SpoolError::NoSpace {
                    bytes,
                    dir: self.dir.clone(),
                    source: errno.into(),
                }
            }
            _ => SpoolError::Io(errno.into()),
        })?;
        let header = SegmentHeader {
            boot: self.boot,
            name,
            bytes,
        };
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        let path = self.dir.join(name.to_string());
        if path.exists() {
            return Err(SpoolError::Used(name));
        }
        fs::rename(fresh, path)?;
        self.sync_dir()?;
        Ok(file.into())
    }

    /// All segments, in the order in which they must be sealed: by stream, then
    /// by index. After a start these are the leftovers.
    pub fn segments(&self) -> Result<Vec<SegmentName>, SpoolError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Some(name) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                found.push(name);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads a segment from its beginning.
    pub fn reader(&self, name: SegmentName) -> Result<SpoolReader, SpoolError> {
        let reader = SpoolReader::open(File::open(self.dir.join(name.to_string()))?)?;
        if reader.header().name != name {
            return Err(ReadError::NotASegment("its header names another one").into());
        }
        Ok(reader)
    }

    /// Whether some process could still append to the segment. Ask before the
    /// last read: what is read after a no is all there will be.
    pub fn has_writer(&self, name: SegmentName) -> Result<bool, SpoolError> {
        let file = File::open(self.dir.join(name.to_string()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(SpoolError::Io(errno.into())),
        }
    }

    /// Deletes a segment whose events are sealed.
    pub fn remove(&mut self, name: SegmentName) -> Result<(), SpoolError> {
        fs::remove_file(self.dir.join(name.to_string()))?;
        Ok(())
    }

    /// Puts a damaged segment aside, as `NAME.damaged`, for people to look at.
    /// It no longer counts.
    pub fn set_aside(&mut self, name: SegmentName) -> Result<PathBuf, SpoolError> {
        let from = self.dir.join(name.to_string());
        let to = self.dir.join(format!("{name}.damaged"));
        fs::rename(from, &to)?;
        self.sync_dir()?;
        Ok(to)
    }

    /// How full it is.
    pub fn fullness(&self) -> Result<Fullness, SpoolError> {
        let mut fullness = Fullness {
            segments: 0,
            max_segments: self.settings.max_segments,
            bytes: 0,
        };
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<SegmentName>().is_ok())
            {
                fullness.segments += 1;
                fullness.bytes += entry.metadata()?.len();
            }
        }
        Ok(fullness)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}
