//! Rows of COPY TO STDOUT ("COPY", "File Formats"). The server sends each row in
//! a message of its own, and so it is required to.

use bytes::{BufMut, BytesMut};
use lockgate_mask::postgres::Format;

use super::{Masking, other_result};
use crate::ProtocolError;

/// The form of the rows of a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRows {
    /// `FORMAT text`, NULL as `\N`.
    Text {
        /// Between columns.
        delimiter: u8,
        /// Whether names come first.
        header: bool,
    },
    /// `FORMAT csv`, quoted by `"`, NULL as nothing.
    Csv {
        /// Between columns.
        delimiter: u8,
        /// Whether names come first.
        header: bool,
    },
    /// `FORMAT binary`.
    Binary,
}

/// How far a COPY is.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    /// The first row was there: names, or binary's signature.
    begun: bool,
    value: BytesMut,
    shown: BytesMut,
}

/// Of a binary COPY, with no flags and no extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

impl Copied {
    /// Appends the content of a CopyData as the client may see it.
    pub(super) fn row(
        &mut self,
        rows: CopyRows,
        masking: &Masking,
        mut row: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        let first = !std::mem::replace(&mut self.begun, true);
        match rows {
            CopyRows::Text { header: true, .. } | CopyRows::Csv { header: true, .. } if first => {
                out.put_slice(row);
                Ok(())
            }
            CopyRows::Text { delimiter, .. } => self.lines(Text(delimiter), masking, row, out),
            CopyRows::Csv { delimiter, .. } => self.lines(Csv(delimiter), masking, row, out),
            CopyRows::Binary => {
                if first {
                    row = row.strip_prefix(SIGNATURE).ok_or_else(other_result)?;
                    out.put_slice(SIGNATURE);
                }
                match row {
                    [] if first => Ok(()),
                    // The end.
                    [0xff, 0xff] => {
                        out.put_slice(row);
                        Ok(())
                    }
                    row => masking.fields(row, |_| Some(Format::Binary), out),
                }
            }
        }
    }

    fn lines(
        &mut self,
        form: impl Form,
        masking: &Masking,
        row: &[u8],
        out: &mut BytesMut,
    ) -> Result<(), ProtocolError> {
        let Some((b'\n', row)) = row.split_last() else {
            return Err(other_result());
        };
        let mut rest = Some(row);
        for (output, mask) in masking.masks.iter().enumerate() {
            let row = rest.ok_or_else(other_result)?;
            let end = form.end(row).ok_or_else(other_result)?;
            let (field, behind) = row.split_at(end);
            rest = behind.split_first().map(|(_, rest)| rest);
            if output > 0 {
                out.put_u8(form.delimiter());
            }
            match mask {
                Some(mask) if !form.is_null(field) => {
                    self.value.clear();
                    self.shown.clear();
                    form.read(field, &mut self.value).ok_or_else(other_result)?;
                    match mask.mask(Format::Text, &self.value, &mut self.shown) {
                        true => form.write(&self.shown, out),
                        false => form.write_null(out),
                    }
                }
                _ => out.put_slice(field),
            }
        }
        match rest {
            None => {
                out.put_u8(b'\n');
                Ok(())
            }
            Some(_) => Err(other_result()),
        }
    }
}

/// How values are written in a line.
trait Form {
    fn delimiter(&self) -> u8;
    /// Where the first field of `row` ends.
    fn end(&self, row: &[u8]) -> Option<usize>;
    fn is_null(&self, field: &[u8]) -> bool;
    /// Appends the value of a field.
    fn read(&self, field: &[u8], value: &mut BytesMut) -> Option<()>;
    fn write(&self, value: &[u8], out: &mut BytesMut);
    fn write_null(&self, out: &mut BytesMut);
}

struct Text(u8);

impl Form for Text {
    fn delimiter(&self) -> u8 {
        self.0
    }

    fn end(&self, row: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(found) = memchr::memchr2(self.0, b'\\', &row[at..]) {
            at += found;
            if row[at] == self.0 {
                return Some(at);
            }
            // Whatever is behind a backslash is no delimiter.
            at += 2;
            if at > row.len() {
                return None;
            }
        }
        Some(row.len())
    }

    fn is_null(&self, field: &[u8]) -> bool {
        field == br"\N"
    }

    fn read(&self, field: &[u8], value: &mut BytesMut) -> Option<()> {
        let mut rest = field;
        while let Some(at) = memchr::memchr(b'\\', rest) {
            value.put_slice(&rest[..at]);
            // The server writes no other escapes, and none by number.
            let byte = match *rest.get(at + 1)? {
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0b,
                other => other,
            };
            value.put_u8(byte);
            rest = &rest[at + 2..];
        }
        value.put_slice(rest);
        Some(())
    }

    fn write(&self, value: &[u8], out: &mut BytesMut) {
        for byte in value {
            let escape = match byte {
                0x08 => b'b',
                0x0c => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x0b => b'v',
                b'\\' => b'\\',
                byte if *byte == self.0 => self.0,
                other => {
                    out.put_u8(*other);
                    continue;
                }
            };
            out.put_slice(&[b'\\', escape]);
        }
    }

    fn write_null(&self, out: &mut BytesMut) {
        out.put_slice(br"\N");
    }
}

struct Csv(u8);

impl Form for Csv {
    fn delimiter(&self) -> u8 {
        self.0
    }

