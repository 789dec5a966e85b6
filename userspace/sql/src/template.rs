//! A text with its literals taken out, found in one pass and without a parser.
//!
//! Texts of one template are one analysis: the same tokens in the same order
//! but for the values of some literals, which the walk says it never looks at
//! ([`crate::analysis::Facts::indifferent`]). Only literals that cannot be
//! anything else are taken out; a text with anything unusual has no template
//! and is read as it is.

/// Longest text that has a template, in bytes: a longer one is rarely sent
/// again with other literals, and is read on a thread of its own.
pub(crate) const LONGEST: usize = 4096;

/// Digits of the longest integer that is taken out. Ten could be too large for
/// PostgreSQL's ICONST, and would be another token.
const DIGITS: usize = 9;

/// Appends `text` to `template` with each plain literal in the place of its
/// value replaced by `0` or `''`, and calls `found` with where each began.
/// False if it has none or may not be treated so.
///
/// What is left must have no byte whose meaning depends on more than its
/// neighbours: no backslash, no `$` (dollar quotes, parameters), no comment,
/// nothing but ASCII, and quotes only where no prefix (`E''`, `U&""` …)
/// changes what is in them.
pub(crate) fn of(text: &[u8], template: &mut Vec<u8>, mut found: impl FnMut(usize)) -> bool {
    if text.len() > LONGEST {
        return false;
    }
    let mut any = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let before = at.checked_sub(1).map(|before| text[before]);
        match byte {
            b'0'..=b'9' if !before.is_some_and(|before| is_word(before) || before == b'.') => {
                let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                let behind = text.get(at + digits);
                let plain = digits <= DIGITS && !behind.is_some_and(|b| is_word(*b) || *b == b'.');
                match plain {
                    true => {
                        template.push(b'0');
                        found(at);
                        any = true;
                    }
                    false => template.extend_from_slice(&text[at..at + digits]),
                }
                at += digits;
            }
            b'\'' => {
                if before.is_some_and(|before| is_word(before) || before == b'&') {
                    return false;
                }
                let Some(length) = quoted(&text[at..], b'\'') else {
                    return false;
                };
                template.extend_from_slice(b"''");
                found(at);
                any = true;
                at += length;
            }
            b'"' => {
                if before == Some(b'&') {
                    return false;
                }
                let Some(length) = quoted(&text[at..], b'"') else {
                    return false;
                };
                template.extend_from_slice(&text[at..at + length]);
                at += length;
            }
            b'\\' | b'$' | 0 | 0x80.. => return false,
            b'-' | b'*' if before == Some(if byte == b'-' { b'-' } else { b'/' }) => return false,
            _ => {
                template.push(byte);
                at += 1;
            }
        }
    }
    any
}

/// Whether a byte can be part of a word, so that what follows is, too.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Length of what begins with `quote`, up to the quote that ends it; doubled,
/// it stands for itself. None where it does not end, or holds what may not be
/// in it.
pub(crate) fn quoted(text: &[u8], quote: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\\' | 0 | 0x80.. => return None,
            byte if byte == quote => match text.get(at + 1) {
                Some(&next) if next == quote => at += 2,
                _ => return Some(at + 1),
            },
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Option<(String, Vec<usize>)> {
        let (mut template, mut places) = (Vec::new(), Vec::new());
        of(text.as_bytes(), &mut template, |at| places.push(at))
            .then(|| (String::from_utf8(template).expect("ASCII"), places))
    }

    #[test]
    fn plain_literals_are_taken_out() {
        let (text, places) =
            template("SELECT a1 FROM t WHERE b = 42 AND c='x''y' AND d>-7").unwrap();
        assert_eq!(text, "SELECT a1 FROM t WHERE b = 0 AND c='' AND d>-0");
        assert_eq!(places, [27, 36, 50]);
    }

    #[test]
    fn what_may_be_another_token_stays() {
        for text in [
            "1.5",
            ".5",
            "1e5",
            "0x1F",
            "1_000",
            "12a",
            "1234567890",
            "t1",
            "1..2",
        ] {
            assert_eq!(template(text), None, "{text}");
        }
        assert_eq!(template("a1.b2 = 3").unwrap().0, "a1.b2 = 0");
    }

    #[test]
    fn what_depends_on_more_has_no_template() {
        for text in [
            "E'a' = 1",
            "1 = U&'a'",
            "1 = U&\"a\"",
            "x = 'a\\' OR 1",
            "1 = $1",
            "$$1$$ = 1",
            "1 -- 2",
            "1 /* 2 */",
            "'open",
            "1 = \"open",
            "é = 1",
            "1 = 'é'",
            "1\0",
            "'a\0' = 1",
            "N'a' = 1",
            "1'a'",
        ] {
            assert_eq!(template(text), None, "{text}");
        }
    }

    #[test]
    fn a_quoted_name_is_kept() {
        assert_eq!(template("\"a 1 '\" = 1").unwrap().0, "\"a 1 '\" = 0");
    }

    #[test]
    fn long_texts_have_none() {
        let text = format!("SELECT 1{}", " ".repeat(LONGEST));
        assert_eq!(template(&text), None);
    }
}
