//! How a layer's tar stream is made again from its tree, to the byte.
//!
//! The store keeps trees and no tar streams. A tree alone does not say how its stream looked: the order of members,
//! which of tar's formats, what was padded with what. So the child that unpacks a layer writes down, beside the tree,
//! everything of the stream that is not the contents of a file, and for contents where in the tree they are:
//!
//! ```text
//! L length bytes              these bytes of the stream: headers, padding, the end
//! F path offset length        these bytes of that file
//! R path length bytes         what was taken from that file so far, since a later member replaced it
//! ```
//!
//! Numbers are little-endian, 64 bits; a path is its length and its bytes. The whole is one zstd stream, `recipe.zst`.
//! Whoever replays it checks the digest of the result, so a tree that was changed is found out.
//!
//! # Decisions
//! * Why not keep the blobs: they are a second copy of every image, compressed, for something that most hosts never need.
//!   A recipe is small: 1.5 MB for 47,163 members of a Debian `/usr/share`, which is 32 bytes each.
//! * Why not write a tree again and hope: only streams that were written here come out the same. Those need no recipe,
//!   and have none: layers of builds and commits are written again by the writer that made their digest.
//! * What was compressed is not kept: no compressor promises the same bytes in its next version. A layer that is sent
//!   somewhere is compressed anew; its diff id, which is what images are made of, stays.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::segment::Segment;

/// Its name beside the tree.
pub const NAME: &str = "recipe.zst";
/// The literal bytes that make up one step.
const LITERAL: usize = 64 << 10;
const BUFFER: usize = 256 << 10;
/// Of a path in a tree; the unpacker makes none that is longer.
const PATH_MAX: u64 = 8 << 10;

/// What is in a file, wherever that lies.
pub trait Contents {
    fn length(&self) -> io::Result<u64>;

    /// Like pread(2).
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Contents for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

/// Writes a recipe while a stream passes.
pub struct Recipe<W: Write> {
    to: zstd::Encoder<'static, W>,
    literal: Vec<u8>,
    /// Of the file that was announced, not yet passed.
    contents_left: u64,
    /// Files that are not one part from the beginning to the end.
    parts: HashMap<Vec<u8>, Vec<Segment>>,
    /// Further names of files, which nothing was taken from.
    links: HashSet<Vec<u8>>,
    /// Bytes that were not in the tree, so far.
    own: u64,
    replaced: u64,
}

impl<W: Write> Recipe<W> {
    pub fn new(to: W) -> io::Result<Recipe<W>> {
        Ok(Recipe {
            to: zstd::Encoder::new(to, 1)?,
            literal: Vec::with_capacity(LITERAL),
            contents_left: 0,
            parts: HashMap::new(),
            links: HashSet::new(),
            own: 0,
            replaced: 0,
        })
    }

    /// These bytes of the stream have passed.
    pub fn passed(&mut self, bytes: &[u8]) -> io::Result<()> {
        let contents = bytes.len().min(usize::try_from(self.contents_left).unwrap_or(usize::MAX));
        self.contents_left -= contents as u64;
        let mut rest = &bytes[contents..];
        self.own += rest.len() as u64;
        while !rest.is_empty() {
            let count = rest.len().min(LITERAL - self.literal.len());
            self.literal.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if self.literal.len() == LITERAL {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// A file whose contents are these parts, in this order, one after the other in the stream.
    pub fn begin_file(&mut self, path: &[u8], parts: &[Segment], is_whole: bool) {
        if !is_whole {
            self.parts.insert(path.to_vec(), parts.to_vec());
        }
    }

    /// The next bytes of the stream are this part of the file.
    pub fn contents(&mut self, path: &[u8], part: Segment) -> io::Result<()> {
        self.flush()?;
        if part.length > 0 {
            self.to.write_all(b"F")?;
            self.path(path)?;
            self.number(part.offset)?;
            self.number(part.length)?;
        }
        self.contents_left = part.length;
        Ok(())
    }

    /// A further name of a file.
    pub fn linked(&mut self, path: &[u8]) {
        self.links.insert(path.to_vec());
    }

    /// The file is about to be replaced: what was taken from it is kept here.
    pub fn replacing(&mut self, path: &[u8], file: &dyn Contents) -> io::Result<()> {
        if self.links.remove(path) {
            return Ok(());
        }
        let whole = [Segment { offset: 0, length: file.length()? }];
        let parts = self.parts.remove(path);
        let parts = parts.as_deref().unwrap_or(&whole);
        let length: u64 = parts.iter().map(|part| part.length).sum();
        if length == 0 {
            return Ok(());
        }
        self.flush()?;
        self.to.write_all(b"R")?;
        self.path(path)?;
        self.number(length)?;
        for part in parts {
            copy(file, *part, &mut self.to)?;
        }
        self.own += length;
        self.replaced += 1;
        Ok(())
    }

    /// Bytes that are kept here and in no file.
    pub fn own_bytes(&self) -> u64 {
        self.own
    }

    /// Ends it; how many files of the stream were replaced by later ones.
    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        self.to.finish()?.flush()?;
        Ok(self.replaced)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.literal.is_empty() {
            self.to.write_all(b"L")?;
            self.number(self.literal.len() as u64)?;
            self.to.write_all(&self.literal)?;
            self.literal.clear();
        }
        Ok(())
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        self.number(path.len() as u64)?;
        self.to.write_all(path)
    }

    fn number(&mut self, number: u64) -> io::Result<()> {
        self.to.write_all(&number.to_le_bytes())
    }
}

/// Copies a part of a file. One that has become shorter is an error.
fn copy(file: &dyn Contents, part: Segment, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(usize::try_from(part.length).unwrap_or(BUFFER))];
    let (mut at, mut left) = (part.offset, part.length);
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = file.read_at(&mut buffer[..wanted], at)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file of the layer is shorter than it was"));
        }
        to.write_all(&buffer[..count])?;
        at += count as u64;
        left -= count as u64;
    }
    Ok(())
}

