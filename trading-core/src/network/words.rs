//! What a page says, for a log line. Pure.

/// What is kept of the words.
const CHARS_MAX: usize = 200;
/// What is read of a page for them, in bytes.
const PAGE_BYTES_MAX: usize = 4 << 10;

/// The first 200 printable characters of a page: without markup, control characters, marks that turn the direction of
/// writing, and what is no text.
#[must_use]
pub fn words(page: &[u8]) -> String {
    let text = String::from_utf8_lossy(page.get(..PAGE_BYTES_MAX).unwrap_or(page));
    let mut words = String::new();
    let mut kept = 0;
    let mut rest = text.as_ref();
    while let Some(next) = rest.chars().next() {
        if next == '<'
            && let Some(after) = past_markup(rest)
        {
            rest = after;
            push(&mut words, &mut kept, ' ');
        } else {
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
            push(&mut words, &mut kept, next);
        }
        if kept >= CHARS_MAX {
            break;
        }
    }
    words.trim_end().to_owned()
}

/// Adds a character that shows; a run of blanks is one blank.
fn push(words: &mut String, kept: &mut usize, next: char) {
    let next = if next.is_whitespace() { ' ' } else { next };
    let is_blank = next == ' ' && (words.is_empty() || words.ends_with(' '));
    if !is_blank && is_shown(next) {
        words.push(next);
        *kept += 1;
    }
}

fn is_shown(character: char) -> bool {
    // Marks that have no width or turn the direction of what follows, and the sign of what was no text.
    let is_mark = matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffd}' | '\u{e0000}'..='\u{e007f}'
    );
    !character.is_control() && !is_mark
}

/// Behind a tag, and behind all of a script or a style sheet. `None`: this `<` begins no tag.
fn past_markup(text: &str) -> Option<&str> {
    let begins = text.as_bytes().get(1)?;
    if !(begins.is_ascii_alphabetic() || matches!(begins, b'/' | b'!' | b'?')) {
        return None;
    }
    for hidden in ["script", "style"] {
        let name = text.get(1..=hidden.len()).unwrap_or_default();
        if name.eq_ignore_ascii_case(hidden) {
            let end = text.to_ascii_lowercase().find(&format!("</{hidden}")).unwrap_or(text.len());
            let text = text.get(end..).unwrap_or_default();
            return Some(text.split_once('>').map_or("", |(_, after)| after));
        }
    }
    Some(text.split_once('>').map_or("", |(_, after)| after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_words() {
        let page = "<html><head><style>p { color: red }</style><title>403  Forbidden</title></head>\r\n<body><p>Request \
                    blocked.</p><script>alert('<b>')</script> 3 < 4</body>";
        assert_eq!(words(page.as_bytes()), "403 Forbidden Request blocked. 3 < 4");
        assert_eq!(
            words(br#"{"code":0,"msg":"restricted location"}"#),
            r#"{"code":0,"msg":"restricted location"}"#
        );
    }

    #[test]
    fn nothing_of_a_page_moves_the_cursor_or_turns_the_line() {
        let page =
            "a\u{1b}[31mred\n2026 ERROR forged\r\u{202e}drow\u{2028}x\u{200b}y\u{0}z".as_bytes();
        assert_eq!(words(page), "a[31mred 2026 ERROR forged drow xyz");
        assert_eq!(words(b"\xff\xfe\x80 bytes"), "bytes");
        assert_eq!(words(&[b'x'; 100_000]).len(), 200);
        assert_eq!(words("<".repeat(5_000).as_bytes()).len(), 200);
        assert_eq!(words(b"<a"), "");
        let hidden = "<script></script>".repeat(1_000_000);
        assert_eq!(
            words(hidden.as_bytes()),
            "",
            "no more of it is looked at than the first few KiB"
        );
    }
}
