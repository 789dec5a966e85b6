use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that is wrong, or looks wrong, in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// Line in the file, from 1; none where the file as such is meant.
    pub line: Option<u32>,
    /// Column in the line, in characters from 1; none where the line as such
    /// is meant.
    pub column: Option<u32>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, but probably not as meant.
    Warning,
    /// The configuration is refused; the one that runs stays.
    Error,
}

impl Severity {
    /// As findings say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// In one line: `FILE:LINE:COLUMN: error: MESSAGE; FIX`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        write!(f, ": {}: {}", self.severity.as_str(), self.message)?;
        if let Some(fix) = &self.fix {
            write!(f, "; {fix}")?;
        }
        Ok(())
    }
}
