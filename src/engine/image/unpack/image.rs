//! A layer as one file: an EROFS image, which is mounted as it is and which no container can change.
//!
//! Its directories are kept in memory until the end, a name and a number for each entry; contents go to the disk as they
//! come. What a later member replaces stays in the image, where no name leads to it.
//!
//! # Decisions
//! Nobody but this program writes images that it mounts, and a layer becomes one by this code alone: to mount what a
//! registry sends as a file system would be to give strangers the kernel's code for it, which trusts what it reads more
//! than a parser of strangers' bytes may. The process that does it is trusted so far: it has no capability and nothing
//! but this file, but what it wrote is not read again before it is mounted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use rustix::io::Errno;

use super::acl::{self, Wearer};
use super::ground::{At, Ground, Keep, Refusal, Sort, Thing};
use super::members::{self, Member};
use super::report::Problem;
use super::tree::{Attributes, Directory};
use super::xattrs::{self, kept, kept_of_special};
use crate::engine::image::erofs::{Body, Contents, Kind, Listed, Look, Placed, Refused, Shape, Writer};
use crate::engine::image::recipe;

/// Of a name in a directory.
const NAME_MAX: usize = 255;
/// Of what a symbolic link says; the kernel reads no longer one (symlink(2), ENAMETOOLONG).
const TARGET_MAX: usize = 4095;
const ROOT: u32 = 0;

pub struct Image {
    writer: Writer,
    /// By their handles; the first is the root.
    directories: Vec<Entries>,
}

type Entries = BTreeMap<Box<[u8]>, Entry>;

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Directory(u32),
    /// An inode that is written, by its number.
    Other(Kind, u64),
    Whiteout(u64),
}

impl Image {
    /// Writes into an empty file.
    pub fn new(file: File) -> Image {
        Image { writer: Writer::new(file), directories: vec![Entries::new()] }
    }

    fn entries(&self, directory: u32) -> &Entries {
        &self.directories[directory as usize]
    }

    fn find(&self, parent: u32, name: &[u8]) -> Result<Entry, Errno> {
        self.entries(parent).get(name).copied().ok_or(Errno::NOENT)
    }

    /// That there is room for a name, and nothing at it.
    fn check_free(&self, parent: u32, name: &[u8]) -> Result<(), Errno> {
        match self.entries(parent).contains_key(name) {
            true => Err(Errno::EXIST),
            false if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            false => Ok(()),
        }
    }

    fn insert(&mut self, parent: u32, name: &[u8], entry: Entry) {
        self.directories[parent as usize].insert(name.into(), entry);
    }

    fn forget(&mut self, entry: Entry) {
        match entry {
            Entry::Directory(handle) => {
                let entries = std::mem::take(&mut self.directories[handle as usize]);
                entries.into_values().for_each(|entry| self.forget(entry));
            }
            Entry::Other(_, number) => self.writer.relink(number, -1),
            Entry::Whiteout(_) => {}
        }
    }
}

impl Ground for Image {
    type Handle = u32;
    type File = Body;
    type Done = Writer;

    fn root(&self) -> Result<u32, Errno> {
        Ok(ROOT)
    }

    fn open(&self, parent: &u32, name: &[u8]) -> Result<u32, Errno> {
        match self.find(*parent, name) {
            Ok(Entry::Directory(handle)) => Ok(handle),
            Ok(_) => Err(Errno::NOTDIR),
            Err(_) if name.len() > NAME_MAX => Err(Errno::NAMETOOLONG),
            Err(errno) => Err(errno),
        }
    }

    fn look(&self, parent: &u32, name: &[u8]) -> Result<Thing, Errno> {
        Ok(match self.find(*parent, name)? {
            Entry::Directory(handle) => Thing { sort: Sort::Directory, identity: (0, handle.into()) },
            Entry::Whiteout(number) => Thing { sort: Sort::Whiteout, identity: (1, number) },
            Entry::Other(Kind::Link, number) => Thing { sort: Sort::Link, identity: (1, number) },
            Entry::Other(_, number) => Thing { sort: Sort::Other, identity: (1, number) },
        })
    }

    fn target(&self, parent: &u32, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let Entry::Other(Kind::Link, number) = self.find(*parent, name)? else { return Err(Errno::INVAL) };
        let contents = self.writer.contents(number)?;
        let mut target = vec![0; usize::try_from(contents.length()).map_err(|_| Errno::NAMETOOLONG)?];
        let mut filled = 0;
        while filled < target.len() {
            filled += contents.read_at(&mut target[filled..], filled as u64)?;
        }
        Ok(target)
    }

