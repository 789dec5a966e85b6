use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use uuid::Uuid;

use super::ReadError;

/// Where records begin.
pub(super) const HEADER_BYTES: u64 = 64;
/// Length and checksum in front of each record.
pub(super) const PREFIX_BYTES: u64 = 8;
/// Records begin at multiples of this, so that the length is aligned.
pub(super) const ALIGNMENT: u64 = 8;

const MAGIC: &[u8; 8] = b"LGSPOOL\x01";

/// Names a segment on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The writer's stream. Never used again on this host.
    pub stream: u32,
    /// Counts up within the stream from 0.
    pub index: u32,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}.segment", self.stream, self.index)
    }
}

impl FromStr for SegmentName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (stream, index) = name
            .strip_suffix(".segment")
            .and_then(|stem| stem.split_once('-'))
            .ok_or(())?;
        let number = |digits: &str| match digits.len() {
            8 => u32::from_str_radix(digits, 16).map_err(drop),
            _ => Err(()),
        };
        Ok(Self {
            stream: number(stream)?,
            index: number(index)?,
        })
    }
}

/// The first 64 bytes of a segment; little-endian, see docs/audit.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The boot during which it was made.
    pub boot: Uuid,
    /// Its name.
    pub name: SegmentName,
    /// Its size in bytes, header included.
    pub bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut out = [0; HEADER_BYTES as usize];
        out[0..8].copy_from_slice(MAGIC);
        out[8..24].copy_from_slice(self.boot.as_bytes());
        out[24..28].copy_from_slice(&self.name.stream.to_le_bytes());
        out[28..32].copy_from_slice(&self.name.index.to_le_bytes());
        out[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(super) fn read(file: &File) -> Result<Self, ReadError> {
        let mut raw = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut raw, 0)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    ReadError::NotASegment("it is shorter than a header")
                }
                _ => error.into(),
            })?;
        let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("4 bytes"));
        if &raw[..8] != MAGIC {
            return Err(ReadError::NotASegment("it does not begin as one"));
        }
        if crc32c::crc32c(&raw[..60]) != word(60) {
            return Err(ReadError::NotASegment("its header's checksum is wrong"));
        }
        let header = Self {
            boot: Uuid::from_bytes(raw[8..24].try_into().expect("16 bytes")),
            name: SegmentName {
                stream: word(24),
                index: word(28),
            },
            bytes: u64::from_le_bytes(raw[32..40].try_into().expect("8 bytes")),
        };
        if !header.bytes.is_multiple_of(ALIGNMENT) || header.bytes < HEADER_BYTES + PREFIX_BYTES {
            return Err(ReadError::NotASegment("its size is impossible"));
        }
        if file.metadata()?.len() < header.bytes {
            return Err(ReadError::NotASegment("it was cut short"));
        }
        Ok(header)
    }
}

/// The checksum of a record also covers where it stands, so that a record that
/// was moved or copied is not taken for one.
pub(super) fn checksum(name: SegmentName, offset: u64, body: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[0..4].copy_from_slice(&name.stream.to_le_bytes());
    place[4..8].copy_from_slice(&name.index.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    place[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), body)
}

/// The size of a record of `body` bytes in the segment.
pub(super) fn record_bytes(body: u64) -> u64 {
    (PREFIX_BYTES + body).next_multiple_of(ALIGNMENT)
}
