//! Reading tar streams: ustar, PAX and GNU headers.
//!
//! Written for streams that somebody hostile made: every header body has a size limit, PAX records are read by their
//! length (a value may hold newlines: `security.capability` does), and where readers disagree the choice is that of
//! Go's `archive/tar`, because registries' scanners and the other engines read with it, and an image must not be two
//! images. Hence: links, directories and devices have no body, whatever their size field says; a GNU long name beats a
//! PAX path; global PAX headers are skipped.
//!
//! Formats: pax(1) "pax Interchange Format", tar(5), GNU tar's manual "Basic Tar Format" and "Storing Sparse Files".

use std::io::{self, Read};

use super::report::{Problem, show};
use super::sparse::{self, Segment};

const BLOCK: usize = 512;
/// Long names have at most 4096 bytes, but a PAX body also carries extended attributes of up to 64 KiB each.
const HEADER_BODY_MAX: u64 = 1 << 20;

/// Bytes that can be read, and passed over without reading where that is cheaper.
pub trait Stream: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// Key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    SymbolicLink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// One member of an archive. Its body, if it has one, is read from [`Members`] before the next is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub kind: Kind,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    /// Permission bits with set-ID and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<Pair>,
    /// Bytes of the body in the archive.
    pub size: u64,
    /// Where the body's bytes go, if not from the beginning to the end; and the file's length.
    pub sparse: Option<(Vec<Segment>, u64)>,
}

pub struct Members<S> {
    stream: S,
    /// Of the current member's body, not yet read.
    remaining: u64,
    /// Zeros after it, up to the next block.
    padding: u64,
    /// Bytes passed so far.
    position: u64,
}

/// Records of the header members that describe the next real one.
#[derive(Default)]
struct Extensions {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Vec<Pair>,
}

impl Extensions {
    /// The last value of a key; an empty one takes the key back.
    fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.pax.iter().rev().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| Problem::new(format!("a PAX header says `{key}={}`", value.escape_ascii())))
    }
}

impl<S: Stream> Members<S> {
    pub fn new(stream: S) -> Members<S> {
        Members { stream, remaining: 0, padding: 0, position: 0 }
    }

