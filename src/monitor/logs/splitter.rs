//! A stream of bytes becomes lines.

use super::entry::Stream;
use super::writer::{Batch, Writer};
use crate::monitor::clock::Now;

/// A longer line is logged in pieces, as in Docker.
const LONGEST_PIECE: usize = 16 * 1024;

/// Keeps the beginning of a line until its end comes.
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    pending: Vec<u8>,
}

impl Splitter {
    pub fn new(stream: Stream) -> Splitter {
        Splitter { stream, pending: Vec::new() }
    }

    /// Takes what was read at `now` and writes the lines that are whole. All of them get this time: they came in one
    /// read.
    pub fn take(&mut self, mut bytes: &[u8], now: Now, writer: &mut Writer) {
        let mut batch = writer.begin(now, self.stream);
        if !self.pending.is_empty() {
            let (line, rest) = split_line(bytes);
            self.pending.extend_from_slice(line);
            bytes = rest;
            if self.pending.ends_with(b"\n") {
                // Freed, not kept: most containers write whole lines, and a monitor should be small when idle.
                write_line(&mut batch, &std::mem::take(&mut self.pending));
            }
        }
        while !bytes.is_empty() {
            let (line, rest) = split_line(bytes);
            if !line.ends_with(b"\n") {
                self.pending.extend_from_slice(line);
                break;
            }
            write_line(&mut batch, line);
            bytes = rest;
        }
        while self.pending.len() > LONGEST_PIECE {
            let end = piece_end(&self.pending);
            batch.entry(&self.pending[..end]);
            self.pending.drain(..end);
        }
        batch.flush();
    }

    /// The stream ended: what is left is the last entry.
    pub fn finish(&mut self, now: Now, writer: &mut Writer) {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            let mut batch = writer.begin(now, self.stream);
            batch.entry(&rest);
            batch.flush();
        }
    }
}

fn write_line(batch: &mut Batch<'_>, mut line: &[u8]) {
    while line.len() > LONGEST_PIECE {
        let (piece, rest) = line.split_at(piece_end(line));
        batch.entry(piece);
        line = rest;
    }
    batch.entry(line);
}

/// Where the first piece of a text longer than [`LONGEST_PIECE`] ends: not inside a UTF-8 character, if it can be
/// helped.
fn piece_end(text: &[u8]) -> usize {
    let is_continuation = |at: usize| text[at] & 0b1100_0000 == 0b1000_0000;
    (LONGEST_PIECE - 3..=LONGEST_PIECE).rev().find(|at| !is_continuation(*at)).unwrap_or(LONGEST_PIECE)
}

/// Up to and with the first newline, and the rest.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = find_newline(bytes).map_or(bytes.len(), |at| at + 1);
    bytes.split_at(end)
}

/// memchr(3) for one byte; the lane trick of `entry::plain_length`.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let lanes = u64::from_le_bytes(*eight) ^ (ONES * u64::from(b'\n'));
        let hits = lanes.wrapping_sub(ONES) & !lanes & (ONES << 7);
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    bytes[at..].iter().position(|byte| *byte == b'\n').map(|offset| at + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::Logging;
    use crate::monitor::logs::{Reader, Selection};
    use proptest::prelude::*;

    /// What is logged of a stream that arrives in these chunks.
    fn logged(chunks: &[&[u8]]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(directory.path().to_owned(), Logging::default());
        let mut splitter = Splitter::new(Stream::Stdout);
        for chunk in chunks {
            splitter.take(chunk, Now::read(), &mut writer);
        }
        splitter.finish(Now::read(), &mut writer);
        let mut reader = Reader::open(directory.path(), &Selection::default()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap())
            .map(|passage| passage.into_entry().expect("nothing is lost").text)
            .collect()
    }

    #[test]
    fn lines_are_put_together_and_the_last_words_kept() {
        assert_eq!(
            logged(&[b"one\ntw", b"o\n", b"\nthree\nfo", b"u", b"r"]),
            ["one\n", "two\n", "\n", "three\n", "four"]
        );
    }

    #[test]
    fn a_long_line_comes_in_pieces_that_do_not_cut_characters() {
        let line = "\u{e9}".repeat(20_000) + "\n";
        let long_line = format!("x{line}");
        for chunks in [vec![long_line.as_bytes()], long_line.as_bytes().chunks(1000).collect()] {
            let pieces = logged(&chunks);
            assert_eq!(pieces.concat(), long_line);
            assert_eq!(pieces.len(), 3);
            assert!(pieces.iter().all(|piece| piece.len() <= LONGEST_PIECE));
            assert!(pieces[..2].iter().all(|piece| !piece.ends_with('\n')));
        }
    }

    proptest! {
        #[test]
        fn however_it_is_chunked_every_byte_is_logged_once(
            text in "[a-z\n]{0,300}", cuts in proptest::collection::vec(0_usize..300, 0..10),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
            let lines = logged(&chunks);
            prop_assert_eq!(lines.concat(), text.clone());
            prop_assert_eq!(lines, text.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
