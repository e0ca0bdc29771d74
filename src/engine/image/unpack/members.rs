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

use super::fields::{BLOCK, Block, Pair, check_sum, header_path, number, pax_records, pax_time, text};
use super::report::{Problem, show};
use super::sparse;
use super::xattrs;
use crate::engine::image::segment::Segment;

/// Long names have at most 4096 bytes, but a PAX body also carries extended attributes of up to 64 KiB each.
const HEADER_BODY_MAX: u64 = 1 << 20;
const MAJOR_MAX: u32 = 0xfff;
const MINOR_MAX: u32 = 0xf_ffff;
/// Before the names of extended attributes in PAX headers (star(5)).
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Bytes that can be read, and passed over without reading where that is cheaper.
pub trait Stream: Read {
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// A stream whose bytes can be had where they lie.
pub trait Lending {
    /// Some of the next bytes, at most so many, which are passed with that; none at the end.
    fn lend(&mut self, most: usize) -> io::Result<&[u8]>;
}

impl Stream for &[u8] {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= self.len());
        *self = &self[bytes.ok_or(io::ErrorKind::UnexpectedEof)?..];
        Ok(())
    }
}

impl Lending for &[u8] {
    fn lend(&mut self, most: usize) -> io::Result<&[u8]> {
        let (lent, rest) = self.split_at(most.min(self.len()));
        *self = rest;
        Ok(lent)
    }
}

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
    /// Those that are kept, each once.
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

    /// The same without copying them.
    pub fn lend_body(&mut self, most: u64) -> Result<&[u8], Problem>
    where
        S: Lending,
    {
        let wanted = usize::try_from(self.remaining.min(most)).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(&[]);
        }
        let bytes = self.stream.lend(wanted).map_err(unreadable)?;
        if bytes.is_empty() {
            return Err(ends_early());
        }
        self.remaining -= bytes.len() as u64;
        self.position += bytes.len() as u64;
        Ok(bytes)
    }

    fn member(&mut self, header: &Block, size: u64, extensions: &Extensions) -> Result<Member, Problem> {
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
        // The largest number is -1 to chown(2), "as it is": the file would stay root's.
        let owner =
            |what: &str, declared: Option<i64>, range: std::ops::Range<usize>| match field(what, declared, range)? {
                u32::MAX => {
                    Err(Problem::new(format!("`{}` has no valid {what}: {} is nobody's", show(&path), u32::MAX)))
                }
                number => Ok(number),
            };
        let modified = match extensions.get("mtime") {
            Some(value) => pax_time(value),
            None => number(&header[136..148]).map(|seconds| (seconds, 0)),
        };
        let no_time = || Problem::new(format!("`{}` has no valid modification time", show(&path)));
        let xattrs =
            extensions.pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?, value.as_slice())));
        let xattrs = xattrs::chosen(xattrs).map_err(|(key, errno)| xattrs::problem(&path, key, errno))?;
        Ok(Member {
            kind,
            link,
            mode: field("mode", None, 100..108)? & 0o7777,
            uid: owner("owner", extensions.number("uid")?, 108..116)?,
            gid: owner("group", extensions.number("gid")?, 116..124)?,
            modified: modified.ok_or_else(no_time)?,
            device: match kind {
                Kind::Character | Kind::Block => {
                    let (major, minor) = (field("device", None, 329..337)?, field("device", None, 337..345)?);
                    // More the kernel cuts off (12 and 20 bits), and what is left may be a mark of overlayfs.
                    if major > MAJOR_MAX || minor > MINOR_MAX {
                        let problem = format!("`{}` has no valid device: {major}:{minor} is none", show(&path));
                        return Err(Problem::new(problem));
                    }
                    (major, minor)
                }
                _ => (0, 0),
            },
            xattrs,
            size: self.remaining,
            sparse,
            path,
        })
    }

    /// The map of a sparse file, in whichever of GNU's four forms it comes.
    fn sparse_map(
        &mut self,
        header: &Block,
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
            let (mut text, mut lines) = (Vec::new(), 0);
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
                lines += block.iter().filter(|byte| **byte == b'\n').count();
                // Once, when all of it is there: read again with every block, a long map would take its square.
                if lines >= sparse::listed_lines(&text)? {
                    break sparse::listed_segments(&text)?;
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
        // Of what is written down of it while it passes.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Problem::DiskFull,
        _ => Problem::new(format!("the stream cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a newline in it.
    const CAPABILITY: [u8; 20] = [1, 0, 0, 2, b'\n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Problem> {
        let mut members = Members::new(bytes);
        let mut all = Vec::new();
        while let Some(member) = members.next()? {
            let (mut body, mut buffer) = (Vec::new(), [0; 700]);
            loop {
                match members.read_body(&mut buffer)? {
                    0 => break,
                    count => body.extend_from_slice(&buffer[..count]),
                }
            }
            all.push((member, body));
        }
        Ok(all)
    }

    /// Every kind of header that there is.
    fn sample() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o640);
        tar.append_data(&mut header, "n".repeat(150), &b"hello"[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        let capability = CAPABILITY.as_slice();
        tar.append_pax_extensions([("mtime", &b"1.5"[..]), ("SCHILY.xattr.security.capability", capability)]).unwrap();
        tar.append_link(&mut header, "link", "target").unwrap();
        let mut sparse = tar::Header::new_gnu();
        sparse.set_entry_type(tar::EntryType::GNUSparse);
        sparse.set_size(3);
        let gnu = sparse.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(512);
        gnu.sparse[0].set_length(3);
        gnu.set_real_size(600);
        tar.append_data(&mut sparse, "sparse", &b"abc"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn headers_of_every_kind_are_read() {
        let all = read(&sample()).unwrap();
        assert_eq!((all[0].0.path.len(), all[0].0.mode, all[0].1.as_slice()), (150, 0o640, b"hello".as_slice()));
        assert_eq!(
            (all[1].0.kind, all[1].0.link.as_slice(), all[1].0.modified),
            (Kind::SymbolicLink, b"target".as_slice(), (1, 500_000_000))
        );
        assert_eq!(all[1].0.xattrs[0].1, CAPABILITY);
        assert_eq!(all[2].0.sparse, Some((vec![Segment { offset: 512, length: 3 }], 600)));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn whatever_is_damaged_is_an_error_and_never_a_panic() {
        let good = sample();
        for at in (0..good.len()).step_by(5) {
            for bits in [0x01, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= bits;
                // Once with the checksum wrong, and once set right again, so that the damage is met.
                let _ = read(&bytes);
                let start = at / BLOCK * BLOCK;
                let mut header = tar::Header::from_byte_slice(&bytes[start..start + BLOCK]).clone();
                header.set_cksum();
                bytes[start..start + BLOCK].copy_from_slice(header.as_bytes());
                let _ = read(&bytes);
            }
            let _ = read(&good[..at]);
        }
    }
}
