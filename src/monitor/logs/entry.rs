//! One line of a log file: making it fast, reading it back.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Which of its two streams a container wrote to. A terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// One entry as it was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub time: SystemTime,
    pub stream: Stream,
    /// With its newline, unless the line is continued by the next entry of this stream.
    pub text: String,
}

#[derive(Deserialize)]
struct Line {
    time: String,
    stream: Stream,
    log: String,
}

/// Reads one line of a log file; `None` for what is no entry, such as a line torn by a power cut.
pub fn parse(line: &[u8]) -> Option<Entry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let time = humantime::parse_rfc3339(&line.time).ok()?;
    Some(Entry { time, stream: line.stream, text: line.log })
}

/// The part of an entry before its text, which all entries of one moment and stream share.
pub fn prefix(time: SystemTime, stream: Stream) -> String {
    let time = humantime::format_rfc3339_nanos(time);
    format!(r#"{{"time":"{time}","stream":"{}","log":""#, stream.as_str())
}

/// What the first line of a log file begins with, in place of its brace: which file of this log it is, counted from 1.
/// So a reader knows whether there were others between two that it read.
pub fn file_mark(number: u64) -> String {
    format!("{FILE_MARK}{number},")
}

const FILE_MARK: &str = r#"{"file":"#;

/// No mark is longer.
pub const LONGEST_FILE_MARK: usize = FILE_MARK.len() + 21;

/// The number in a mark, if this beginning of a file has one.
pub fn marked_number(beginning: &[u8]) -> Option<u64> {
    let number = beginning.strip_prefix(FILE_MARK.as_bytes())?;
    let end = number.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&number[..end]).ok()?.parse().ok()
}

/// Appends one whole line to `out`: `prefix`, `text` as the inside of a JSON string, and the end of the object.
pub fn append(out: &mut Vec<u8>, prefix: &str, text: &[u8]) {
    out.reserve(prefix.len() + text.len() + 8);
    out.extend_from_slice(prefix.as_bytes());
    match std::str::from_utf8(text) {
        Ok(_) => append_escaped(out, text),
        Err(_) => {
            for chunk in text.utf8_chunks() {
                append_escaped(out, chunk.valid().as_bytes());
                if !chunk.invalid().is_empty() {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                }
            }
        }
    }
    out.extend_from_slice(b"\"}\n");
}

/// JSON's escapes (RFC 8259, section 7) for what must have one; all else is copied in runs.
fn append_escaped(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let plain = plain_length(text);
        out.extend_from_slice(&text[..plain]);
        let Some((&special, rest)) = text[plain..].split_first() else { return };
        match special {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(control >> 4)]);
                out.push(DIGITS[usize::from(control & 15)]);
            }
        }
        text = rest;
    }
}

fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// How many bytes at the beginning need no escape. Eight at a time: in each byte lane, the top bit is set when
/// `lane - n` borrows, which is when the lane is below `n` (and below 128); equality is being below 1 after an
/// exclusive or. A borrow can only mark a lane above a true hit, and the lowest hit is what counts.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let below = |lanes: u64, n: u64| lanes.wrapping_sub(ONES * n) & !lanes & TOPS;
    let mut at = 0;
    while let Some(eight) = text[at..].first_chunk::<8>() {
        let lanes = u64::from_le_bytes(*eight);
        let quote = lanes ^ (ONES * u64::from(b'"'));
        let backslash = lanes ^ (ONES * u64::from(b'\\'));
        let hits = below(lanes, 0x20) | below(quote, 1) | below(backslash, 1);
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + text[at..].iter().position(|byte| is_special(*byte)).unwrap_or(text.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn line(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, &prefix(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_500_000_001), Stream::Stderr), text);
        out
    }

    #[test]
    fn a_line_looks_as_documented() {
        let expected =
            r#"{"time":"1970-01-01T00:00:01.500000001Z","stream":"stderr","log":"say \"hi\"\t\\ \u001b[0m\n"}"#;
        assert_eq!(String::from_utf8(line(b"say \"hi\"\t\\ \x1b[0m\n")).unwrap(), format!("{expected}\n"));
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let entry = parse(&line(b"a\xff\xfeb \xe2\x82 \xf0\x9f\x98\x80")).unwrap();
        assert_eq!(entry.text, "a\u{fffd}\u{fffd}b \u{fffd} \u{1f600}");
    }

    #[test]
    fn the_first_line_of_a_file_says_which_file_it_is_and_stays_an_entry() {
        let plain = line(b"text\n");
        for number in [1, u64::MAX] {
            let mark = file_mark(number);
            assert!(mark.len() <= LONGEST_FILE_MARK);
            let marked = [mark.as_bytes(), &plain[1..]].concat();
            assert_eq!(marked_number(&marked[..LONGEST_FILE_MARK]), Some(number));
            assert_eq!(parse(&marked), parse(&plain));
        }
        assert_eq!(marked_number(&plain), None);
        assert_eq!(marked_number(br#"{"file":1"#), None);
    }

    #[test]
    fn a_torn_line_is_no_entry() {
        let whole = line(b"text\n");
        assert!(parse(&whole[..whole.len() - 4]).is_none());
        assert!(parse(b"").is_none());
    }

    proptest! {
        #[test]
        fn every_text_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let out = line(&bytes);
            prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let entry = parse(&out).unwrap();
            prop_assert_eq!(entry.text, String::from_utf8_lossy(&bytes).into_owned());
            prop_assert_eq!(entry.time, SystemTime::UNIX_EPOCH + Duration::from_nanos(1_500_000_001));
        }

        #[test]
        fn the_fast_scan_finds_what_the_plain_one_finds(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let plain = bytes.iter().position(|byte| is_special(*byte)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_length(&bytes), plain);
        }
    }
}
