#![allow(unsafe_code)] // shared memory; each block says why it is sound

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::SpoolError;
use super::segment::{HEADER_BYTES, PREFIX_BYTES, SegmentHeader, checksum, record_bytes};
use crate::{Event, record};

/// Appends events to one segment, which another process reads meanwhile.
///
/// A record counts from the moment its length is there, and the length is
/// stored last: a writer that dies between leaves what can be read whole.
#[derive(Debug)]
pub struct SpoolWriter {
    map: MmapRaw,
    file: Arc<File>,
    header: SegmentHeader,
    position: u64,
    scratch: Vec<u8>,
}

/// Waits for the disk on behalf of a [`SpoolWriter`], from any thread.
#[derive(Clone, Debug)]
pub struct SpoolSync(Arc<File>);

impl SpoolWriter {
    /// Takes a segment that [`super::Spool::create`] made and nobody has
    /// written to.
    ///
    /// # Errors
    /// When it is not one, or was used before: records behind the end of
    /// another writer would never be read.
    pub fn open(file: File) -> Result<Self, SpoolError> {
        let header = SegmentHeader::read(&file)?;
        let length = usize::try_from(header.bytes)
            .map_err(|_| io::Error::other("the segment is larger than the address space"))?;
        let map = MmapOptions::new().len(length).map_raw(&file)?;
        let writer = Self {
            map,
            file: Arc::new(file),
            header,
            position: HEADER_BYTES,
            scratch: vec![0; 4096],
        };
        match writer.length_at(HEADER_BYTES).load(Ordering::Acquire) {
            0 => Ok(writer),
            _ => Err(SpoolError::Used(header.name)),
        }
    }

    /// Appends one event and returns [`SpoolWriter::position`] behind it.
    ///
    /// # Errors
    /// [`SpoolError::Full`] if it does not fit; a smaller one may.
    /// [`SpoolError::TooLarge`] if it would not fit into an empty segment
    /// either. Nothing is appended then.
    pub fn append(&mut self, event: &Event) -> Result<u64, SpoolError> {
        let capacity = self.header.bytes - HEADER_BYTES;
        let length = loop {
            match record::encode(event, &mut self.scratch).map_err(SpoolError::Encode)? {
                Some(length) => break length,
                None if self.scratch.len() as u64 >= capacity => {
                    return Err(SpoolError::TooLarge { limit: capacity });
                }
                None => self.scratch.resize(self.scratch.len() * 4, 0),
            }
        };
        let needed = record_bytes(length as u64);
        if needed > capacity {
            return Err(SpoolError::TooLarge { limit: capacity });
        }
        if needed > self.header.bytes - self.position {
            return Err(SpoolError::Full);
        }
        let body = &self.scratch[..length];
        let checksum = checksum(self.header.name, self.position, body);
        let at = self.position as usize;
        // SAFETY: `at + needed` is within the mapping, checked above. Nobody
        // else in this process has a pointer into it, and no reference to it
        // is ever made; other processes read it through the file.
        unsafe {
            let record = self.map.as_mut_ptr().add(at);
            record.add(4).cast::<u32>().write(checksum.to_le());
            let payload = record.add(PREFIX_BYTES as usize);
            std::ptr::copy_nonoverlapping(body.as_ptr(), payload, length);
        }
        self.length_at(self.position)
            .store((length as u32).to_le(), Ordering::Release);
        self.position += needed;
        Ok(self.position)
    }

    /// Bytes of the segment in use: grows with each append and stands for
    /// "everything up to here".
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that are left in the segment.
    pub fn remaining(&self) -> usize {
        (self.header.bytes - self.position) as usize
    }

    /// Which segment it is.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// For another thread, which waits for the disk.
    pub fn sync(&self) -> SpoolSync {
        SpoolSync(self.file.clone())
    }

    fn length_at(&self, offset: u64) -> &AtomicU32 {
        debug_assert!(offset + PREFIX_BYTES <= self.header.bytes);
        // SAFETY: `offset` is that of a record, so four bytes there are within
        // the mapping, which lives as long as `self`, and are aligned: the
        // mapping begins at a page and records at multiples of eight. This
        // word is only touched as an atomic.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(offset as usize).cast()) }
    }
}

impl SpoolSync {
    /// Returns when everything that was appended before the call is on disk.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
