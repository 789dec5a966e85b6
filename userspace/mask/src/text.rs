//! Texts of which a part stays.

use bytes::{BufMut, BytesMut};

/// What stands for a text that is hidden whole.
pub(crate) const REDACTED: &str = "[redacted]";

/// The part of a text that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    First(usize),
    Last(usize),
}

/// Appends `value` with `*` for each character that does not stay. Of a short
/// value at most half stays, since all of it would otherwise. What is not valid
/// UTF-8 may be of any encoding, so nothing of it stays.
pub(crate) fn keep(value: &[u8], keep: Keep, out: &mut BytesMut) {
    let Ok(text) = std::str::from_utf8(value) else {
        return out.put_slice(REDACTED.as_bytes());
    };
    let characters = match text.is_ascii() {
        true => text.len(),
        false => text.chars().count(),
    };
    let (Keep::First(wanted) | Keep::Last(wanted)) = keep;
    let kept = wanted.min(characters / 2);
    let hidden = characters - kept;
    match keep {
        Keep::First(_) => {
            out.put_slice(&value[..offset(text, kept)]);
            out.put_bytes(b'*', hidden);
        }
        Keep::Last(_) => {
            out.put_bytes(b'*', hidden);
            out.put_slice(&value[offset(text, hidden)..]);
        }
    }
}

/// Where the character of that number begins, in bytes.
fn offset(text: &str, character: usize) -> usize {
    if text.is_ascii() {
        return character;
    }
    let mut characters = text.char_indices();
    characters.nth(character).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays() {
        for (value, how, shown) in [
            ("078-05-1120", Keep::Last(4), "*******1120"),
            ("078-05-1120", Keep::First(3), "078********"),
            ("1234", Keep::Last(4), "**34"),
            ("123", Keep::First(9), "1**"),
            ("1", Keep::Last(1), "*"),
            ("", Keep::Last(4), ""),
            ("abc", Keep::Last(0), "***"),
            ("Žluťoučký", Keep::Last(2), "*******ký"),
            ("Žluťoučký", Keep::First(1), "Ž********"),
            ("日本語", Keep::First(1), "日**"),
        ] {
            let mut out = BytesMut::new();
            keep(value.as_bytes(), how, &mut out);
            assert_eq!(out, shown.as_bytes(), "{value} {how:?}");
        }
    }

    #[test]
    fn nothing_stays_of_another_encoding() {
        let mut out = BytesMut::new();
        keep(b"caf\xe9 1234567", Keep::Last(4), &mut out);
        assert_eq!(out, REDACTED.as_bytes());
    }
}
