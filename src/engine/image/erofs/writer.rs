//! An image that grows while a stream passes.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;

use rustix::io::Errno;

use super::directory::{self, Named};
use super::inode::{self, Inode, LINKS_AT, Layout, Look, SIZE};
use super::space::Space;
use super::superblock::{self, ROOT_AT, SUPERBLOCK_AT};
use super::{BLOCK, SLOT};
use crate::engine::image::segment::Segment;

/// Room for it and for all the attributes that an inode can have; what is not needed of it is a hole in the file.
const ROOT_MAX: u64 = 65 * BLOCK;
const FIRST_FREE: u64 = (ROOT_AT + ROOT_MAX) / BLOCK;
/// The file is made longer by so much at once: a write beyond its end would be an update of its size each time.
const GROWTH: u64 = 64 << 20;
/// Chunks in a list of them: some for each file, and more for one whose parts are many.
const CHUNKS: u64 = 256;
const CHUNKS_PER_PART: u64 = 4;
/// The address of a chunk that has no contents.
const HOLE: u32 = u32::MAX;

/// What an inode is, with the numbers that directories write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File = 1,
    Directory = 2,
    Character = 3,
    Block = 4,
    Fifo = 5,
    Link = 7,
}

impl Kind {
    /// `S_IFMT` bits (inode(7)).
    pub fn bits(self) -> u32 {
        match self {
            Kind::File => 0o100_000,
            Kind::Directory => 0o040_000,
            Kind::Character => 0o020_000,
            Kind::Block => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Link => 0o120_000,
        }
    }
}

/// The contents of a file before they come.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    pub length: u64,
    /// Of a file with holes: where it has none.
    pub parts: Option<&'a [Segment]>,
}

/// A file whose contents are coming.
pub struct Body {
    attributes: Vec<u8>,
    length: u64,
    place: Place,
}

enum Place {
    /// What is behind `whole` bytes goes behind the inode, or else `tail` stays empty.
    Flat {
        first: u32,
        whole: u64,
        tail: Vec<u8>,
    },
    Chunks {
        exponent: u8,
        map: Vec<u32>,
    },
}

/// A directory that has a number and no contents yet.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    at: u64,
    layout: Layout,
    size: u64,
}

impl Placed {
    pub fn number(&self) -> u64 {
        self.at / SLOT
    }
}

/// A name in a directory.
pub struct Listed<'a> {
    pub name: &'a [u8],
    pub number: u64,
    pub kind: Kind,
}

/// Why something could not be written.
#[derive(Debug)]
pub enum Refused {
    /// This attribute.
    Attribute(Vec<u8>, Errno),
    Other(Errno),
}

impl Refused {
    pub fn errno(self) -> Errno {
        match self {
            Refused::Attribute(_, errno) | Refused::Other(errno) => errno,
        }
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused::Other(errno)
    }
}

/// Inodes are known by their numbers.
pub struct Writer {
    file: File,
    space: Space,
    /// How long the file is.
    length: u64,
    inodes: u64,
    /// Of those that have, or had, more than one.
    links: HashMap<u64, u32>,
}

impl Writer {
    /// Writes into an empty file.
    pub fn new(file: File) -> Writer {
        Writer { file, space: Space::from(FIRST_FREE), length: 0, inodes: 0, links: HashMap::new() }
    }

    /// Makes room for a file.
    pub fn begin_file(&mut self, look: &Look<'_>, shape: Shape<'_>) -> Result<Body, Refused> {
        let attributes = attributes(look)?;
        let length = shape.length;
        let place = match shape.parts {
            Some(parts) if length > 0 => self.chunks(length, parts)?,
            _ => {
                let (layout, whole) = self.flat(SIZE + attributes.len(), length)?;
                let (Layout::Inline { first } | Layout::Plain { first }) = layout else {
                    return Err(Errno::INVAL.into());
                };
                let whole = if matches!(layout, Layout::Inline { .. }) { whole } else { length };
                Place::Flat { first, whole, tail: vec![0; (length - whole) as usize] }
            }
        };
        Ok(Body { attributes, length, place })
    }

