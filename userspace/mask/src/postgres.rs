//! Values as PostgreSQL sends them: the text and binary formats of its types
//! (their `typoutput` and `typsend` functions; "Formats and Format Codes",
//! section 54.1.3 of PostgreSQL's documentation).

mod kind;
mod numeric;

pub use kind::Misfit;

use std::fmt;

use bytes::{BufMut, BytesMut};
use lockgate_config::{Mask, Precision};
use time::Date;

use crate::hash::Key;
use crate::text::{Keep, REDACTED, keep};
use crate::{date, number};
use kind::Kind;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As in SQL.
    Text,
    /// As the type's send function writes it.
    Binary,
}

/// How the values of one column are shown: a mask that fits its type.
#[derive(Clone)]
pub struct Masker(How);

#[derive(Clone)]
enum How {
    Null,
    Redact { json: Json },
    Keep { keep: Keep, padded: bool },
    Hash { key: Key, uuid: bool, padded: bool },
    Truncate { to: Precision, of: Instant },
    Bucket { width: u64, of: Number },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Json {
    No,
    Text,
    /// jsonb has a version before its text in binary.
    Versioned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instant {
    Date,
    /// With a time zone, or without: text ends with the zone's offset, or not.
    Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
}

/// 2000-01-01, from which PostgreSQL counts days and microseconds.
const EPOCH: i32 = 2_451_545;
const MICROSECONDS_A_DAY: i64 = 86_400_000_000;

impl Masker {
    /// The mask for a column whose type, or whose domain's, has `type_name` in
    /// pg_type. `key` is for [`Mask::Hash`].
    ///
    /// # Errors
    /// The mask does not fit the type: a client could not read what it gives,
    /// or it would hide nothing.
    pub fn new(mask: Mask, type_name: &str, key: Option<&Key>) -> Result<Self, Misfit> {
        let misfit = || Misfit::new(mask, type_name);
        let kind = Kind::of(type_name);
        let kept = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let how = match (mask, kind) {
            (Mask::Null, _) => How::Null,
            (Mask::Redact, Kind::Text { .. }) => How::Redact { json: Json::No },
            (Mask::Redact, Kind::Json) => How::Redact { json: Json::Text },
            (Mask::Redact, Kind::Jsonb) => How::Redact {
                json: Json::Versioned,
            },
            (Mask::KeepFirst(count), Kind::Text { padded }) => How::Keep {
                keep: Keep::First(kept(count)),
                padded,
            },
            (Mask::KeepLast(count), Kind::Text { padded }) => How::Keep {
                keep: Keep::Last(kept(count)),
                padded,
            },
            (Mask::Hash, Kind::Text { .. } | Kind::Uuid) => How::Hash {
                key: key.ok_or_else(Misfit::no_key)?.clone(),
                uuid: kind == Kind::Uuid,
                padded: kind == Kind::Text { padded: true },
            },
            // To the day it would show a date as it is.
            (Mask::Truncate(to @ (Precision::Year | Precision::Month)), Kind::Date) => {
                How::Truncate {
                    to,
                    of: Instant::Date,
                }
            }
            (Mask::Truncate(to), Kind::Timestamp) => How::Truncate {
                to,
                of: Instant::Timestamp,
            },
            // Of width 1 it would show a whole number as it is.
            (Mask::Bucket(width @ 2..), Kind::Number(of)) => How::Bucket { width, of },
            _ => return Err(misfit()),
        };
        Ok(Self(how))
    }

    /// Appends what is shown in the place of `value`. False, with nothing that
    /// counts appended, where that is NULL.
    #[must_use]
    pub fn mask(&self, format: Format, value: &[u8], out: &mut BytesMut) -> bool {
        self.shown(format, value, out).is_some()
    }

    fn shown(&self, format: Format, value: &[u8], out: &mut BytesMut) -> Option<()> {
        match &self.0 {
            How::Null => return None,
            How::Redact { json: Json::No } => out.put_slice(REDACTED.as_bytes()),
            How::Redact { json } => {
                if (*json, format) == (Json::Versioned, Format::Binary) {
                    out.put_u8(1);
                }
                out.put_u8(b'"');
                out.put_slice(REDACTED.as_bytes());
                out.put_u8(b'"');
            }
            How::Keep {
                keep: part,
                padded: false,
            } => keep(value, *part, out),
            How::Keep {
                keep: part,
                padded: true,
            } => {
                let length = unpadded(value).len();
                keep(&value[..length], *part, out);
                out.put_slice(&value[length..]);
            }
            How::Hash {
                key, uuid: true, ..
            } => {
                let id = match format {
                    Format::Binary => u128::from_be_bytes(value.try_into().ok()?),
                    Format::Text => read_uuid(value)?,
                };
                // Version 8 and its variant: RFC 9562, section 5.8.
                let hash = key.hash(&id.to_be_bytes());
                let hash = hash & !(0xf << 76) | 8 << 76;
                let hash = hash & !(0b11 << 62) | 0b10 << 62;
                match format {
                    Format::Binary => out.put_u128(hash),
                    Format::Text => write(out, UuidText(hash))?,
                }
            }
            How::Hash { key, padded, .. } => {
                let value = if *padded { unpadded(value) } else { value };
                write(out, format_args!("{:032x}", key.hash(value)))?;
            }
            How::Truncate {
                to,
                of: Instant::Date,
            } => match format {
                Format::Text => write_day(date::truncate(date::read(ascii(value)?)?, *to)?, out)?,
                Format::Binary => {
                    let days = i32::from_be_bytes(value.try_into().ok()?);
                    out.put_i32(first_day(days.into(), *to)?);
                }
            },
            How::Truncate {
                to,
                of: Instant::Timestamp,
            } => match format {
                Format::Text => truncate_timestamp(ascii(value)?, *to, out)?,
                Format::Binary => {
                    let at = i64::from_be_bytes(value.try_into().ok()?);
                    let first = first_day(at.div_euclid(MICROSECONDS_A_DAY), *to)?;
                    out.put_i64(i64::from(first) * MICROSECONDS_A_DAY);
                }
            },
            How::Bucket { width, of } => match format {
                Format::Text => of.floor_text(ascii(value)?, *width, out)?,
                Format::Binary => of.floor_binary(value, *width, out)?,
            },
        }
        Some(())
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker(..)")
    }
}

impl Number {
    fn floor_text(self, text: &str, width: u64, out: &mut BytesMut) -> Option<()> {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => {
                let floor = self.fits(number::floor(text.parse::<i64>().ok()?.into(), width)?)?;
                write(out, floor)
            }
            Self::Float4 | Self::Float8 => {
                write(out, number::floor_float(text.parse().ok()?, width)?)
            }
            Self::Numeric => write(out, number::floor(number::whole(text)?, width)?),
        }
    }

    fn floor_binary(self, value: &[u8], width: u64, out: &mut BytesMut) -> Option<()> {
        let floor = |value: i64| self.fits(number::floor(value.into(), width)?);
        match self {
            Self::Int2 => {
                let value = i16::from_be_bytes(value.try_into().ok()?);
                out.put_i16(floor(value.into())?.try_into().ok()?);
            }
            Self::Int4 => {
                let value = i32::from_be_bytes(value.try_into().ok()?);
                out.put_i32(floor(value.into())?.try_into().ok()?);
            }
            Self::Int8 => out.put_i64(floor(i64::from_be_bytes(value.try_into().ok()?))?),
            Self::Float4 => {
                let value = f32::from_be_bytes(value.try_into().ok()?);
                out.put_f32(number::floor_float(value.into(), width)? as f32);
            }
            Self::Float8 => {
                let value = f64::from_be_bytes(value.try_into().ok()?);
                out.put_f64(number::floor_float(value, width)?);
            }
            Self::Numeric => numeric::write(number::floor(numeric::whole(value)?, width)?, out),
        }
        Some(())
    }

    /// A client reads no more than the type holds.
    fn fits(self, value: i128) -> Option<i64> {
        let bits = match self {
            Self::Int2 => 16,
            Self::Int4 => 32,
            _ => 64,
        };
        let value = i64::try_from(value).ok()?;
        (i64::MIN >> (64 - bits)..=i64::MAX >> (64 - bits))
            .contains(&value)
            .then_some(value)
    }
}

/// `character(n)` without the blanks that fill it, which mean nothing.
fn unpadded(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| *byte != b' ');
    &value[..end.map_or(0, |last| last + 1)]
}

