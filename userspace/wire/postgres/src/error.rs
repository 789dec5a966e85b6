use std::fmt;

use smallvec::SmallVec;

/// The peer sent what the protocol does not allow here. The connection cannot
/// go on: what follows could be read in two ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ProtocolError {
    sqlstate: &'static str,
    message: String,
}

impl ProtocolError {
    /// SQLSTATE 08P01, protocol_violation.
    pub(crate) fn violation(message: impl Into<String>) -> Self {
        Self {
            sqlstate: "08P01",
            message: message.into(),
        }
    }

    /// SQLSTATE 0A000, feature_not_supported.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self {
            sqlstate: "0A000",
            message: message.into(),
        }
    }

    /// SQLSTATE 54000, program_limit_exceeded.
    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self {
            sqlstate: "54000",
            message: message.into(),
        }
    }

    /// The five characters of the SQLSTATE (appendix A).
    pub fn sqlstate(&self) -> &'static str {
        self.sqlstate
    }
}

/// The fields of an ErrorResponse or NoticeResponse (section 54.8).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ErrorFields {
    fields: Vec<(u8, String)>,
}

impl ErrorFields {
    /// Reads a message body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ProtocolError> {
        let text = |(kind, text)| (kind, String::from_utf8_lossy(text).into_owned());
        Ok(Self {
            fields: fields(body)?.into_iter().map(text).collect(),
        })
    }

    /// The field of type `kind`, such as `b'M'`.
    pub fn get(&self, kind: u8) -> Option<&str> {
        self.fields
            .iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, text)| text.as_str())
    }

    /// Field M.
    pub fn message(&self) -> &str {
        self.get(b'M').unwrap_or("")
    }

    /// Field C; `XX000` if the server sent none.
    pub fn sqlstate(&self) -> &str {
        self.get(b'C').unwrap_or("XX000")
    }
}

/// Types and texts, in the order of the message.
type Fields<'a> = SmallVec<[(u8, &'a [u8]); 16]>;

/// The fields of a message body as sent: field type byte, string, NUL; a zero
/// byte ends it. A body with more fields than there are types is refused.
pub(crate) fn fields(body: &[u8]) -> Result<Fields<'_>, ProtocolError> {
    let mut fields = SmallVec::new();
    let mut rest = body;
    loop {
        match rest.split_first() {
            Some((0, [])) => return Ok(fields),
            Some((&kind, tail)) if kind != 0 && fields.len() < 256 => {
                let end = memchr::memchr(0, tail)
                    .ok_or_else(|| ProtocolError::violation("an error field has no end"))?;
                fields.push((kind, &tail[..end]));
                rest = &tail[end + 1..];
            }
            _ => return Err(ProtocolError::violation("an error message has no end")),
        }
    }
}

impl fmt::Debug for ErrorFields {
    // Details and hints can hold values, so they stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ErrorFields({} {})", self.sqlstate(), self.message())
    }
}
