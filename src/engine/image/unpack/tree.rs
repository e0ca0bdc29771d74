//! The directory tree that a layer grows into: finding, making and removing directories.
//!
//! A member's path is walked component by component from the root; links on the way are followed as they would be inside
//! the container, so that with `lib -> usr/lib` the member `lib/x` lands in `usr/lib`. Every directory is known by its real
//! path, without links, and keeps one record of attributes, applied at the end.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use rustix::io::Errno;

use super::fields::Pair;
use super::ground::{Ground, Sort};
use super::report::Problem;
use super::xattrs;

/// More than images have and few enough that whoever removes the tree again has the descriptors for it.
const DEPTH_MAX: usize = 256;
/// As the kernel counts for one lookup (path_resolution(7)).
const LINKS_MAX: usize = 40;
const PATH_MAX: usize = 4096;
/// Directories that are gone through on the ways of links, in the whole layer: what a path costs is for its links to say, and
/// each of forty may have 800 times `x/../`.
const WAYS_MAX: u64 = 10_000_000;
/// Descriptors of directories that are kept open.
const CACHE_MAX: usize = 256;

/// A directory that is open.
pub struct Directory<H> {
    pub handle: H,
    /// From the root, without a slash at either end; the root's is empty.
    pub real: Vec<u8>,
}

impl<H> Directory<H> {
    /// The real path of something in it.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        match self.real.is_empty() {
            true => name.to_vec(),
            false => [&self.real, b"/".as_slice(), name].concat(),
        }
    }
}

/// What a directory will look like when everything in it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: (i64, u32),
    pub xattrs: Vec<Pair>,
    /// Hides what lower layers have in it.
    pub opaque: bool,
    pub has_whiteouts: bool,
    /// The archive only mentions it as a parent.
    pub implied: bool,
}

impl Attributes {
    fn implied() -> Attributes {
        let (opaque, has_whiteouts, implied) = (false, false, true);
        Attributes { mode: 0o755, uid: 0, gid: 0, modified: (0, 0), xattrs: Vec::new(), opaque, has_whiteouts, implied }
    }

    /// Whatever lower layers have there is gone, with how it looked.
    pub fn is_made_anew(&mut self) {
        self.opaque = true;
        self.implied = false;
    }

    /// What overlayfs is told of it.
    pub fn marks(&self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        let opaque = self.opaque.then_some(xattrs::OPAQUE);
        opaque.into_iter().chain(self.has_whiteouts.then_some(xattrs::LISTED_WITH_CARE))
    }
}

pub struct Tree<G: Ground> {
    pub ground: G,
    /// By the path under which a member named it.
    open: HashMap<Vec<u8>, Rc<Directory<G::Handle>>>,
    /// By real path.
    pub attributes: BTreeMap<Vec<u8>, Attributes>,
    /// Of [`WAYS_MAX`].
    ways_left: u64,
}

impl<G: Ground> Tree<G> {
    /// Grows on a ground on which nothing is yet.
    pub fn new(ground: G) -> Tree<G> {
        let attributes = BTreeMap::from([(Vec::new(), Attributes::implied())]);
        Tree { ground, open: HashMap::new(), attributes, ways_left: WAYS_MAX }
    }

    fn root(&self) -> Result<Rc<Directory<G::Handle>>, Problem> {
        let handle = self.ground.root().map_err(|errno| Problem::on("open", b"", errno))?;
        Ok(Rc::new(Directory { handle, real: Vec::new() }))
    }

