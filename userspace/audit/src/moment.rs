use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// RFC 3339 in UTC with nine digits of a second, so that texts sort as times
/// do: `2026-11-24T09:30:00.000000001Z`.
pub fn rfc3339(time_ns: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(time_ns.into())
        .expect("64 bits of nanoseconds are the years 1677 to 2262");
    let (date, clock) = (time.date(), time.time());
    let (hour, minute, second, nano) = clock.as_hms_nano();
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nano:09}Z")
}

/// Reads RFC 3339 with any offset; none for what is not, or lies outside the
/// years 1677 to 2262.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_back_as_written() {
        for time_ns in [0, 1, -1, 1_700_000_000_123_456_789, i64::MAX, i64::MIN] {
            assert_eq!(parse_rfc3339(&rfc3339(time_ns)), Some(time_ns));
        }
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
