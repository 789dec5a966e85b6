use crate::Event;

/// First byte of each record in the spool. Version 1 is [`Event`] in postcard
/// (<https://postcard.jamesmunns.com/wire-format>).
pub const RECORD_VERSION: u8 = 1;

/// Why a record is not an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version of lockgate.
    #[error(
        "record version {0}, this lockgate reads {RECORD_VERSION}; let the version that wrote it seal it"
    )]
    Version(u8),
    /// Not an event, or more than one.
    #[error("the record is not an event: {0}")]
    Event(String),
}

/// Encodes `event` into the front of `buffer`; none if it does not fit.
pub(crate) fn encode(event: &Event, buffer: &mut [u8]) -> Result<Option<usize>, postcard::Error> {
    let Some((version, body)) = buffer.split_first_mut() else {
        return Ok(None);
    };
    *version = RECORD_VERSION;
    match postcard::to_slice(event, body) {
        Ok(used) => Ok(Some(used.len() + 1)),
        Err(postcard::Error::SerializeBufferFull) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads what [`encode`] wrote, all of it.
pub(crate) fn decode(record: &[u8]) -> Result<Event<'static>, DecodeError> {
    match record.split_first() {
        Some((&RECORD_VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((event, [])) => Ok(event),
            Ok((_, rest)) => Err(DecodeError::Event(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(DecodeError::Event(error.to_string())),
        },
        Some((&other, _)) => Err(DecodeError::Version(other)),
        None => Err(DecodeError::Event("it is empty".into())),
    }
}
