//! Text of images and containers on its way to a terminal, which would obey what is in it.

/// With a mark in the place of each control character but line ends and tabs: no sequence of a terminal is left whole.
pub fn tamed(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// As [`tamed`], on one line: what stands in a table must not look like a row of it.
pub fn tamed_line(text: &str) -> String {
    tamed(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        let hostile = "a\x1b]52;c;eA==\x07b\u{9b}2Jc\rd\x7f";
        assert_eq!(tamed(hostile), "a\u{fffd}]52;c;eA==\u{fffd}b\u{fffd}2Jc\u{fffd}d\u{fffd}");
        assert_eq!(tamed("grün\tzwei\n"), "grün\tzwei\n");
        assert_eq!(tamed_line("grün\tzwei\n\x1b[2J"), "grün zwei \u{fffd}[2J");
    }
}
