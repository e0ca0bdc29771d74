//! Fields of tar headers: numbers, names, checksums, PAX records.

use super::report::Problem;

/// A header; contents are padded to a multiple of it.
pub type Block = [u8; BLOCK];
pub const BLOCK: usize = 512;

/// Key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The sum over the header with the sum's own field taken as blanks; some old writers added signed bytes.
pub fn check_sum(header: &Block) -> Result<(), Problem> {
    let bytes = || header[..148].iter().chain([b' '; 8].iter()).chain(&header[156..]);
    let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = bytes().map(|byte| i64::from(*byte as i8)).sum();
    match number(&header[148..156]) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(Problem::new("it is not a tar archive, or is damaged: the checksum of a header is wrong")),
    }
}

/// The bytes before the first zero.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Name and prefix. The prefix's place holds other things in GNU's own format (magic `ustar  `).
pub fn header_path(header: &Block) -> Vec<u8> {
    let name = text(&header[..100]);
    match &header[257..263] == b"ustar\0" && header[345] != 0 {
        true => [text(&header[345..500]), b"/", name].concat(),
        false => name.to_vec(),
    }
}

/// A numeric field: octal digits between blanks, or a big-endian number behind a set high bit.
pub fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        // Two's complement in the bits behind the marker: sign-extend from the second-highest bit.
        let negative = field[0] & 0x40 != 0;
        let start = if negative { i128::from(field[0]) - 0x100 } else { i128::from(field[0] & 0x7f) };
        let value =
            field[1..].iter().try_fold(start, |value, byte| value.checked_mul(256)?.checked_add(i128::from(*byte)));
        return i64::try_from(value?).ok();
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| !matches!(byte, b' ' | 0));
    digits.copied().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// `LENGTH KEY=VALUE\n`, one after the other, where LENGTH counts the whole record.
pub fn pax_records(mut body: &[u8]) -> Result<Vec<Pair>, Problem> {
    let mut records = Vec::new();
    // Some writers pad the body with zeros.
    while body.first().is_some_and(|byte| *byte != 0) {
        let record = pax_record(body).ok_or_else(|| Problem::new("a PAX header is malformed"))?;
        records.push((record.key.to_vec(), record.value.to_vec()));
        body = record.rest;
    }
    Ok(records)
}

struct PaxRecord<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

fn pax_record(body: &[u8]) -> Option<PaxRecord<'_>> {
    let blank = body.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&body[..blank]).ok()?.parse().ok()?;
    let record = body.get(blank + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    (equals > 0).then(|| PaxRecord { key: &record[..equals], value: &record[equals + 1..], rest: &body[length..] })
}

/// Seconds with a fraction of any length; digits behind the ninth are dropped.
pub fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    match value.starts_with('-') && nanoseconds > 0 {
        // -1.25 is a quarter after -2.
        true => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"77777777777", Some(0o77777777777)),
            (b"\x80\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xfe", Some(-2)),
            (b"0008", None),
            (b"-1", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn pax_values_may_hold_anything() {
        let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        let body = b"6 a=b\n8 x=\n=\n\n5 y=\n\0\0";
        assert_eq!(pax_records(body).unwrap(), [pair(b"a", b"b"), pair(b"x", b"\n=\n"), pair(b"y", b"")]);
        for body in [
            &b"x"[..],
            b"9 a=b\n",
            b"5 a=b\n",
            b"4 a\n\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b" a=b\n",
            b"2 a=b\n",
        ] {
            assert!(pax_records(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn times_have_fractions_of_any_length() {
        for (text, expected) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("1.1234567891", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("-3", Some((-3, 0))),
            ("x", None),
            ("1.x", None),
            ("1.-5", None),
        ] {
            assert_eq!(pax_time(text.as_bytes()), expected, "{text}");
        }
    }
}
