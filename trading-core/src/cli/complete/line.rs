//! A command line as a shell parts it into words.

/// The words of a line up to the cursor; the last is the one that is being written, and empty behind a space.
#[must_use]
pub fn split(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quote, mut is_begun) = (None, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => {
                if is_begun {
                    words.push(std::mem::take(&mut word));
                }
                is_begun = false;
                continue;
            }
            (None, '\'' | '"') => quote = Some(letter),
            (Some(mark), _) if mark == letter => quote = None,
            (None | Some('"'), '\\') => word.extend(letters.next()),
            (_, letter) => word.push(letter),
        }
        is_begun = true;
    }
    words.push(word);
    words
}