    /// Writes a part of a file's contents, which is within its length and where it has no hole.
    pub fn write(&mut self, body: &mut Body, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let (address, most) = match &mut body.place {
                Place::Flat { whole, tail, .. } if at >= *whole => {
                    let from = usize::try_from(at - *whole).map_err(|_| Errno::FBIG)?;
                    let into = tail.get_mut(from..from + bytes.len()).ok_or(Errno::FBIG)?;
                    into.copy_from_slice(bytes);
                    return Ok(());
                }
                Place::Flat { first, whole, .. } => (u64::from(*first) * BLOCK + at, *whole - at),
                Place::Chunks { exponent, map } => {
                    let size = BLOCK << *exponent;
                    let first = map.get((at / size) as usize).filter(|first| **first != HOLE).ok_or(Errno::FBIG)?;
                    (u64::from(*first) * BLOCK + at % size, size - at % size)
                }
            };
            let count = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
            self.put(&bytes[..count], address)?;
            bytes = &bytes[count..];
            at += count as u64;
        }
        Ok(())
    }

    /// Writes the inode of a file whose contents are there; its number.
    pub fn end_file(&mut self, body: Body, look: &Look<'_>) -> Result<u64, Errno> {
        let (layout, tail) = match body.place {
            Place::Flat { first, tail, .. } if tail.is_empty() => (Layout::Plain { first }, tail),
            Place::Flat { first, tail, .. } => (Layout::Inline { first }, tail),
            Place::Chunks { exponent, map } => {
                (Layout::Chunks { exponent }, map.iter().flat_map(|first| first.to_le_bytes()).collect())
            }
        };
        let inode = self.inode(Kind::File, body.length, layout);
        let record = [inode::encode(&inode, look, &body.attributes), tail].concat();
        let at = self.space.record(record.len())?;
        self.put(&record, at)?;
        Ok(at / SLOT)
    }

    /// Writes a symbolic link; its number.
    pub fn link_to(&mut self, target: &[u8], look: &Look<'_>) -> Result<u64, Refused> {
        let attributes = attributes(look)?;
        let length = target.len() as u64;
        let (layout, whole) = self.flat(SIZE + attributes.len(), length)?;
        let (outside, inside) = match layout {
            Layout::Inline { .. } => target.split_at(whole as usize),
            _ => (target, &b""[..]),
        };
        if let Layout::Plain { first } | Layout::Inline { first } = layout {
            self.put(outside, u64::from(first) * BLOCK)?;
        }
        let inode = self.inode(Kind::Link, length, layout);
        let record = [&inode::encode(&inode, look, &attributes), inside].concat();
        let at = self.space.record(record.len())?;
        self.put(&record, at)?;
        Ok(at / SLOT)
    }

    /// Writes a device or a pipe; its number.
    pub fn special(&mut self, kind: Kind, device: (u32, u32), look: &Look<'_>) -> Result<u64, Refused> {
        let attributes = attributes(look)?;
        // As the kernel writes device numbers for others to read (new_encode_dev).
        let (major, minor) = device;
        let device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        let layout = if kind == Kind::Fifo { Layout::Nothing } else { Layout::Device(device) };
        let inode = self.inode(kind, 0, layout);
        let record = inode::encode(&inode, look, &attributes);
        let at = self.space.record(record.len())?;
        self.put(&record, at)?;
        Ok(at / SLOT)
    }

    /// One name more, or one less, of an inode.
    pub fn relink(&mut self, number: u64, change: i32) {
        let links = self.links.entry(number).or_insert(1);
        *links = links.saturating_add_signed(change);
    }

    /// A number for a directory with these names in order, `.` and `..` among them.
    pub fn place<'n>(
        &mut self,
        look: &Look<'_>,
        names: impl Iterator<Item = &'n [u8]>,
        is_root: bool,
    ) -> Result<Placed, Refused> {
        let size = directory::size(names);
        let record = SIZE + attributes(look)?.len();
        let (layout, whole) = self.flat(record, size)?;
        let inside = if matches!(layout, Layout::Inline { .. }) { (size - whole) as usize } else { 0 };
        let at = match is_root {
            false => self.space.record(record + inside)?,
            true if (record + inside) as u64 <= ROOT_MAX => ROOT_AT,
            true => return Err(Errno::NOSPC.into()),
        };
        Ok(Placed { at, layout, size })
    }

    /// Writes a directory to its place.
    pub fn directory<'n>(
        &mut self,
        placed: Placed,
        look: &Look<'_>,
        names: impl Iterator<Item = Result<Listed<'n>, Errno>>,
    ) -> Result<(), Refused> {
        let attributes = attributes(look)?;
        let mut links = 0;
        let named = names.map(|listed| {
            let Listed { name, number, kind } = listed?;
            // `.`, `..` of each directory in it, and its own name, for which its `..` is counted.
            links += u32::from(kind == Kind::Directory);
            Ok(Named { name, number, kind: kind as u8 })
        });
        let (first, outside) = match placed.layout {
            Layout::Inline { first } => (first, placed.size / BLOCK * BLOCK),
            Layout::Plain { first } => (first, placed.size),
            _ => return Err(Errno::INVAL.into()),
        };
        let (mut inside, mut at) = (Vec::new(), 0);
        directory::encode(named, |block| {
            match at < outside {
                true => self.put(block, u64::from(first) * BLOCK + at)?,
                false => inside.extend_from_slice(block),
            }
            at += block.len() as u64;
            Ok(())
        })?;
        let inode = Inode { links, ..self.inode(Kind::Directory, placed.size, placed.layout) };
        let record = [inode::encode(&inode, look, &attributes), inside].concat();
        Ok(self.put(&record, placed.at)?)
    }

    /// Writes what is known only at the end, and the superblock. `name` tells this image from others.
    pub fn seal(mut self, name: [u8; 16]) -> Result<(), Errno> {
        for (number, links) in std::mem::take(&mut self.links) {
            self.put(&links.to_le_bytes(), number * SLOT + LINKS_AT)?;
        }
        let end = self.space.end();
        rustix::fs::ftruncate(&self.file, end)?;
        self.length = end;
        let superblock = superblock::encode(self.inodes, (end / BLOCK) as u32, name);
        self.put(&superblock, SUPERBLOCK_AT)
    }

    /// The contents of an inode that is written.
    pub fn contents(&self, number: u64) -> Result<Contents<'_>, Errno> {
        let at = number * SLOT;
        let mut bytes = [0; SIZE];
        self.get(&mut bytes, at)?;
        let (_, length, layout, attributes) = inode::decode(&bytes);
        Ok(Contents { writer: self, length, layout, behind: at + SIZE as u64 + attributes })
    }

    fn inode(&mut self, kind: Kind, size: u64, layout: Layout) -> Inode {
        self.inodes += 1;
        let serial = u32::try_from(self.inodes).unwrap_or(u32::MAX);
        Inode { kind: kind.bits(), size, links: 1, layout, serial }
    }

    /// Room for contents in one piece beside an inode that takes `record` bytes: how they lie, and how many bytes of them
    /// are whole blocks.
    fn flat(&mut self, record: usize, length: u64) -> Result<(Layout, u64), Errno> {
        let (blocks, rest) = (length / BLOCK, length % BLOCK);
        let first = |blocks: u64, space: &mut Space| if blocks > 0 { space.blocks(blocks) } else { Ok(0) };
        Ok(match rest {
            0 => (Layout::Plain { first: first(blocks, &mut self.space)? }, length),
            rest if record as u64 + rest <= BLOCK => {
                (Layout::Inline { first: first(blocks, &mut self.space)? }, blocks * BLOCK)
            }
            _ => (Layout::Plain { first: self.space.blocks(blocks + 1)? }, length),
        })
    }

    /// Room for those chunks that have contents. They are no smaller than that a list of few of them makes the file: a
    /// header can say that a file is as long as it likes.
    fn chunks(&mut self, length: u64, parts: &[Segment]) -> Result<Place, Errno> {
        let most = CHUNKS + CHUNKS_PER_PART * parts.len() as u64;
        let mut exponent: u8 = 0;
        while length.div_ceil(BLOCK << exponent) > most {
            exponent += 1;
        }
        let size = BLOCK << exponent;
        let mut map = vec![HOLE; length.div_ceil(size) as usize];
        for part in parts.iter().filter(|part| part.length > 0) {
            for number in part.offset / size..=(part.offset + part.length - 1) / size {
                let chunk = map.get_mut(number as usize).ok_or(Errno::FBIG)?;
                if *chunk == HOLE {
                    *chunk = self.space.blocks((length - number * size).min(size).div_ceil(BLOCK))?;
                }
            }
        }
        Ok(Place::Chunks { exponent, map })
    }

    fn put(&mut self, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
        let end = at + bytes.len() as u64;
        if end > self.length {
            self.length = end.next_multiple_of(GROWTH);
            rustix::fs::ftruncate(&self.file, self.length)?;
        }
        while !bytes.is_empty() {
            let count = rustix::io::retry_on_intr(|| rustix::io::pwrite(self.file.as_fd(), bytes, at))?;
            bytes = &bytes[count..];
            at += count as u64;
        }
        Ok(())
    }

    fn get(&self, mut into: &mut [u8], mut at: u64) -> Result<(), Errno> {
        while !into.is_empty() {
            match rustix::io::retry_on_intr(|| rustix::io::pread(self.file.as_fd(), &mut *into, at))? {
                0 => return Err(Errno::IO),
                count => {
                    into = &mut into[count..];
                    at += count as u64;
                }
            }
        }
        Ok(())
    }
}