/// One line of a recipe. Bytes that follow it are taken with [`Steps::take`].
enum Step {
    Literal(u64),
    Contents(Vec<u8>, Segment),
    Replaced(Vec<u8>, u64),
}

struct Steps<'a> {
    from: zstd::Decoder<'a, io::BufReader<&'a File>>,
}

impl<'a> Steps<'a> {
    fn new(recipe: &'a File) -> io::Result<Steps<'a>> {
        let mut at = recipe;
        at.seek(SeekFrom::Start(0))?;
        Ok(Steps { from: zstd::Decoder::new(recipe)? })
    }

    fn next(&mut self) -> io::Result<Option<Step>> {
        let mut kind = [0];
        if self.from.read(&mut kind)? == 0 {
            return Ok(None);
        }
        Ok(Some(match &kind {
            b"L" => Step::Literal(self.number()?),
            b"F" => {
                let path = self.path()?;
                Step::Contents(path, Segment { offset: self.number()?, length: self.number()? })
            }
            b"R" => {
                let path = self.path()?;
                Step::Replaced(path, self.number()?)
            }
            _ => return Err(damaged()),
        }))
    }

    fn take(&mut self, length: u64, to: &mut dyn Write) -> io::Result<()> {
        match io::copy(&mut (&mut self.from).take(length), to)? {
            count if count == length => Ok(()),
            _ => Err(damaged()),
        }
    }

    fn path(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        if length > PATH_MAX {
            return Err(damaged());
        }
        let mut path = vec![0; length as usize];
        self.from.read_exact(&mut path)?;
        Ok(path)
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.from.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the recipe of the layer is damaged")
}

/// Writes the stream that the recipe tells, from the tree and from itself. `replaced`: as [`Recipe::finish`] said;
/// `spool`: an empty file for what is read before it is needed, only where something was replaced.
pub fn replay(
    recipe: &File,
    tree: BorrowedFd<'_>,
    replaced: u64,
    spool: impl FnOnce() -> io::Result<File>,
    to: &mut dyn Write,
) -> io::Result<()> {
    let spilled = if replaced > 0 { Some(Spilled::read(recipe, spool()?)?) } else { None };
    let mut steps = Steps::new(recipe)?;
    let mut ordinal = 0;
    while let Some(step) = steps.next()? {
        match step {
            Step::Literal(length) => steps.take(length, to)?,
            Step::Replaced(_, length) => steps.take(length, &mut io::sink())?,
            Step::Contents(path, part) => {
                match spilled.as_ref().and_then(|spilled| Some((spilled, spilled.places.get(&ordinal)?))) {
                    Some((spilled, offset)) => {
                        copy(&spilled.file, Segment { offset: *offset, length: part.length }, &mut &mut *to)?;
                    }
                    None => copy(&open(tree, &path)?, part, &mut &mut *to)?,
                }
                ordinal += 1;
            }
        }
    }
    Ok(())
}

/// A file of the tree. The tree is a stranger's: no link is followed, and nothing but a file is opened.
fn open(tree: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = loop {
        match crate::sys::path::openat2(tree, path, flags, Mode::empty(), how) {
            // A rename anywhere on the host made the walk uncertain (openat2(2)).
            Err(Errno::AGAIN) => {}
            other => break other,
        }
    };
    let file = File::from(opened?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "a file of the layer is none any more")),
    }
}

/// What was taken from files that are not in the tree any more.
struct Spilled {
    file: File,
    /// By the number of the step that took it.
    places: HashMap<u64, u64>,
}

impl Spilled {
    fn read(recipe: &File, mut file: File) -> io::Result<Spilled> {
        let mut steps = Steps::new(recipe)?;
        let mut paths = HashSet::new();
        while let Some(step) = steps.next()? {
            match step {
                Step::Literal(length) => steps.take(length, &mut io::sink())?,
                Step::Contents(..) => {}
                Step::Replaced(path, length) => {
                    paths.insert(path);
                    steps.take(length, &mut file)?;
                }
            }
        }
        let (mut steps, mut ordinal, mut at) = (Steps::new(recipe)?, 0, 0);
        let mut taken: HashMap<Vec<u8>, Vec<(u64, u64)>> = HashMap::new();
        let mut places = HashMap::new();
        while let Some(step) = steps.next()? {
            match step {
                Step::Literal(length) => steps.take(length, &mut io::sink())?,
                Step::Contents(path, part) => {
                    if paths.contains(&path) {
                        taken.entry(path).or_default().push((ordinal, part.length));
                    }
                    ordinal += 1;
                }
                Step::Replaced(path, length) => {
                    let mut place = at;
                    for (ordinal, length) in taken.remove(&path).unwrap_or_default() {
                        places.insert(ordinal, place);
                        place += length;
                    }
                    at += length;
                    steps.take(length, &mut io::sink())?;
                }
            }
        }
        Ok(Spilled { file, places })
    }
}
