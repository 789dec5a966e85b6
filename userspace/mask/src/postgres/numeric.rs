//! The binary format of numeric: four 16-bit numbers (count of digits, weight of
//! the first, sign, decimals that are shown), then digits of base 10,000
//! (`numeric_send` in PostgreSQL's numeric.c).

use bytes::{Buf, BufMut, BytesMut};

const NEGATIVE: u16 = 0x4000;
const BASE: u128 = 10_000;

/// The greatest whole number that is not above the value. None for NaN, the
/// infinities, what is broken, and beyond an i128.
pub(super) fn whole(mut value: &[u8]) -> Option<i128> {
    let count = usize::from(value.try_get_u16().ok()?);
    let weight = i32::from(value.try_get_i16().ok()?);
    let sign = value.try_get_u16().ok()?;
    let _decimals = value.try_get_u16().ok()?;
    if !matches!(sign, 0 | NEGATIVE) || value.len() != 2 * count {
        return None;
    }
    let mut whole: i128 = 0;
    let mut fraction = false;
    for place in 0..=weight.max(-1) {
        let digit = if value.is_empty() { 0 } else { value.get_u16() };
        let digit = (u128::from(digit) < BASE).then_some(digit)?;
        whole = whole.checked_mul(BASE as i128)?.checked_add(digit.into())?;
        // Zeros at the end are left out; not so many of them that it matters.
        if place > 16 {
            return None;
        }
    }
    while !value.is_empty() {
        fraction |= value.get_u16() != 0;
    }
    match (sign, fraction) {
        (NEGATIVE, true) => (-whole).checked_sub(1),
        (NEGATIVE, false) => Some(-whole),
        _ => Some(whole),
    }
}

/// Appends a whole number.
pub(super) fn write(value: i128, out: &mut BytesMut) {
    let mut digits = [0; 10];
    let mut count = 0;
    let mut rest = value.unsigned_abs();
    while rest > 0 {
        digits[count] = (rest % BASE) as u16;
        rest /= BASE;
        count += 1;
    }
    let zeros = digits[..count].iter().take_while(|digit| **digit == 0);
    let zeros = zeros.count();
    out.put_u16((count - zeros) as u16);
    out.put_i16(count.saturating_sub(1) as i16);
    out.put_u16(if value < 0 { NEGATIVE } else { 0 });
    out.put_u16(0);
    for digit in digits[zeros..count].iter().rev() {
        out.put_u16(*digit);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_broken_is_nothing() {
        for broken in [
            &[][..],
            &[0, 1, 0, 0, 0, 0, 0, 0],
            &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10],
            &[0, 0, 0, 0, 0xc0, 0, 0, 0],
            &[0, 1, 0x7f, 0xff, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(whole(broken), None, "{broken:?}");
        }
        assert_eq!(whole(&[0, 0, 0, 0, 0, 0, 0, 2]), Some(0));
        // -0.5
        assert_eq!(
            whole(&[0, 1, 0xff, 0xff, 0x40, 0, 0, 1, 0x13, 0x88]),
            Some(-1)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: i128) {
            let mut out = BytesMut::new();
            write(value, &mut out);
            // Of 17 places and less, as everything that was read.
            if value.unsigned_abs() < 10_u128.pow(38) {
                prop_assert_eq!(whole(&out), Some(value));
            }
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes: Vec<u8>) {
            whole(&bytes);
        }
    }
}