fn attributes(look: &Look<'_>) -> Result<Vec<u8>, Refused> {
    inode::attributes(&look.attributes).map_err(|(key, errno)| Refused::Attribute(key.to_vec(), errno))
}

/// What is in a file of an image that is being written.
pub struct Contents<'w> {
    writer: &'w Writer,
    length: u64,
    layout: Layout,
    /// Where what follows the inode and its attributes begins.
    behind: u64,
}

impl Contents<'_> {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Like pread(2).
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Errno> {
        let left = self.length.saturating_sub(at);
        let (address, run) = match self.layout {
            Layout::Plain { first } => (u64::from(first) * BLOCK + at, left),
            Layout::Inline { first } => match self.length / BLOCK * BLOCK {
                whole if at < whole => (u64::from(first) * BLOCK + at, whole - at),
                whole => (self.behind + at - whole, left),
            },
            Layout::Chunks { exponent } => {
                let size = BLOCK << exponent;
                let mut first = [0; 4];
                self.writer.get(&mut first, self.behind + at / size * 4)?;
                let first = u32::from_le_bytes(first);
                let run = left.min(size - at % size);
                if first == HOLE {
                    let count = into.len().min(usize::try_from(run).unwrap_or(usize::MAX));
                    into[..count].fill(0);
                    return Ok(count);
                }
                (u64::from(first) * BLOCK + at % size, run)
            }
            Layout::Device(_) | Layout::Nothing => return Ok(0),
        };
        let count = into.len().min(usize::try_from(run).unwrap_or(usize::MAX));
        self.writer.get(&mut into[..count], address)?;
        Ok(count)
    }
}