    /// Where the next byte of the stream is.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next member, or nothing at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Member>, Problem> {
        let mut extensions = Extensions::default();
        let mut pending = false;
        loop {
            let at_end = !self.skip_rest()?;
            let mut header = [0u8; BLOCK];
            let filled = if at_end { 0 } else { self.fill(&mut header)? };
            if filled == 0 || header == [0; BLOCK] {
                return match pending {
                    true => Err(Problem::new("the archive ends after a header that describes a further member")),
                    false => Ok(None),
                };
            }
            if filled < BLOCK {
                return Err(ends_early());
            }
            check_sum(&header)?;
            let size = number(&header[124..136])
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| Problem::new("a header has no valid size"))?;
            match header[156] {
                b'L' => extensions.long_path = Some(text(&self.header_body(size)?).to_vec()),
                b'K' => extensions.long_link = Some(text(&self.header_body(size)?).to_vec()),
                b'x' => extensions.pax = pax_records(&self.header_body(size)?)?,
                // Global headers; and GNU's volume labels, which say nothing of a file.
                b'g' | b'V' => {
                    self.begin_body(size)?;
                    continue;
                }
                _ => return self.member(&header, size, &extensions).map(Some),
            }
            pending = true;
        }
    }

    /// Bytes of the stream, whatever they are.
    pub fn read_raw(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let count = self.stream.read(buffer).map_err(unreadable)?;
        self.position += count as u64;
        Ok(count)
    }

    /// Bytes of the current member's body; 0 at its end.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let wanted = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..wanted]).map_err(unreadable)?;
        if count == 0 {
            return Err(ends_early());
        }
        self.remaining -= count as u64;
        self.position += count as u64;
        Ok(count)
    }

    fn member(&mut self, header: &[u8; BLOCK], size: u64, extensions: &Extensions) -> Result<Member, Problem> {
        let mut path = match (&extensions.long_path, extensions.get("path")) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => path.to_vec(),
            (None, None) => header_path(header),
        };
        let link = match (&extensions.long_link, extensions.get("linkpath")) {
            (Some(link), _) => link.clone(),
            (None, Some(link)) => link.to_vec(),
            (None, None) => text(&header[157..257]).to_vec(),
        };
        let kind = match header[156] {
            // Before ustar a directory was a file with a slash at the end.
            b'0' | 0 | b'7' | b'S' if path.ends_with(b"/") => Kind::Directory,
            // `7` is a contiguous file, `S` a sparse one.
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                let (kind, path) = (other.escape_ascii(), show(&path));
                return Err(Problem::new(format!("`{path}` is of the unknown kind `{kind}`")));
            }
        };
        if let Some(bad) = [&path, &link].into_iter().find(|name| name.contains(&0)) {
            return Err(Problem::new(format!("the name `{}` holds a zero byte", show(bad))));
        }
        let size = extensions.number("size")?.unwrap_or(size);
        self.begin_body(if kind == Kind::File { size } else { 0 })?;
        let sparse = match kind {
            Kind::File => self.sparse_map(header, extensions, &mut path)?,
            _ => None,
        };
        let field = |what: &str, declared: Option<i64>, range: std::ops::Range<usize>| -> Result<u32, Problem> {
            let value = declared.or_else(|| number(&header[range])).and_then(|value| u32::try_from(value).ok());
            value.ok_or_else(|| Problem::new(format!("`{}` has no valid {what}", show(&path))))
        };
        let modified = match extensions.get("mtime") {
            Some(value) => pax_time(value),
            None => number(&header[136..148]).map(|seconds| (seconds, 0)),
        };
        let no_time = || Problem::new(format!("`{}` has no valid modification time", show(&path)));
        let xattr =
            |(key, value): &(Vec<u8>, Vec<u8>)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()));
        Ok(Member {
            kind,
            link,
            mode: field("mode", None, 100..108)? & 0o7777,
            uid: field("owner", extensions.number("uid")?, 108..116)?,
            gid: field("group", extensions.number("gid")?, 116..124)?,
            modified: modified.ok_or_else(no_time)?,
            device: match kind {
                Kind::Character | Kind::Block => (field("device", None, 329..337)?, field("device", None, 337..345)?),
                _ => (0, 0),
            },
            xattrs: extensions.pax.iter().filter_map(xattr).collect(),
            size: self.remaining,
            sparse,
            path,
        })
    }

    /// The map of a sparse file, in whichever of GNU's four forms it comes.
    fn sparse_map(
        &mut self,
        header: &[u8; BLOCK],
        extensions: &Extensions,
        path: &mut Vec<u8>,
    ) -> Result<Option<(Vec<Segment>, u64)>, Problem> {
        let (segments, length) = if header[156] == b'S' {
            let mut segments = sparse::old_segments(&header[386..482])?;
            let mut extended = header[482] != 0;
            while extended {
                let mut block = [0u8; BLOCK];
                // These blocks come before the body and are not counted in its size.
                if self.fill(&mut block)? < BLOCK {
                    return Err(ends_early());
                }
                segments.extend(sparse::old_segments(&block[..504])?);
                sparse::check_count(&segments)?;
                extended = block[504] != 0;
            }
            let length = number(&header[483..495]).and_then(|length| u64::try_from(length).ok());
            (segments, length.ok_or_else(|| Problem::new("a sparse file has no valid length"))?)
        } else if extensions.get("GNU.sparse.major") == Some(b"1") {
            let mut text = Vec::new();
            let mut block = [0u8; BLOCK];
            let segments = loop {
                let mut filled = 0;
                while filled < BLOCK {
                    match self.read_body(&mut block[filled..])? {
                        0 => return Err(Problem::new("a sparse file ends within its map")),
                        count => filled += count,
                    }
                }
                text.extend_from_slice(&block);
                if let Some(segments) = sparse::listed_segments(&text)? {
                    break segments;
                }
                if text.len() as u64 > HEADER_BODY_MAX {
                    return Err(Problem::new("the map of a sparse file is too large"));
                }
            };
            (segments, extensions.number("GNU.sparse.realsize")?.unwrap_or(0))
        } else if let Some(map) = extensions.get("GNU.sparse.map") {
            (sparse::map_segments(map)?, extensions.number("GNU.sparse.size")?.unwrap_or(0))
        } else if let Some(length) = extensions.number("GNU.sparse.size")? {
            (sparse::paired_segments(&extensions.pax)?, length)
        } else {
            return Ok(None);
        };
        if let Some(name) = extensions.get("GNU.sparse.name") {
            *path = name.to_vec();
        }
        sparse::check(&segments, self.remaining, length)?;
        Ok(Some((segments, length)))
    }

    fn begin_body(&mut self, size: u64) -> Result<(), Problem> {
        // No stream is longer than this, and sums stay far from the end of the numbers.
        if size > 1 << 60 {
            return Err(Problem::new("a header has no valid size"));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn header_body(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        if size > HEADER_BODY_MAX {
            return Err(Problem::new(format!("a header of {size} bytes is longer than the {HEADER_BODY_MAX} allowed")));
        }
        self.begin_body(size)?;
        let mut body = vec![0; size as usize];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.read_body(&mut body[filled..])?;
        }
        Ok(body)
    }

    /// Passes over what is left of the body, and over the zeros after it. `false` if the stream ends within these: some
    /// writers leave them out after the last member, and Go's reader takes that for the end.
    fn skip_rest(&mut self) -> Result<bool, Problem> {
        let (body, padding) = (self.remaining, self.padding as usize);
        (self.remaining, self.padding) = (0, 0);
        self.position += body;
        self.stream.skip(body).map_err(unreadable)?;
        Ok(self.fill(&mut [0; BLOCK][..padding])? == padding)
    }

    /// Reads until the buffer is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Problem> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]).map_err(unreadable)? {
                0 => break,
                count => filled += count,
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }
}

fn ends_early() -> Problem {
    Problem::new("the archive ends within a member")
}

fn unreadable(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::new("the stream ends early"),
        _ => Problem::new(format!("the stream cannot be read: {error}")),
    }
}

/// The sum over the header with the sum's own field taken as blanks; some old writers added signed bytes.
fn check_sum(header: &[u8; BLOCK]) -> Result<(), Problem> {
    let bytes = || header[..148].iter().chain([b' '; 8].iter()).chain(&header[156..]);
    let unsigned: i64 = bytes().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = bytes().map(|byte| i64::from(*byte as i8)).sum();
    match number(&header[148..156]) {
        Some(sum) if sum == unsigned || sum == signed => Ok(()),
        _ => Err(Problem::new("it is not a tar archive, or is damaged: the checksum of a header is wrong")),
    }
}

/// The bytes before the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Name and prefix. The prefix's place holds other things in GNU's own format (magic `ustar  `).
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    match &header[257..263] == b"ustar\0" && header[345] != 0 {
        true => [text(&header[345..500]), b"/", name].concat(),
        false => name.to_vec(),
    }
}

/// A numeric field: octal digits between blanks, or a big-endian number behind a set high bit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
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
fn pax_records(mut body: &[u8]) -> Result<Vec<Pair>, Problem> {
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
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
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