    /// The directory at `path`, made with its parents if it is not there.
    pub fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory<G::Handle>>, Problem> {
        if path.is_empty() {
            return self.root();
        }
        if let Some(directory) = self.open.get(path) {
            return Ok(directory.clone());
        }
        // Before the first step: each component is a call within the one for the next.
        check_depth(path)?;
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        let directory = self.enter(&parent, name, &mut 0)?;
        if self.open.len() >= CACHE_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), directory.clone());
        Ok(directory)
    }

    /// The attributes of a directory that is there.
    pub fn attributes_of(&mut self, real: &[u8]) -> &mut Attributes {
        self.attributes.entry(real.to_vec()).or_insert_with(Attributes::implied)
    }

    /// Makes an empty directory where nothing is.
    pub fn make(&mut self, parent: &Directory<G::Handle>, name: &[u8]) -> Result<(), Errno> {
        self.ground.make_directory(&parent.handle, name)?;
        self.attributes.insert(parent.join(name), Attributes::implied());
        Ok(())
    }

    /// Removes whatever is at `name`, with all in it. Paths that led through it may lead elsewhere afterwards.
    pub fn remove(&mut self, parent: &Directory<G::Handle>, name: &[u8]) -> Result<(), Problem> {
        let real = parent.join(name);
        self.open.clear();
        self.ground.remove(&parent.handle, name).map_err(|errno| Problem::on("replace", &real, errno))?;
        self.forget(&real);
        Ok(())
    }

    /// What was known of a directory that is gone and of those below it. Costs what goes, not what is known: an archive
    /// may replace each of its files many times.
    fn forget(&mut self, real: &[u8]) {
        // Only directories are known, and what is below one is known only with it (see `make`).
        if self.attributes.remove(real).is_none() {
            return;
        }
        // `0` follows `/`.
        let (below, beyond) = ([real, b"/"].concat(), [real, b"0"].concat());
        while let Some((path, _)) = self.attributes.range(below.clone()..beyond.clone()).next() {
            let path = path.clone();
            self.attributes.remove(&path);
        }
    }

    /// One step of a path: into a directory, through a link, or making what is missing.
    fn enter(
        &mut self,
        parent: &Rc<Directory<G::Handle>>,
        name: &[u8],
        links: &mut usize,
    ) -> Result<Rc<Directory<G::Handle>>, Problem> {
        match name {
            b"" | b"." => return Ok(parent.clone()),
            b".." => {
                let above = split(&parent.real).0;
                self.go(above.split(|byte| *byte == b'/').count())?;
                return self.real_directory(above);
            }
            _ => {}
        }
        let real = parent.join(name);
        let failed = |errno| Problem::on("enter", &real, errno);
        check_depth(&real)?;
        match self.ground.open(&parent.handle, name) {
            Ok(handle) => return Ok(Rc::new(Directory { handle, real })),
            Err(Errno::NOENT) => {
                self.make(parent, name).map_err(failed)?;
                return self.enter(parent, name, links);
            }
            Err(Errno::NOTDIR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match self.ground.look(&parent.handle, name).map_err(failed)?.sort {
            Sort::Link => {
                *links += 1;
                if *links > LINKS_MAX {
                    return Err(failed(Errno::LOOP));
                }
                let target = self.ground.target(&parent.handle, name).map_err(failed)?;
                let mut at = if target.starts_with(b"/") { self.root()? } else { parent.clone() };
                for component in target.split(|byte| *byte == b'/') {
                    self.go(1)?;
                    at = self.enter(&at, component, links)?;
                }
                Ok(at)
            }
            // A whiteout and then something below it: the directory is new and the one that was there is gone.
            Sort::Whiteout => {
                self.remove(parent, name)?;
                self.make(parent, name).map_err(failed)?;
                self.attributes_of(&real).is_made_anew();
                self.enter(parent, name, links)
            }
            _ => Err(failed(Errno::NOTDIR)),
        }
    }

    fn go(&mut self, directories: usize) -> Result<(), Problem> {
        let left = self.ways_left.checked_sub(directories as u64);
        self.ways_left = left.ok_or_else(|| {
            Problem::new(format!("its links lead through more than the {WAYS_MAX} directories allowed"))
        })?;
        Ok(())
    }

    /// The directory at a path without links.
    fn real_directory(&self, real: &[u8]) -> Result<Rc<Directory<G::Handle>>, Problem> {
        let failed = |errno| Problem::on("enter", real, errno);
        let mut at = self.root()?;
        for name in real.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let handle = self.ground.open(&at.handle, name).map_err(failed)?;
            at = Rc::new(Directory { handle, real: at.join(name) });
        }
        Ok(at)
    }
}

fn check_depth(path: &[u8]) -> Result<(), Problem> {
    match path.len() > PATH_MAX || path.iter().filter(|byte| **byte == b'/').count() >= DEPTH_MAX {
        true => {
            let problem = format!("a path is deeper than {DEPTH_MAX} directories or longer than {PATH_MAX} bytes");
            Err(Problem::new(problem))
        }
        false => Ok(()),
    }
}

/// Parent and last component of a cleaned path.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The path from the root, with `.`, empty components and `..` resolved by name. Nothing is above the root.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::super::directories::Directories;
    use super::*;

    fn ground(root: &Path) -> Directories {
        Directories::new(OwnedFd::from(std::fs::File::open(root).unwrap()))
    }

    #[test]
    fn paths_are_cleaned_by_name_and_never_leave_the_root() {
        for (path, cleaned) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/a/../b", "b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../..", ""),
            ("/", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_path_is_split_before_its_last_component() {
        assert_eq!(split(b"a/b/c"), (b"a/b".as_slice(), b"c".as_slice()));
        assert_eq!(split(b"a"), (b"".as_slice(), b"a".as_slice()));
    }

    #[test]
    fn links_of_links_lead_only_so_far_in_a_whole_layer() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(ground(root.path()));
        tree.directory(b"a/b/x").unwrap();
        std::os::unix::fs::symlink("x/../".repeat(10), root.path().join("a/b/link")).unwrap();
        tree.ways_left = 60;
        assert_eq!(tree.directory(b"a/b/link/one").unwrap().real, b"a/b/one");
        // What is made of them is theirs all the same: twice is more than there is left.
        tree.open.clear();
        let problem = tree.directory(b"a/b/link/other").err().map(|problem| problem.to_string()).unwrap_or_default();
        assert!(problem.contains("directories allowed"), "{problem}");
    }

    #[test]
    fn what_is_known_of_a_directory_goes_with_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(ground(root.path()));
        for path in ["a/b/c", "a-b", "a0", "ab"] {
            tree.directory(path.as_bytes()).unwrap();
        }
        let top = tree.directory(b"").unwrap();
        tree.remove(&top, b"a").unwrap();
        assert_eq!(tree.attributes.keys().collect::<Vec<_>>(), [&b""[..], b"a-b", b"a0", b"ab"]);
    }

    #[test]
    fn replacing_files_costs_the_same_however_many_directories_are_known() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(ground(root.path()));
        for number in 0..1_000_000 {
            tree.attributes.insert(format!("d/{number}").into_bytes(), Attributes::implied());
        }
        // Were each to look at all the others, these would be 10^10 comparisons.
        let begin = std::time::Instant::now();
        for number in 0..10_000 {
            tree.forget(format!("f/{number}").as_bytes());
        }
        assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}