    fn make_directory(&mut self, parent: &u32, name: &[u8]) -> Result<(), Errno> {
        self.check_free(*parent, name)?;
        let handle = u32::try_from(self.directories.len()).map_err(|_| Errno::NOSPC)?;
        self.directories.push(Entries::new());
        self.insert(*parent, name, Entry::Directory(handle));
        Ok(())
    }

    fn make_whiteout(&mut self, parent: &u32, name: &[u8]) -> Result<(), Errno> {
        self.check_free(*parent, name)?;
        let look = Look { mode: 0, uid: 0, gid: 0, modified: (0, 0), attributes: Vec::new() };
        let number = self.writer.special(Kind::Character, (0, 0), &look).map_err(Refused::errno)?;
        self.insert(*parent, name, Entry::Whiteout(number));
        Ok(())
    }

    fn make_special(&mut self, at: &At<'_, u32>, member: &Member) -> Result<(), Refusal> {
        let failed = |errno| Refusal::of(errno, "make", &at.real());
        self.check_free(at.directory.handle, at.name).map_err(failed)?;
        let kind = match member.kind {
            members::Kind::SymbolicLink => Kind::Link,
            members::Kind::Character => Kind::Character,
            members::Kind::Block => Kind::Block,
            _ => Kind::Fifo,
        };
        let mode = if kind == Kind::Link { 0o777 } else { member.mode };
        let wearer = if kind == Kind::Link { Wearer::Link } else { Wearer::Other };
        let look = Look { mode, ..plain(member, kept_of_special(&member.xattrs)) };
        let look = settled(look, wearer, at).map_err(Refusal::Failed)?;
        let made = match kind {
            Kind::Link => match member.link.len() {
                0 => return Err(failed(Errno::NOENT)),
                length if length > TARGET_MAX => return Err(failed(Errno::NAMETOOLONG)),
                _ => self.writer.link_to(&member.link, &look),
            },
            kind => self.writer.special(kind, member.device, &look),
        };
        let number = made.map_err(|refused| Refusal::Failed(problem(refused, "make", &at.real())))?;
        let entry = match (kind, member.device) {
            (Kind::Character, (0, 0)) => Entry::Whiteout(number),
            (kind, _) => Entry::Other(kind, number),
        };
        self.insert(at.directory.handle, at.name, entry);
        Ok(())
    }

    fn begin_file(&mut self, at: &At<'_, u32>, member: &Member, shape: Shape<'_>) -> Result<Body, Refusal> {
        let free = self.check_free(at.directory.handle, at.name);
        free.map_err(|errno| Refusal::of(errno, "make", &at.real()))?;
        let look = settled(plain(member, kept(&member.xattrs)), Wearer::Other, at).map_err(Refusal::Failed)?;
        let begun = self.writer.begin_file(&look, shape);
        begun.map_err(|refused| Refusal::Failed(problem(refused, "make", &at.real())))
    }

    fn write(&mut self, file: &mut Body, bytes: &[u8], at: u64) -> Result<(), Errno> {
        self.writer.write(file, bytes, at)
    }

    fn end_file(&mut self, file: Body, at: &At<'_, u32>, member: &Member) -> Result<(), Problem> {
        let look = settled(plain(member, kept(&member.xattrs)), Wearer::Other, at)?;
        let written = self.writer.end_file(file, &look);
        let number = written.map_err(|errno| Problem::on("write", &at.real(), errno))?;
        self.insert(at.directory.handle, at.name, Entry::Other(Kind::File, number));
        Ok(())
    }

    fn link(&mut self, from: &At<'_, u32>, to: &At<'_, u32>) -> Result<(), Refusal> {
        let failed = |errno| Refusal::of(errno, "make", &to.real());
        self.check_free(to.directory.handle, to.name).map_err(failed)?;
        let entry = self.find(from.directory.handle, from.name).map_err(failed)?;
        let Entry::Other(_, number) = entry else { return Err(failed(Errno::PERM)) };
        self.writer.relink(number, 1);
        self.insert(to.directory.handle, to.name, entry);
        Ok(())
    }

    fn remove(&mut self, parent: &u32, name: &[u8]) -> Result<(), Errno> {
        let entry = self.directories[*parent as usize].remove(name).ok_or(Errno::NOENT)?;
        self.forget(entry);
        Ok(())
    }

    fn files(&self, at: &At<'_, u32>, keep: &mut Keep<'_>) -> Result<(), Problem> {
        let real = at.real();
        let failed = |errno| Problem::on("read again", &real, errno);
        match self.find(at.directory.handle, at.name).map_err(failed)? {
            Entry::Other(Kind::File, number) => {
                let contents = self.writer.contents(number).map_err(failed)?;
                keep(&real, &contents).map_err(|error| Problem::writing("write the recipe", &error))
            }
            Entry::Directory(handle) => {
                let directory = Directory { handle, real };
                self.directories[handle as usize]
                    .keys()
                    .try_for_each(|name| self.files(&At { directory: &directory, name }, keep))
            }
            _ => Ok(()),
        }
    }

