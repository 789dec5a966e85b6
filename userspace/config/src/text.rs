use toml_edit::{Document, Item};

use crate::{Finding, Severity};

/// The text of the configuration file, and where things stand in it.
#[derive(Debug)]
pub struct Text {
    file: String,
    text: String,
    /// None if it is not TOML at all.
    document: Option<Document<String>>,
}

/// A place in a text: line, and column in characters, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl Text {
    /// `file` is its name as findings say it.
    pub fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            document: Document::parse(text.to_owned()).ok(),
        }
    }

    /// Where the deepest part of a path of keys and indexes stands that is
    /// there, such as `["target", "0", "tls", "ca"]`.
    pub fn position(&self, path: &[&str]) -> Option<Position> {
        let mut item: &Item = self.document.as_ref()?.as_item();
        let mut position = None;
        for step in path {
            let next = match step.parse::<usize>() {
                Ok(index) => item.get(index),
                Err(_) => item.get(*step),
            };
            let Some(next) = next else { break };
            item = next;
            if let Some(span) = item.span() {
                position = Some(self.position_of(span.start));
            }
        }
        position
    }

    /// Where a byte of the text stands.
    pub(crate) fn position_of(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
        }
    }

    /// A finding about what stands at `path`; an empty `path` means the file.
    pub fn finding(
        &self,
        severity: Severity,
        path: &[&str],
        message: String,
        fix: &str,
    ) -> Finding {
        self.finding_at(severity, self.position(path), message, fix)
    }

    pub(crate) fn finding_at(
        &self,
        severity: Severity,
        position: Option<Position>,
        message: String,
        fix: &str,
    ) -> Finding {
        Finding {
            severity,
            file: self.file.clone(),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            message,
            fix: (!fix.is_empty()).then(|| fix.to_owned()),
        }
    }
}