    fn end(&self, row: &[u8]) -> Option<usize> {
        let Some((b'"', quoted)) = row.split_first() else {
            let end = memchr::memchr(self.0, row).unwrap_or(row.len());
            // The server quotes what has a quote.
            return (!row[..end].contains(&b'"')).then_some(end);
        };
        let mut at = 1;
        let mut rest = quoted;
        loop {
            let quote = memchr::memchr(b'"', rest)?;
            at += quote + 1;
            rest = &rest[quote + 1..];
            match rest.first() {
                None => return Some(at),
                Some(b'"') => {
                    at += 1;
                    rest = &rest[1..];
                }
                Some(byte) => return (*byte == self.0).then_some(at),
            }
        }
    }

    fn is_null(&self, field: &[u8]) -> bool {
        field.is_empty()
    }

    fn read(&self, field: &[u8], value: &mut BytesMut) -> Option<()> {
        let Some(inner) = field.strip_prefix(b"\"") else {
            value.put_slice(field);
            return Some(());
        };
        let mut rest = inner.strip_suffix(b"\"")?;
        while let Some(at) = memchr::memchr(b'"', rest) {
            // Doubled: one of the two is left out.
            value.put_slice(&rest[..=at]);
            rest = rest.get(at + 2..)?;
        }
        value.put_slice(rest);
        Some(())
    }

    fn write(&self, value: &[u8], out: &mut BytesMut) {
        out.put_u8(b'"');
        for byte in value {
            if *byte == b'"' {
                out.put_u8(b'"');
            }
            out.put_u8(*byte);
        }
        out.put_u8(b'"');
    }

    fn write_null(&self, _: &mut BytesMut) {}
}

#[cfg(test)]
mod tests {
    use lockgate_config::Mask;
    use lockgate_mask::postgres::Masker;
    use proptest::prelude::*;

    use super::*;

    fn masking(columns: usize, masked: &[(u16, Mask)]) -> Masking {
        let masks = masked
            .iter()
            .map(|(output, mask)| (*output, Masker::new(*mask, "text", None).unwrap()));
        Masking::new(columns as u16, masks, None).unwrap()
    }

    fn shown(rows: CopyRows, masking: &Masking, row: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let mut out = BytesMut::new();
        Copied::default().row(rows, masking, row, &mut out)?;
        Ok(out.to_vec())
    }

    const TEXT: CopyRows = CopyRows::Text {
        delimiter: b'\t',
        header: false,
    };
    const CSV: CopyRows = CopyRows::Csv {
        delimiter: b',',
        header: false,
    };

    #[test]
    fn lines_of_text_and_csv() {
        let masking = masking(3, &[(1, Mask::KeepLast(2))]);
        for (rows, row, masked) in [
            (TEXT, "1\tab12\tx\n", "1\t**12\tx\n"),
            (TEXT, "1\t\\N\t\\N\n", "1\t\\N\t\\N\n"),
            (
                TEXT,
                "a\\tb\tab\\t\\\\\tx\\\ty\n",
                "a\\tb\t**\\t\\\\\tx\\\ty\n",
            ),
            (CSV, "1,ab12,x\n", "1,\"**12\",x\n"),
            (
                CSV,
                "\"a,\"\"b\",\"ab\"\"\n\",\n",
                "\"a,\"\"b\",\"**\"\"\n\",\n",
            ),
            (CSV, "1,,\"\"\n", "1,,\"\"\n"),
        ] {
            let shown = shown(rows, &masking, row.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(shown).unwrap(), masked);
        }
    }

    #[test]
    fn a_line_of_another_form_is_not_shown() {
        let masking = masking(2, &[(1, Mask::KeepLast(2))]);
        for (rows, row) in [
            (TEXT, "1\tab12"),
            (TEXT, "1\n"),
            (TEXT, "1\tab12\tx\n"),
            (TEXT, "1\tab12\\\n"),
            (CSV, "1,\"ab12\n"),
            (CSV, "1,\"ab\"12\n"),
            (CSV, "1,ab\"12\n"),
            (CSV, "1,2,3\n"),
            (CopyRows::Binary, "1,2\n"),
        ] {
            assert!(shown(rows, &masking, row.as_bytes()).is_err(), "{row:?}");
        }
    }

    proptest! {
        /// What one form writes it reads, whatever stands beside it.
        #[test]
        fn values_survive(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..5)) {
            fn check(form: &impl Form, values: &[Vec<u8>]) {
                let mut row = BytesMut::new();
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        row.put_u8(form.delimiter());
                    }
                    form.write(value, &mut row);
                }
                let mut rest = &row[..];
                for value in values {
                    let end = form.end(rest).unwrap();
                    let mut read = BytesMut::new();
                    form.read(&rest[..end], &mut read).unwrap();
                    assert_eq!(&read, &value[..]);
                    rest = rest.get(end + 1..).unwrap_or_default();
                }
                assert!(rest.is_empty());
            }
            check(&Text(b'\t'), &values);
            check(&Csv(b','), &values);
        }

        #[test]
        fn any_bytes_are_shown_or_refused(row: Vec<u8>, rows in prop::sample::select(vec![TEXT, CSV, CopyRows::Binary])) {
            let _ = shown(rows, &masking(2, &[(0, Mask::Redact)]), &row);
        }
    }
}
