//! A text without its literals.

use std::fmt::Write;
use std::sync::Arc;

use pg_query::protobuf::{ScanToken, Token};

/// `text` with each literal as `$n`, without comments, and one space where
/// there was any. The tokens are those of PostgreSQL's own lexer, so what it
/// reads as a literal cannot stay; none where a token is not known.
pub(crate) fn of(text: &str, tokens: &[ScanToken]) -> Option<Arc<str>> {
    let mut shape = String::with_capacity(text.len());
    let (mut end, mut literals) = (0, 0);
    // Numbers that stand for parameters stay as they are.
    let first_free = parameters(text, tokens);
    for token in tokens {
        let (from, to) = (
            usize::try_from(token.start).ok()?,
            usize::try_from(token.end).ok()?,
        );
        let kind = Token::try_from(token.token).ok()?;
        if matches!(kind, Token::SqlComment | Token::CComment) {
            continue;
        }
        if from > end && !shape.is_empty() {
            shape.push(' ');
        }
        end = to;
        match kind {
            Token::Sconst
            | Token::Usconst
            | Token::Bconst
            | Token::Xconst
            | Token::Fconst
            | Token::Iconst => {
                literals += 1;
                write!(shape, "${}", first_free + literals).ok()?;
            }
            _ => shape.push_str(text.get(from..to)?),
        }
    }
    Some(shape.into())
}

/// The highest `$n` of the text.
fn parameters(text: &str, tokens: &[ScanToken]) -> u64 {
    tokens
        .iter()
        .filter(|token| token.token == Token::Param as i32)
        .filter_map(|token| {
            text.get(token.start as usize + 1..token.end as usize)?
                .parse()
                .ok()
        })
        .max()
        .unwrap_or(0)
}
