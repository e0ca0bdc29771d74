//! What the files of a layer are made in: the seam between what a layer means and how it is kept.
//!
//! [`super::extract`] and [`super::tree`] know the members of an archive and what comes of them; a ground makes directories,
//! files and marks, and nothing else. There are two: `directories`, of the file system, and `image`, one file.

use std::collections::BTreeMap;
use std::io;

use rustix::io::Errno;

use super::members::Member;
use super::report::Problem;
use super::tree::{Attributes, Directory};
use crate::engine::image::erofs::Shape;
use crate::engine::image::recipe::Contents;

pub trait Ground {
    /// A directory that is held.
    type Handle;
    /// A file whose contents are coming.
    type File;
    /// What is left to do when every file is made.
    type Done;

    fn root(&self) -> Result<Self::Handle, Errno>;

    /// A directory in this one. ENOENT where nothing is, ENOTDIR where something else is, a link too.
    fn open(&self, parent: &Self::Handle, name: &[u8]) -> Result<Self::Handle, Errno>;

    fn look(&self, parent: &Self::Handle, name: &[u8]) -> Result<Thing, Errno>;

    /// Where a symbolic link leads.
    fn target(&self, parent: &Self::Handle, name: &[u8]) -> Result<Vec<u8>, Errno>;

    /// EEXIST where something is, as with the next.
    fn make_directory(&mut self, parent: &Self::Handle, name: &[u8]) -> Result<(), Errno>;

    /// What hides the lower layers' file of that name.
    fn make_whiteout(&mut self, parent: &Self::Handle, name: &[u8]) -> Result<(), Errno>;

    /// A symbolic link, a device or a pipe.
    fn make_special(&mut self, at: &At<'_, Self::Handle>, member: &Member) -> Result<(), Refusal>;

    fn begin_file(
        &mut self,
        at: &At<'_, Self::Handle>,
        member: &Member,
        shape: Shape<'_>,
    ) -> Result<Self::File, Refusal>;

    fn write(&mut self, file: &mut Self::File, bytes: &[u8], at: u64) -> Result<(), Errno>;

    fn end_file(&mut self, file: Self::File, at: &At<'_, Self::Handle>, member: &Member) -> Result<(), Problem>;

    /// A further name of something that is no directory.
    fn link(&mut self, from: &At<'_, Self::Handle>, to: &At<'_, Self::Handle>) -> Result<(), Refusal>;

    /// Removes whatever is at `name`, with all in it.
    fn remove(&mut self, parent: &Self::Handle, name: &[u8]) -> Result<(), Errno>;

    /// Calls `keep` with every file at this place or below, and its real path.
    fn files(&self, at: &At<'_, Self::Handle>, keep: &mut Keep<'_>) -> Result<(), Problem>;

    /// Gives every directory its attributes, now that nothing is made in them any more. They are known by their real
    /// paths.
    fn finish(self, directories: &BTreeMap<Vec<u8>, Attributes>) -> Result<Self::Done, Problem>;
}

/// A name in a directory.
pub struct At<'a, H> {
    pub directory: &'a Directory<H>,
    pub name: &'a [u8],
}

impl<H> At<'_, H> {
    /// The path from the root, without links.
    pub fn real(&self) -> Vec<u8> {
        self.directory.join(self.name)
    }
}

/// Something that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thing {
    pub sort: Sort,
    /// Equal for two names of one file, and for no others.
    pub identity: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Directory,
    Link,
    Whiteout,
    Other,
}

/// Why something was not made.
#[derive(Debug)]
pub enum Refusal {
    /// Something is there.
    Occupied,
    Failed(Problem),
}

impl Refusal {
    /// The failure of a call that says EEXIST where something is.
    pub fn of(errno: Errno, action: &str, path: &[u8]) -> Refusal {
        match errno {
            Errno::EXIST => Refusal::Occupied,
            errno => Refusal::Failed(Problem::on(action, path, errno)),
        }
    }
}

/// Told of a file that is about to go, by its real path.
pub type Keep<'k> = dyn FnMut(&[u8], &dyn Contents) -> io::Result<()> + 'k;
