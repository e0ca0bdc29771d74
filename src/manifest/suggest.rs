//! The nearest right word.

/// The candidate that `word` is probably a slip of: few edits for its length, or the same beginning.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let scored = candidates.into_iter().filter(|candidate| *candidate != word).filter_map(|candidate| {
        let distance = strsim::damerau_levenshtein(word, candidate);
        let alike = distance <= allowed || strsim::jaro_winkler(word, candidate) > 0.92;
        alike.then_some((distance, candidate))
    });
    scored.min().map(|(_, candidate)| candidate)
}

/// The word of a few that `text` is a slip of, or that it holds: Compose says `service_healthy`.
pub(super) fn meant<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    nearest(text, words.iter().copied()).or_else(|| words.iter().copied().find(|word| text.contains(word)))
}

/// A key as it would be written: bare where that is allowed.
pub(super) fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// `` `a`, `b` or `c` ``.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_does_not() {
        let keys = ["image", "restart", "environment", "mounts"];
        assert_eq!(nearest("imgae", keys), Some("image"));
        assert_eq!(nearest("enviroment", keys), Some("environment"));
        assert_eq!(nearest("environments", keys), Some("environment"));
        assert_eq!(nearest("xyzzy", keys), None);
    }
}
