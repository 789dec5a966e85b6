//! Limits that are checked before PostgreSQL's parser sees a text. All take
//! time linear in the text.

use lockgate_command::Refusal;
use pg_query::protobuf::{ScanToken, Token};

use crate::Reading;

/// Depth of nested comments. PostgreSQL's lexer takes quadratic time.
const COMMENT_DEPTH: usize = 32;

/// How often PostgreSQL's lexer may look at characters again. It reads a run of
/// operator characters to its end, then steps back to a `/*` in it, or before a
/// `+` or `-` at its end, and reads the rest anew.
const STEPS_BACK: usize = 4_000_000;

/// Depth of the tree, estimated from above: nesting plus the lengths of the
/// chains that nest (`1+1+1` is `(1+1)+1`). Reading one level back costs about
/// 10 KiB of stack; see the tests.
pub(crate) const DEPTH: usize = 1500;

/// `text` as UTF-8, if it can be read at all.
pub(crate) fn readable(
    text: &[u8],
    reading: Reading,
    statement_bytes: usize,
) -> Result<&str, Refusal> {
    if text.len() > statement_bytes {
        return Err(refusal(
            format!("a statement over {statement_bytes} bytes"),
            "send the values as parameters or by COPY, or split the statement",
        ));
    }
    if !reading.standard_conforming_strings {
        return Err(refusal(
            "standard_conforming_strings = off",
            "SET standard_conforming_strings TO on",
        ));
    }
    if !reading.utf8 && !text.is_ascii() {
        return Err(refusal(
            "a statement with other than ASCII characters while client_encoding is not UTF8",
            "connect with client_encoding UTF8 (PGCLIENTENCODING); a SET comes too late",
        ));
    }
    if text.contains(&0) {
        return Err(refusal("a statement with a zero byte", "send it without"));
    }
    let text = std::str::from_utf8(text)
        .map_err(|_| refusal("a statement that is not valid UTF-8", "send it in UTF-8"))?;
    comments(text.as_bytes())?;
    runs(text.as_bytes())?;
    Ok(text)
}

/// Counts comment marks wherever they stand, in strings too: never less than
/// the true depth by more than one.
fn comments(text: &[u8]) -> Result<(), Refusal> {
    let (mut depth, mut at) = (0usize, 0);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') if depth > 0 => {
                depth -= 1;
                at += 2;
            }
            _ => at += 1,
        }
        if depth > COMMENT_DEPTH {
            return Err(refusal(
                format!("comments nested over {COMMENT_DEPTH} deep"),
                "send it without the comments",
            ));
        }
    }
    Ok(())
}

/// Bounds what the lexer does for runs of operator characters, wherever they
/// stand: length times the places to step back to.
fn runs(text: &[u8]) -> Result<(), Refusal> {
    let (mut total, mut length, mut places, mut before) = (0usize, 0usize, 0usize, b' ');
    for &byte in text.iter().chain(b" ") {
        match byte {
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => {
                length += 1;
                let steps_back = matches!(byte, b'+' | b'-') || (before, byte) == (b'/', b'*');
                places += usize::from(steps_back);
            }
            _ => {
                total = total.saturating_add(length * places);
                (length, places) = (0, 0);
            }
        }
        before = byte;
    }
    if total > STEPS_BACK {
        return Err(refusal(
            "too long a run of operator characters",
            "put spaces between them, or send the value as a parameter",
        ));
    }
    Ok(())
}

/// What nests at one level of brackets.
#[derive(Clone, Copy, Default)]
struct Level {
    /// Operators since the last comma, AND or OR: these bind less.
    operators: usize,
    /// CASE and BETWEEN since the last comma, and what operators stood before
    /// them: an AND inside of one does not end it, nor them. A comma at this
    /// level is in none.
    held: usize,
    /// UNION and JOIN nest to the left as long as the statement goes on.
    joins: usize,
    /// BEGIN ATOMIC: a body of statements, in which more may be. It is not told
    /// which END is its own.
    bodies: usize,
}

/// Nodes from one body to the next one in it.
const BODY: usize = 5;

impl Level {
    fn depth(self) -> usize {
        1 + self.operators + self.held + self.joins + self.bodies
    }

    fn hold(&mut self) {
        self.held += self.operators + 1;
        self.operators = 0;
    }
}

/// Refuses a text whose tree may be too deep.
pub(crate) fn depth(tokens: &[ScanToken]) -> Result<(), Refusal> {
    let (mut outer, mut below) = (Vec::new(), 0);
    let mut level = Level::default();
    for token in tokens {
        let kind = Token::try_from(token.token).map_err(|_| {
            refusal(
                "a token that lockgate does not know",
                "report it with the statement",
            )
        })?;
        match kind {
            Token::Ascii40 | Token::Ascii91 => {
                below += level.depth();
                outer.push(level);
                level = Level::default();
            }
            Token::Ascii41 | Token::Ascii93 => {
                // One too many is a syntax error, which the parser finds.
                level = outer.pop().unwrap_or_default();
                below = below.saturating_sub(level.depth());
            }
            Token::Ascii44 => (level.operators, level.held) = (0, 0),
            Token::And | Token::Or => level.operators = 0,
            Token::Ascii59 if outer.is_empty() => {
                level = Level {
                    bodies: level.bodies,
                    ..Level::default()
                };
            }
            Token::Case | Token::Between => level.hold(),
            Token::Atomic => level.bodies += BODY,
            Token::Union | Token::Intersect | Token::Except | Token::Join => level.joins += 1,
            Token::Ascii37
            | Token::Ascii42
            | Token::Ascii43
            | Token::Ascii45
            | Token::Ascii47
            | Token::Ascii60
            | Token::Ascii61
            | Token::Ascii62
            | Token::Ascii94
            | Token::Op
            | Token::Typecast
            | Token::LessEquals
            | Token::GreaterEquals
            | Token::NotEquals
            | Token::Operator
            | Token::Not
            | Token::Is
            | Token::Isnull
            | Token::Notnull
            | Token::Collate
            | Token::At
            | Token::Like
            | Token::Ilike
            | Token::Similar
            | Token::InP
            | Token::Escape
            | Token::Overlaps => level.operators += 1,
            _ => {}
        }
        if below + level.depth() > DEPTH {
            return Err(refusal(
                format!(
                    "a statement nested over {DEPTH} levels deep, or as long a chain of operators"
                ),
                "use a list (IN, VALUES, = ANY) or split the statement",
            ));
        }
    }
    Ok(())
}

/// Refuses names that a server with another encoding than UTF8 may fold or cut
/// otherwise.
pub(crate) fn names(text: &str, tokens: &[ScanToken]) -> Result<(), Refusal> {
    for token in tokens {
        let name = usize::try_from(token.start)
            .ok()
            .zip(usize::try_from(token.end).ok())
            .and_then(|(from, to)| text.get(from..to))
            .unwrap_or_default();
        let plain = match Token::try_from(token.token) {
            Ok(Token::Uident) => false,
            Ok(Token::Sconst | Token::Usconst | Token::SqlComment | Token::CComment) => true,
            _ => name.is_ascii(),
        };
        if !plain {
            return Err(refusal(
                "a name with other than ASCII characters in a database that is not in UTF8",
                "use names of ASCII characters, without U&",
            ));
        }
    }
    Ok(())
}

pub(crate) fn refusal(construct: impl Into<String>, hint: &str) -> Refusal {
    Refusal {
        construct: construct.into(),
        hint: hint.into(),
    }
}