fn ascii(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    text.is_ascii().then_some(text)
}

fn write(out: &mut BytesMut, shown: impl fmt::Display) -> Option<()> {
    use fmt::Write as _;
    write!(out, "{shown}").ok()
}

/// In days from 2000-01-01.
fn first_day(days: i64, to: Precision) -> Option<i32> {
    let day = i32::try_from(days).ok()?.checked_add(EPOCH)?;
    // As in text, nothing before the year 1.
    let day = Date::from_julian_day(day)
        .ok()
        .filter(|day| day.year() > 0)?;
    Some(date::truncate(day, to)?.to_julian_day() - EPOCH)
}

fn write_day(day: Date, out: &mut BytesMut) -> Option<()> {
    let (year, month, day) = day.to_calendar_date();
    write(
        out,
        format_args!("{year:04}-{:02}-{day:02}", u8::from(month)),
    )
}

/// `2026-03-04 05:06:07.89+02`, as it is in UTC: the session's zone must not move
/// a value over a border, and its offset would tell when the value is.
fn truncate_timestamp(text: &str, to: Precision, out: &mut BytesMut) -> Option<()> {
    let (day, rest) = text.split_once(' ')?;
    let day = date::read(day)?;
    let is_zone = |byte: u8| matches!(byte, b'+' | b'-');
    let (clock, zone) = match rest.bytes().position(is_zone) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    // Anything else, such as BC, is not understood.
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let local = seconds(clock)?;
    let day = match zone.split_at_checked(1) {
        None => day,
        Some((sign, offset)) => {
            let offset = seconds(offset)?;
            let utc = match sign {
                "+" => local - offset,
                _ => local + offset,
            };
            let days = i32::try_from(utc.div_euclid(86_400)).ok()?;
            let day = Date::from_julian_day(day.to_julian_day() + days).ok();
            day.filter(|day| day.year() > 0)?
        }
    };
    write_day(date::truncate(day, to)?, out)?;
    out.put_slice(b" 00:00:00");
    if !zone.is_empty() {
        out.put_slice(b"+00");
    }
    Some(())
}

/// `05:06:07`, `02`, `05:30`.
fn seconds(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let mut total = 0;
    for unit in [3600, 60, 1] {
        if let Some(part) = parts.next() {
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_digit());
            total += unit * digits.then(|| part.parse::<i64>().ok()).flatten()?;
        }
    }
    parts.next().is_none().then_some(total)
}

fn read_uuid(text: &[u8]) -> Option<u128> {
    let mut digits = [0; 32];
    let mut places = digits.iter_mut();
    for byte in text.iter().filter(|byte| **byte != b'-') {
        *places.next()? = *byte;
    }
    let complete = places.next().is_none() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = complete.then(|| std::str::from_utf8(&digits).ok())?;
    u128::from_str_radix(digits?, 16).ok()
}

struct UuidText(u128);

impl fmt::Display for UuidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |shift: u32, bits: u32| self.0 >> shift & ((1 << bits) - 1);
        let (a, b, c, d, e) = (
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48),
        );
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
    }
}
