//! Text that others wrote, shown on an operator's terminal: names and texts in
//! the record come from clients, and a terminal obeys what is in them.

use serde::Serialize;

/// `text` with every character that a terminal obeys, or hides, written out.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match acts(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// One object on one line, in which JSON's own escapes stand for such
/// characters.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let line = serde_json::to_string(value)?;
    let mut shown = String::with_capacity(line.len());
    for character in line.chars() {
        match acts(character) {
            // All of them are below U+10000.
            true => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    Ok(shown)
}

/// Control characters, of C1 too, and those that change the direction of text
/// or have no width.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        let text = "a\u{1b}]0;x\u{7}\r\nb\u{9b}31m \u{202e}é\u{7f}";
        let shown = visible(text);
        assert_eq!(
            shown,
            "a\\u{1b}]0;x\\u{7}\\r\\nb\\u{9b}31m \\u{202e}é\\u{7f}"
        );
        let line = json(&text).unwrap();
        assert!(!line.chars().any(acts), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
