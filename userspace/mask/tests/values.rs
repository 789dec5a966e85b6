//! Masks of values, from outside. That real values come out as the server would
//! compute them is tested against the server, by the end-to-end tests.

use bytes::BytesMut;
use lockgate_config::{Mask, Precision};
use lockgate_mask::Key;
use lockgate_mask::postgres::{Format, Masker};
use proptest::prelude::*;

const TYPES: &[&str] = &[
    "text",
    "varchar",
    "name",
    "citext",
    "bpchar",
    "json",
    "jsonb",
    "uuid",
    "date",
    "timestamp",
    "timestamptz",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "inet",
    "unknown",
    "public.citext",
    "_text",
];

const MASKS: &[Mask] = &[
    Mask::Null,
    Mask::Redact,
    Mask::KeepFirst(3),
    Mask::KeepLast(u32::MAX),
    Mask::Hash,
    Mask::Truncate(Precision::Year),
    Mask::Truncate(Precision::Month),
    Mask::Truncate(Precision::Day),
    Mask::Bucket(1000),
    Mask::Bucket(u64::MAX),
];

fn shown(masker: &Masker, format: Format, value: &[u8]) -> Option<Vec<u8>> {
    let mut out = BytesMut::from(&b"before"[..]);
    let is_value = masker.mask(format, value, &mut out);
    assert!(out.starts_with(b"before"));
    is_value.then(|| out[6..].to_vec())
}

fn masker(mask: Mask, type_name: &str) -> Masker {
    let key = Key::of_tag(b"secret", "pii");
    Masker::new(mask, type_name, Some(&key)).unwrap()
}

#[test]
fn which_mask_fits_which_type() {
    let fitting = |mask: Mask| {
        let key = Key::of_tag(b"secret", "pii");
        let fits = |name: &&&str| Masker::new(mask, name, Some(&key)).is_ok();
        TYPES.iter().filter(fits).copied().collect::<Vec<_>>()
    };
    let texts = ["text", "varchar", "name", "citext", "bpchar"];
    assert_eq!(fitting(Mask::Null), TYPES);
    assert_eq!(fitting(Mask::KeepFirst(1)), texts);
    assert_eq!(fitting(Mask::KeepLast(0)), texts);
    assert_eq!(
        fitting(Mask::Redact),
        [&texts[..], &["json", "jsonb"]].concat()
    );
    assert_eq!(fitting(Mask::Hash), [&texts[..], &["uuid"]].concat());
    let instants = ["timestamp", "timestamptz"];
    assert_eq!(fitting(Mask::Truncate(Precision::Day)), instants);
    let dates = [&["date"][..], &instants].concat();
    assert_eq!(fitting(Mask::Truncate(Precision::Month)), dates);
    let numbers = ["int2", "int4", "int8", "float4", "float8", "numeric"];
    assert_eq!(fitting(Mask::Bucket(2)), numbers);
    assert!(fitting(Mask::Bucket(1)).is_empty() && fitting(Mask::Bucket(0)).is_empty());

    let misfit = Masker::new(Mask::KeepLast(4), "date", None).unwrap_err();
    assert_eq!(
        misfit.to_string(),
        "the mask { keep_last = 4 } does not fit the type date; it fits text, varchar, char and citext; `null` fits every type"
    );
    let no_key = Masker::new(Mask::Hash, "text", None).unwrap_err();
    assert!(no_key.to_string().contains("set mask.key"), "{no_key}");
}

