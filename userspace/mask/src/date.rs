//! Points in time of which only the year, month or day stays.

use lockgate_config::Precision;
use time::{Date, Month};

/// The first day of the year or month that a day is in.
pub(crate) fn truncate(date: Date, to: Precision) -> Option<Date> {
    let (year, month, day) = date.to_calendar_date();
    match to {
        Precision::Year => Date::from_calendar_date(year, Month::January, 1),
        Precision::Month => Date::from_calendar_date(year, month, 1),
        Precision::Day => Date::from_calendar_date(year, month, day),
    }
    .ok()
}

/// `2026-03-04`, with four digits or more for the year.
pub(crate) fn read(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let mut part = |least: usize, most: usize| {
        let digits = parts.next()?;
        let numeric = digits.bytes().all(|digit| digit.is_ascii_digit());
        let fits = numeric && (least..=most).contains(&digits.len());
        fits.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (year, month, day) = (part(4, 5)?, part(2, 2)?, part(2, 2)?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[test]
    fn a_day_is_read_and_cut() {
        let day = read("2024-02-29").unwrap();
        assert_eq!(day, date!(2024 - 02 - 29));
        assert_eq!(truncate(day, Precision::Month), Some(date!(2024 - 02 - 01)));
        assert_eq!(truncate(day, Precision::Year), Some(date!(2024 - 01 - 01)));
        assert_eq!(truncate(day, Precision::Day), Some(day));
        for other in [
            "2023-02-29",
            "29.02.2024",
            "02/29/2024",
            "infinity",
            "2024-2-9",
            "44-03-15 BC",
            "",
            "2024-02-29 BC",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
