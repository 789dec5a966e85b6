//! Numbers of which only the bucket stays that they are in.

/// Beyond, an f64 has no bits left below one.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The lower bound of the bucket of `width` that `value` is in.
pub(crate) fn floor(value: i128, width: u64) -> Option<i128> {
    let width = i128::from(width);
    value.checked_div_euclid(width)?.checked_mul(width)
}

/// As [`floor`]. None where the value is so large that its bucket would be the
/// value itself.
pub(crate) fn floor_float(value: f64, width: u64) -> Option<f64> {
    let width = width as f64;
    let bucket = (value / width).floor();
    // No NaN and no infinity passes this. Minus zero becomes zero.
    (bucket.abs() < EXACT && value.abs() < EXACT).then_some(bucket * width + 0.0)
}

/// The greatest whole number that is not above a decimal one, as PostgreSQL
/// writes numbers: `-12.50`. None for anything else, and beyond 38 digits.
pub(crate) fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if !(numeric(whole) && numeric(fraction)) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let value: i128 = match whole {
        "" => 0,
        whole => whole.parse().ok()?,
    };
    let is_exact = fraction.bytes().all(|digit| digit == b'0');
    match (negative, is_exact) {
        (false, _) => Some(value),
        (true, true) => Some(-value),
        (true, false) => (-value).checked_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals() {
        for (text, value) in [
            ("0", Some(0)),
            ("12.99", Some(12)),
            ("-12.00", Some(-12)),
            ("-12.01", Some(-13)),
            (".5", Some(0)),
            ("NaN", None),
            ("Infinity", None),
            ("1e5", None),
            ("", None),
            ("-", None),
            ("1.2.3", None),
            (&"9".repeat(39), None),
        ] {
            assert_eq!(whole(text), value, "{text}");
        }
    }

    #[test]
    fn a_float_that_is_its_own_bucket_is_not_shown() {
        assert_eq!(floor_float(1234.5, 1000), Some(1000.0));
        assert_eq!(floor_float(-0.5, 10), Some(-10.0));
        assert_eq!(floor_float(1e300, 1000), None);
        assert_eq!(floor_float(f64::NAN, 1000), None);
        assert_eq!(floor_float(f64::NEG_INFINITY, 1000), None);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value(value: i64, width in 1..=u64::MAX) {
            let lower = floor(value.into(), width).unwrap();
            let value = i128::from(value);
            prop_assert!(lower <= value && value < lower + i128::from(width));
            prop_assert_eq!(lower % i128::from(width), 0);
        }

        /// All that a masked float tells is its bucket.
        #[test]
        fn values_of_one_bucket_look_alike(bucket in -1_000_000i32..1_000_000, a in 0.0..1.0, b in 0.0..1.0, width in 1u64..1_000_000) {
            let value = |part: f64| (f64::from(bucket) + part * 0.999) * width as f64;
            let (one, other) = (floor_float(value(a), width), floor_float(value(b), width));
            prop_assert!(one.is_some());
            prop_assert_eq!(one, other);
        }
    }
}
