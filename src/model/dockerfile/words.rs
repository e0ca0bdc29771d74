//! How the arguments of an instruction are separated.

use std::ops::Range;

/// Words between blanks.
pub(super) fn plain(text: &str) -> Vec<Range<usize>> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(|word| start(word)..start(word) + word.len()).collect()
}

/// Words between blanks, where quotes and the escape character keep blanks; both stay in the words.
pub(super) fn quoted(text: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let (mut begin, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if begin.is_none() {
            if c.is_whitespace() {
                continue;
            }
            begin = Some(at);
        }
        match quote {
            _ if escaped => escaped = false,
            // Nothing is escaped between single quotes.
            Some('\'') if c != '\'' => {}
            _ if c == escape => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                words.extend(begin.take().map(|begin| begin..at));
            }
            None => {}
        }
    }
    words.extend(begin.map(|begin| begin..text.len()));
    words
}

/// The exec form: a JSON list of texts. Anything else is a line of shell, as the reference has it.
pub(super) fn json(text: &str) -> Option<Vec<String>> {
    text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}
