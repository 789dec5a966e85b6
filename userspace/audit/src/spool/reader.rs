use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};

use super::SegmentHeader;
use super::segment::{ALIGNMENT, HEADER_BYTES, PREFIX_BYTES, checksum, record_bytes};
use crate::{DecodeError, Event, record};

/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// Reads a segment, also while it is written.
///
/// By read(2), not by a mapping: a writer that truncates the file would take
/// the reader down with SIGBUS.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    header: SegmentHeader,
    /// Of the next record.
    offset: u64,
    /// What was read ahead, from `start` on.
    ahead: Vec<u8>,
    start: u64,
}

/// One event of a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where its record begins.
    pub offset: u64,
    /// Where the next begins.
    pub end: u64,
    /// The event.
    pub event: Event<'static>,
}

/// Why a segment cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file is something else.
    #[error("not a spool segment: {0}")]
    NotASegment(&'static str),
    /// What stands at `offset` was not written by a [`super::SpoolWriter`], or
    /// not whole. Everything before it is good.
    #[error("the segment is damaged at byte {offset}: {damage}; what stands before was read")]
    Damaged {
        /// Of the record.
        offset: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// The file cannot be read.
    #[error("the segment cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its length leads behind the end of the segment.
    #[error("a length of {0} bytes leads behind the end")]
    Length(u32),
    /// It is torn, edited, or belongs elsewhere.
    #[error("the checksum is wrong")]
    Checksum,
    /// It is whole but no event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Behind the last record there are bytes: its writer died while it wrote,
    /// or somebody erased a length.
    #[error("bytes without a record")]
    Tail,
}

enum Raw {
    Nothing,
    Record {
        body: std::ops::Range<usize>,
        end: u64,
    },
}

impl SpoolReader {
    /// Begins at the first record.
    pub fn open(file: File) -> Result<Self, ReadError> {
        let header = SegmentHeader::read(&file)?;
        Ok(Self {
            file,
            header,
            offset: HEADER_BYTES,
            ahead: Vec::new(),
            start: HEADER_BYTES,
        })
    }

    /// Which segment it is.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Where the next record begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at the `end` of an entry read earlier.
    pub fn seek(&mut self, end: u64) {
        self.offset = end.max(HEADER_BYTES).next_multiple_of(ALIGNMENT);
        // Nothing is read ahead, and what will be begins there: it may be back.
        self.ahead.clear();
        self.start = self.offset;
    }

    /// The next event; none if there is none yet.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] stays: each further call returns it again.
    pub fn next_event(&mut self) -> Result<Option<Entry>, ReadError> {
        let first = self.parse();
        let raw = match first {
            Ok(Raw::Record { body, end }) => Ok(Raw::Record { body, end }),
            Ok(Raw::Nothing) if !self.has_record()? => Ok(Raw::Nothing),
            // Either there is more by now, or a record was read while it was
            // written: a fresh look tells.
            _ => {
                self.fill(CHUNK)?;
                self.parse()
            }
        };
        let damaged = |damage| ReadError::Damaged {
            offset: self.offset,
            damage,
        };
        match raw.map_err(damaged)? {
            Raw::Nothing => Ok(None),
            Raw::Record { body, end } => {
                let event = record::decode(&self.ahead[body]).map_err(|why| damaged(why.into()))?;
                let offset = std::mem::replace(&mut self.offset, end);
                Ok(Some(Entry { offset, end, event }))
            }
        }
    }

    /// Checks that nothing stands behind the last record. To be asked when the
    /// writer is gone and [`SpoolReader::next_event`] has nothing more.
    pub fn check_tail(&mut self) -> Result<(), ReadError> {
        let mut at = self.offset;
        let mut chunk = vec![0; CHUNK];
        while at < self.header.bytes {
            let wanted = chunk.len().min((self.header.bytes - at) as usize);
            self.file.read_exact_at(&mut chunk[..wanted], at)?;
            if chunk[..wanted].iter().any(|&byte| byte != 0) {
                return Err(ReadError::Damaged {
                    offset: self.offset,
                    damage: Damage::Tail,
                });
            }
            at += wanted as u64;
        }
        Ok(())
    }

    /// Whether a record stands at `offset` by now. Asking costs little, since
    /// whoever follows a quiet stream asks often.
    fn has_record(&self) -> io::Result<bool> {
        if self.offset + PREFIX_BYTES > self.header.bytes {
            return Ok(false);
        }
        let mut length = [0; 4];
        self.file.read_exact_at(&mut length, self.offset)?;
        Ok(length != [0; 4])
    }

    /// Looks at the record at `offset` within what was read ahead.
    fn parse(&mut self) -> Result<Raw, Damage> {
        if self.offset + PREFIX_BYTES > self.header.bytes {
            return Ok(Raw::Nothing);
        }
        let at = (self.offset - self.start) as usize;
        let Some(prefix) = self.ahead.get(at..at + PREFIX_BYTES as usize) else {
            return Ok(Raw::Nothing);
        };
        let word = |at: usize| u32::from_le_bytes(prefix[at..at + 4].try_into().expect("4 bytes"));
        let (length, expected) = (word(0), word(4));
        if length == 0 {
            return Ok(Raw::Nothing);
        }
        let whole = record_bytes(length.into());
        if whole > self.header.bytes - self.offset {
            return Err(Damage::Length(length));
        }
        let body = at + PREFIX_BYTES as usize..at + PREFIX_BYTES as usize + length as usize;
        if self.ahead.len() < body.end && self.fill(whole as usize).is_err() {
            return Ok(Raw::Nothing);
        }
        // `fill` moved the record to the front of what is read ahead.
        let at = (self.offset - self.start) as usize + PREFIX_BYTES as usize;
        let body = at..at + length as usize;
        match self.ahead.get(body.clone()) {
            Some(bytes) if checksum(self.header.name, self.offset, bytes) == expected => {
                Ok(Raw::Record {
                    body,
                    end: self.offset + whole,
                })
            }
            _ => Err(Damage::Checksum),
        }
    }

    /// Reads at least `wanted` bytes from `offset` on, as far as there are any.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let left = (self.header.bytes.saturating_sub(self.offset)) as usize;
        self.ahead.resize(wanted.max(CHUNK).min(left), 0);
        self.start = self.offset;
        // Pairs with the Release of the length: what the kernel copies after
        // it saw a length is at least the record of that length.
        fence(Ordering::Acquire);
        self.file.read_exact_at(&mut self.ahead, self.offset)
    }
}