    fn finish(mut self, directories: &BTreeMap<Vec<u8>, Attributes>) -> Result<Writer, Problem> {
        // Where each is, before any is written that names it. Of one that was removed nothing is known.
        let mut placed: Vec<Option<Placed>> = vec![None; self.directories.len()];
        let mut found = Vec::with_capacity(directories.len());
        for (real, attributes) in directories {
            let failed = |errno| Problem::on("write", real, errno);
            let (mut handle, mut parent) = (ROOT, ROOT);
            for name in real.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                parent = handle;
                handle = self.open(&parent, name).map_err(failed)?;
            }
            let look = dressed(real, attributes)?;
            let names = with_dots(self.directories[handle as usize].keys().map(|name| (&**name, ())), (), ());
            let place = self.writer.place(&look, names.map(|(name, ())| name), handle == ROOT);
            placed[handle as usize] = Some(place.map_err(|refused| problem(refused, "write", real))?);
            found.push((handle, parent));
        }
        for ((real, attributes), (handle, parent)) in directories.iter().zip(found) {
            let failed = |errno| Problem::on("write", real, errno);
            let number = |handle: u32| placed[handle as usize].map(|placed| placed.number()).ok_or(Errno::NOENT);
            let listed = |entry: &Entry| {
                Ok(match *entry {
                    Entry::Directory(handle) => (Kind::Directory, number(handle)?),
                    Entry::Other(kind, number) => (kind, number),
                    Entry::Whiteout(number) => (Kind::Character, number),
                })
            };
            let own = |handle| number(handle).map(|number| (Kind::Directory, number));
            let entries = self.directories[handle as usize].iter().map(|(name, entry)| (&**name, listed(entry)));
            let entries = with_dots(entries, own(handle), own(parent));
            let names = entries.map(|(name, listed)| listed.map(|(kind, number)| Listed { name, number, kind }));
            let look = dressed(real, attributes)?;
            let place = placed[handle as usize].ok_or_else(|| failed(Errno::NOENT))?;
            let written = self.writer.directory(place, &look, names);
            written.map_err(|refused| problem(refused, "write", real))?;
        }
        Ok(self.writer)
    }
}

/// The entries of a directory in order, its own and its parent's names among them: not all others are behind those.
fn with_dots<'n, T>(
    entries: impl Iterator<Item = (&'n [u8], T)>,
    own: T,
    parents: T,
) -> impl Iterator<Item = (&'n [u8], T)> {
    let mut entries = entries.peekable();
    let mut dots = [(&b"."[..], own), (b"..", parents)].into_iter().peekable();
    std::iter::from_fn(move || match (entries.peek(), dots.peek()) {
        (Some((name, _)), Some((dot, _))) if name < dot => entries.next(),
        (_, Some(_)) => dots.next(),
        (_, None) => entries.next(),
    })
}

/// How a directory will look.
fn dressed<'a>(real: &[u8], attributes: &'a Attributes) -> Result<Look<'a>, Problem> {
    let Attributes { mode, uid, gid, modified, xattrs, opaque: _, has_whiteouts: _, implied: _ } = attributes;
    let marks = attributes.marks().map(|(key, value)| (key.as_bytes(), value));
    let attributes = kept(xattrs).chain(marks).map(|(key, value)| (key, Cow::Borrowed(value))).collect();
    let mut look = Look { mode: *mode, uid: *uid, gid: *gid, modified: *modified, attributes };
    acl::settle(&mut look, Wearer::Directory).map_err(|(key, errno)| xattrs::problem(real, key, errno))?;
    Ok(look)
}

fn plain<'a>(member: &Member, xattrs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Look<'a> {
    let attributes = xattrs.map(|(key, value)| (key, Cow::Borrowed(value))).collect();
    Look { mode: member.mode, uid: member.uid, gid: member.gid, modified: member.modified, attributes }
}

fn settled<'a>(mut look: Look<'a>, wearer: Wearer, at: &At<'_, u32>) -> Result<Look<'a>, Problem> {
    acl::settle(&mut look, wearer).map_err(|(key, errno)| xattrs::problem(&at.real(), key, errno))?;
    Ok(look)
}

fn problem(refused: Refused, action: &str, path: &[u8]) -> Problem {
    match refused {
        Refused::Attribute(key, errno) => xattrs::problem(path, &key, errno),
        Refused::Other(errno) => Problem::on(action, path, errno),
    }
}

impl recipe::Contents for Contents<'_> {
    fn length(&self) -> io::Result<u64> {
        Ok(Contents::length(self))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(Contents::read_at(self, into, offset)?)
    }
}