#[test]
fn what_is_not_certain_is_null() {
    for (mask, type_name, value) in [
        (Mask::Bucket(10), "int4", "12.5"),
        (Mask::Bucket(10), "int2", "-32768"),
        (Mask::Bucket(10), "int4", ""),
        (Mask::Bucket(10), "float8", "NaN"),
        (Mask::Bucket(10), "float8", "1e300"),
        (Mask::Bucket(10), "numeric", "NaN"),
        (Mask::Bucket(10), "numeric", "1e5"),
        (Mask::Truncate(Precision::Year), "date", "infinity"),
        (Mask::Truncate(Precision::Year), "date", "0044-03-15 BC"),
        (Mask::Truncate(Precision::Year), "date", "15.03.2024"),
        (Mask::Truncate(Precision::Year), "timestamp", "2024-03-15"),
        (
            Mask::Truncate(Precision::Year),
            "timestamptz",
            "2024-03-15 01:02:03+02 BC",
        ),
        (
            Mask::Truncate(Precision::Year),
            "timestamptz",
            "2024-03-15 01:02:03 CET",
        ),
        (Mask::Hash, "uuid", "not one"),
        (Mask::Null, "text", "anything"),
    ] {
        let shown = shown(&masker(mask, type_name), Format::Text, value.as_bytes());
        assert_eq!(shown, None, "{mask} of {type_name} {value}");
    }
    for type_name in ["int2", "int4", "int8", "float4", "float8"] {
        let masker = masker(Mask::Bucket(10), type_name);
        assert_eq!(shown(&masker, Format::Binary, b"123"), None, "{type_name}");
    }
    for infinite in [i32::MIN, i32::MAX] {
        let masker = masker(Mask::Truncate(Precision::Year), "date");
        let value = infinite.to_be_bytes();
        assert_eq!(shown(&masker, Format::Binary, &value), None);
    }
}

#[test]
fn a_masked_date_is_a_date() {
    for (to, type_name, value, expected) in [
        (Precision::Year, "date", "2024-02-29", "2024-01-01"),
        (Precision::Month, "date", "12345-12-31", "12345-12-01"),
        (
            Precision::Month,
            "timestamp",
            "2024-02-29 23:59:59.999999",
            "2024-02-01 00:00:00",
        ),
        (
            Precision::Day,
            "timestamptz",
            "2024-02-29 23:59:59+05:30",
            "2024-02-29 00:00:00+00",
        ),
        (
            Precision::Day,
            "timestamptz",
            "2024-02-29 23:59:59-08",
            "2024-03-01 00:00:00+00",
        ),
    ] {
        let masker = masker(Mask::Truncate(to), type_name);
        let shown = shown(&masker, Format::Text, value.as_bytes());
        // Years beyond 9999 are beyond what is certain.
        if value.starts_with("12345") {
            assert_eq!(shown, None);
        } else {
            assert_eq!(shown.as_deref(), Some(expected.as_bytes()));
        }
    }
}

proptest! {
    /// No value of any form makes a mask fail, and none is shown as it is but
    /// where the mask says so of it.
    #[test]
    fn any_bytes_are_masked(mask in prop::sample::select(MASKS), type_name in prop::sample::select(TYPES),
        binary: bool, value in prop::collection::vec(any::<u8>(), 0..40)) {
        let key = Key::of_tag(b"secret", "pii");
        let format = if binary { Format::Binary } else { Format::Text };
        if let Ok(masker) = Masker::new(mask, type_name, Some(&key)) {
            let shown = shown(&masker, format, &value);
            if matches!(mask, Mask::Redact | Mask::Hash) {
                prop_assert_ne!(shown, Some(value));
            }
        }
    }

    /// Text and its kin: at most half stays.
    #[test]
    fn half_of_a_text_is_hidden(text in "\\PC{1,30}", count in 0u32..40, first: bool) {
        let mask = if first { Mask::KeepFirst(count) } else { Mask::KeepLast(count) };
        let shown = shown(&masker(mask, "text"), Format::Text, text.as_bytes()).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let length = text.chars().count();
        let kept = (count as usize).min(length / 2);
        prop_assert_eq!(shown.chars().count(), length);
        let stars = "*".repeat(length - kept);
        let hidden = match first {
            true => shown.ends_with(&stars),
            false => shown.starts_with(&stars),
        };
        prop_assert!(hidden);
    }

    /// A number is the same in both formats.
    #[test]
    fn both_formats_of_a_number_agree(value: i32, width in 2u64..100_000) {
        let masker = masker(Mask::Bucket(width), "int4");
        let text = shown(&masker, Format::Text, value.to_string().as_bytes());
        let binary = shown(&masker, Format::Binary, &value.to_be_bytes());
        let binary = binary.map(|bytes| i32::from_be_bytes(bytes.try_into().unwrap()).to_string());
        prop_assert_eq!(text.map(|text| String::from_utf8(text).unwrap()), binary);
    }
}
