//! The maps of sparse files: which parts of a file its bytes in the archive are. GNU tar has had four forms.

use super::fields::{Pair, number};
use super::report::Problem;
use crate::engine::image::segment::Segment;

const SEGMENTS_MAX: usize = 100_000;
/// Digits of the largest number there is.
const LONGEST_NUMBER: usize = 20;

/// The format before PAX: pairs of 12-byte fields in the header and in blocks behind it.
pub fn old_segments(fields: &[u8]) -> Result<Vec<Segment>, Problem> {
    let mut segments = Vec::new();
    for pair in fields.chunks_exact(24).take_while(|pair| pair[12] != 0) {
        let value = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok()).ok_or_else(malformed);
        segments.push(Segment { offset: value(&pair[..12])?, length: value(&pair[12..])? });
    }
    Ok(segments)
}

/// Version 0.0: `GNU.sparse.offset` and `GNU.sparse.numbytes` again and again.
pub fn paired_segments(records: &[Pair]) -> Result<Vec<Segment>, Problem> {
    let values =
        |key: &'static [u8]| records.iter().filter(move |(name, _)| name == key).map(|(_, value)| decimal(value));
    let (offsets, lengths) = (values(b"GNU.sparse.offset"), values(b"GNU.sparse.numbytes"));
    offsets.zip(lengths).map(|(offset, length)| Ok(Segment { offset: offset?, length: length? })).collect()
}

/// Version 0.1: `OFFSET,LENGTH,OFFSET,LENGTH,..`.
pub fn map_segments(map: &[u8]) -> Result<Vec<Segment>, Problem> {
    let values: Vec<u64> = map.split(|byte| *byte == b',').map(decimal).collect::<Result<_, _>>()?;
    match values.len() % 2 {
        0 => Ok(pairs(&values)),
        _ => Err(malformed()),
    }
}

/// Version 1.0: lines at the beginning of the body: how many segments, then offset and length of each. `text` holds
/// all of [`listed_lines`].
pub fn listed_segments(text: &[u8]) -> Result<Vec<Segment>, Problem> {
    let lines = text.split(|byte| *byte == b'\n').take(listed_lines(text)?).skip(1);
    let values: Vec<u64> = lines.map(decimal).collect::<Result<_, _>>()?;
    Ok(pairs(&values))
}

/// How many lines a map of version 1.0 has, which begins with this text.
pub fn listed_lines(text: &[u8]) -> Result<usize, Problem> {
    let count = text.iter().take(LONGEST_NUMBER + 1).position(|byte| *byte == b'\n').ok_or_else(malformed)?;
    let count = decimal(&text[..count])?;
    if count > SEGMENTS_MAX as u64 {
        return Err(malformed());
    }
    Ok(1 + count as usize * 2)
}

pub fn check_count(segments: &[Segment]) -> Result<(), Problem> {
    if segments.len() > SEGMENTS_MAX { Err(malformed()) } else { Ok(()) }
}

/// Segments ascend without overlap within the file, and together are what the archive holds.
pub fn check(segments: &[Segment], size: u64, length: u64) -> Result<(), Problem> {
    check_count(segments)?;
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err(malformed());
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(malformed)?;
        sum = sum.checked_add(segment.length).ok_or_else(malformed)?;
    }
    match end <= length && sum == size {
        true => Ok(()),
        false => Err(malformed()),
    }
}

fn pairs(values: &[u64]) -> Vec<Segment> {
    values.chunks_exact(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect()
}

fn decimal(text: &[u8]) -> Result<u64, Problem> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> Problem {
    Problem::new("the map of a sparse file is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: [Segment; 2] = [Segment { offset: 0, length: 5 }, Segment { offset: 4096, length: 7 }];

    #[test]
    fn all_forms_of_a_map_say_the_same() {
        let record = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        let records = [
            record("GNU.sparse.offset", "0"),
            record("GNU.sparse.numbytes", "5"),
            record("GNU.sparse.offset", "4096"),
            record("GNU.sparse.numbytes", "7"),
        ];
        assert_eq!(paired_segments(&records).unwrap(), MAP);
        assert_eq!(map_segments(b"0,5,4096,7").unwrap(), MAP);
        assert_eq!(listed_segments(b"2\n0\n5\n4096\n7\n\0\0\0").unwrap(), MAP);
        assert_eq!((listed_lines(b"2\n0\n5\n40").unwrap(), listed_lines(b"0\n").unwrap()), (5, 1));
        let fields = b"00000000000\x0000000000005\x0000000010000\x0000000000007\0";
        assert_eq!(old_segments(fields).unwrap(), MAP);
    }

    #[test]
    fn maps_that_lie_are_refused() {
        assert!(check(&MAP, 12, 5000).is_ok());
        assert!(check(&MAP, 13, 5000).is_err(), "not what the archive holds");
        assert!(check(&MAP, 12, 4000).is_err(), "beyond the end");
        assert!(check(&[MAP[1], MAP[0]], 12, 5000).is_err(), "backwards");
        assert!(check(&[Segment { offset: u64::MAX, length: 2 }], 2, u64::MAX).is_err());
        assert!(map_segments(b"0,5,1").is_err());
        for text in [&b"99999999999\n"[..], b"2", b"", b"\n0\n", &[b'0'; 512]] {
            assert!(listed_lines(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
