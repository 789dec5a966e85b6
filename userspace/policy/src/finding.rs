use std::fmt;

use serde::Serialize;

/// Something that is wrong, or looks wrong, in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the set can be used in spite of it.
    pub severity: Severity,
    /// File name below the policies folder.
    pub file: String,
    /// Line in the file, from 1.
    pub line: u32,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The set works, but probably not as meant.
    Warning,
    /// The set is refused; the one that runs stays.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            file,
            line,
            message,
            suggestion,
        } = self;
        write!(f, "{file}:{line}: {severity}: {message}")?;
        match suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}
