//! Rows whose values are shown in another form.

mod copy;

pub use copy::CopyRows;

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use lockgate_mask::postgres::{Format, Masker};
use smallvec::{SmallVec, smallvec};

use super::client::take_count;
use crate::ProtocolError;
use crate::frame::HEADER;
use copy::Copied;

/// How the rows of one result are shown.
///
/// It is for a command with exactly one result of a known number of columns.
/// Whatever else the server sends for it ends the session: then it is not the
/// result that was decided on.
#[derive(Debug)]
pub struct Masking {
    /// By column. None: as it is.
    masks: Box<[Option<Masker>]>,
    copy: Option<CopyRows>,
}

impl Masking {
    /// For a result of `outputs` columns, `masks` by their numbers from 0. If
    /// it is a COPY, `copy` says of what form.
    ///
    /// None if a mask is for a column that there is not.
    pub fn new(
        outputs: u16,
        masks: impl IntoIterator<Item = (u16, Masker)>,
        copy: Option<CopyRows>,
    ) -> Option<Self> {
        let mut all = vec![None; usize::from(outputs)];
        for (output, mask) in masks {
            *all.get_mut(usize::from(output))? = Some(mask);
        }
        Some(Self {
            masks: all.into(),
            copy,
        })
    }
}

/// What a portal's rows look like.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    pub(super) ticket: u64,
    pub(super) masked: Option<Box<Masked>>,
}

/// A masked result.
#[derive(Clone, Debug)]
pub(super) struct Masked {
    masking: Arc<Masking>,
    formats: Formats,
    copied: Copied,
}

/// The format codes of a Bind: none, one for all columns, or one for each. A
/// simple query has none.
type Formats = SmallVec<[u16; 8]>;

impl Masked {
    pub(super) fn query(masking: Arc<Masking>) -> Box<Self> {
        Box::new(Self {
            masking,
            formats: Formats::new(),
            copied: Copied::default(),
        })
    }

    /// `bind` is a Bind from its formats on, which has been checked.
    pub(super) fn bound(masking: Arc<Masking>, bind: Bytes) -> Box<Self> {
        // Of a format that there is not, no row is shown.
        let formats = result_formats(bind).unwrap_or_else(|_| smallvec![u16::MAX]);
        Box::new(Self {
            masking,
            formats,
            copied: Copied::default(),
        })
    }

    /// RowDescription or CopyOutResponse: whether it is the result that was
    /// decided on.
    pub(super) fn check(&self, tag: u8, mut body: &[u8]) -> Result<(), ProtocolError> {
        let as_decided = match (tag, self.masking.copy) {
            (b'T', None) => true,
            (b'H', Some(copy)) => body
                .try_get_u8()
                .is_ok_and(|format| format == u8::from(matches!(copy, CopyRows::Binary))),
            _ => false,
        };
        match body.try_get_u16() {
            Ok(columns) if as_decided && usize::from(columns) == self.masking.masks.len() => Ok(()),
            _ => Err(other_result()),
        }
    }

    /// Appends a DataRow or CopyData as the client may see it.
    pub(super) fn row(&mut self, frame: &[u8], out: &mut BytesMut) -> Result<(), ProtocolError> {
        let at = out.len();
        // A mask hardly ever writes more than it reads.
        out.reserve(frame.len() + 64);
        out.put_slice(&frame[..HEADER]);
        let body = &frame[HEADER..];
        match (frame[0], self.masking.copy) {
            (b'D', None) => {
                let Self {
                    masking, formats, ..
                } = &*self;
                masking.fields(body, |output| format(formats, output), out)?;
            }
            (b'd', Some(copy)) => self.copied.row(copy, &self.masking, body, out)?,
            _ => return Err(other_result()),
        }
        let length = u32::try_from(out.len() - at - 1).map_err(|_| other_result())?;
        out[at + 1..at + HEADER].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

fn result_formats(mut bind: Bytes) -> Result<Formats, ProtocolError> {
    let formats = take_count(&mut bind, "Bind")?;
    bind.advance(2 * formats);
    for _ in 0..take_count(&mut bind, "Bind")? {
        let size = usize::try_from(bind.get_i32()).unwrap_or(0);
        bind.advance(size);
    }
    let count = take_count(&mut bind, "Bind")?;
    Ok((0..count).map(|_| bind.get_u16()).collect())
}

fn format(formats: &[u16], output: usize) -> Option<Format> {
    let code = match formats {
        [] => 0,
        [all] => *all,
        each => *each.get(output)?,
    };
    match code {
        0 => Some(Format::Text),
        1 => Some(Format::Binary),
        _ => None,
    }
}

impl Masking {
    /// A count, then each value behind its length: DataRow, and COPY's binary
    /// rows.
    fn fields(
        &self,
        row: &[u8],
        format: impl Fn(usize) -> Option<Format>,
        out: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        let mut rest = row;
        let count = rest.try_get_u16().map_err(|_| other_result())?;
        if usize::from(count) != self.masks.len() {
            return Err(other_result());
        }
        // What goes as it is goes in one piece.
        let mut from = 0;
        for (output, mask) in self.masks.iter().enumerate() {
            let at = row.len() - rest.len();
            let length = rest.try_get_i32().map_err(|_| other_result())?;
            let length = match (length, usize::try_from(length)) {
                (-1, _) => continue,
                (_, Ok(length)) if length <= rest.len() => length,
                _ => return Err(other_result()),
            };
            let (value, behind) = rest.split_at(length);
            rest = behind;
            let Some(mask) = mask else {
                continue;
            };
            out.put_slice(&row[from..at]);
            from = row.len() - rest.len();
            let format = format(output).ok_or_else(other_result)?;
            let at = out.len();
            out.put_i32(-1);
            match mask.mask(format, value, out) {
                true => {
                    let length = i32::try_from(out.len() - at - 4).map_err(|_| other_result())?;
                    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
                }
                false => out.truncate(at + 4),
            }
        }
        match rest {
            [] => {
                out.put_slice(&row[from..]);
                Ok(())
            }
            _ => Err(other_result()),
        }
    }
}

pub(super) fn other_result() -> ProtocolError {
    ProtocolError::violation(
        "the server's result has another form than the one whose values were to be masked",
    )
}
