//! `evenkeel cp`: files out of a container or into it, running or not.
//!
//! The rules for what lands where are Docker's, which are those of cp(1) where a directory is meant: into a directory
//! that is there goes the thing under its own name; elsewhere it gets the new name; `SRC/.` is what is in SRC.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};

use super::context::Context;
use super::each;
use super::failure::{Exit, Failure};
use crate::engine::host::Host;
use crate::engine::transfer::{Copied, Links, Ownership, Source, TransferError, Way, pack, unpack};
use crate::model::record::ContainerRecord;
use crate::model::security::IdRange;
use crate::runtime::look;

#[derive(Debug, Args)]
pub struct CpArguments {
    /// Keep owners, capabilities of files and users' attributes as they are; without it files in a container are root's,
    /// and files here are yours
    #[arg(short, long)]
    archive: bool,

    /// Copy what a link at SOURCE names, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,

    /// What is copied: CONTAINER:PATH, a path here, or `-`
    #[arg(value_name = "SOURCE")]
    source: Place,

    /// Where to: the same
    #[arg(value_name = "TARGET")]
    target: Place,
}

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Stream,
    Here(PathBuf),
    Container { name: String, path: PathBuf },
}

impl FromStr for Place {
    type Err = std::convert::Infallible;
    /// A path that begins with `/` or `.` is here, whatever colons it has, as Docker has it.
    fn from_str(text: &str) -> Result<Place, Self::Err> {
        Ok(match text.split_once(':') {
            _ if text == "-" => Place::Stream,
            Some((name, path)) if !text.starts_with(['/', '.']) && !name.is_empty() => {
                Place::Container { name: name.to_owned(), path: Path::new("/").join(path) }
            }
            _ => Place::Here(text.into()),
        })
    }
}

pub fn run(arguments: &CpArguments, context: &Context) -> Result<Exit, Failure> {
    let host = context.host()?;
    let here = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let CpArguments { archive, follow_link, source, target } = arguments;
    let links = if *follow_link { Links::Follow } else { Links::Keep };
    let owned_by = |uid, gid| if *archive { Ownership::Archive } else { Ownership::Fixed { uid, gid } };
    match (source, target) {
        (Place::Container { name, path }, Place::Stream) => {
            if io::stdout().is_terminal() {
                return Err(Failure::usage("an archive is not for a terminal").hint("redirect standard output"));
            }
            let record = each::one(name, context)?;
            within((&host, &record), Copied::Out(path), |root| {
                let source = open(root, path, links)?;
                pack(&source, &own_name(path), record.users, io::stdout().lock())
            })
        }
        (Place::Stream, Place::Container { name, path }) => {
            let record = each::one(name, context)?;
            within((&host, &record), Copied::In(path), |root| match directory(root, path) {
                true => unpack((root, path), record.users, io::stdin(), Ownership::Archive, Way::ThroughLinks),
                false => Err(TransferError::NoDirectory(path.clone())),
            })
        }
        (Place::Container { name, path }, Place::Here(target)) => {
            let record = each::one(name, context)?;
            let target = std::path::absolute(target)?;
            let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            let copied = Copied::Out(path);
            within((&host, &record), copied, |root| {
                let (from, to) = (Side { root, users: record.users }, Side { root: here.as_fd(), users: None });
                copy((from, path), links, (to, &target), owned_by(uid, gid))
            })
        }
        (Place::Here(path), Place::Container { name, path: target }) => {
            let record = each::one(name, context)?;
            let written = path.as_os_str().as_encoded_bytes();
            let is_content = written.ends_with(b"/.") || written == b".";
            let mut path = std::path::absolute(path)?;
            if is_content {
                // `absolute` drops what says that the content is meant.
                path.push(".");
            }
            let copied = Copied::In(target);
            within((&host, &record), copied, |root| {
                let (from, to) = (Side { root: here.as_fd(), users: None }, Side { root, users: record.users });
                copy((from, &path), links, (to, target), owned_by(0, 0))
            })
        }
        _ => Err(Failure::usage("one of the two must be in a container: CONTAINER:PATH, and the other here or `-`")),
    }
}

/// Runs `work` with the root of a container, under the lock where that does not run.
fn within(
    (host, record): (&Host, &ContainerRecord),
    copied: Copied<'_>,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), TransferError> + Send,
) -> Result<Exit, Failure> {
    let runs = super::inventory::liveness(host.paths(), record).map_err(Failure::engine)?.is_up();
    let _lock = match runs {
        true => None,
        false => Some(host.lock(super::by_hand::PATIENCE).map_err(Failure::engine)?),
    };
    host.with_root(record, work).map_err(Failure::engine)??;
    host.tell_copied(record, copied);
    Ok(Exit::Done)
}

/// A root, and the range of users that it has of its own.
#[derive(Clone, Copy)]
struct Side<'a> {
    root: BorrowedFd<'a>,
    users: Option<IdRange>,
}

/// From one root to the other, by way of a pipe.
fn copy(
    (from, path): (Side<'_>, &Path),
    links: Links,
    (to, target): (Side<'_>, &Path),
    ownership: Ownership,
) -> Result<(), TransferError> {
    let source = open(from.root, path, links)?;
    let (into, top) = landing(to.root, target, &source, path)?;
    let (reader, writer) = io::pipe().map_err(|source| TransferError::Stream { source })?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(&source, &top, from.users, io::BufWriter::with_capacity(64 * 1024, writer)));
        let unpacked = unpack((to.root, &into), to.users, reader, ownership, Way::WithoutLinks);
        let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Who cannot write any more breaks the pipe of the other: the cause comes first.
        unpacked.and(packed)
    })
}

/// A path that ends with `/` means a directory, here as everywhere.
fn open(root: BorrowedFd<'_>, path: &Path, links: Links) -> Result<Source, TransferError> {
    let source = Source::open(root, path, links)?;
    match path.as_os_str().as_encoded_bytes().ends_with(b"/") && !source.is_directory() {
        true => Err(TransferError::NoDirectory(path.to_owned())),
        false => Ok(source),
    }
}

/// Into which directory, and under what name.
fn landing(
    root: BorrowedFd<'_>,
    target: &Path,
    source: &Source,
    path: &Path,
) -> Result<(PathBuf, PathBuf), TransferError> {
    let wants_directory = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    let target = &followed(root, target);
    match (look::resolve(root, target.strip_prefix("/").unwrap_or(target)).is_ok(), directory(root, target)) {
        (_, true) => Ok((target.to_owned(), own_name(path))),
        (true, false) if source.is_directory() || wants_directory => Err(TransferError::NoDirectory(target.to_owned())),
        (false, false) if wants_directory && !source.is_directory() => {
            Err(TransferError::NoDirectory(target.to_owned()))
        }
        (_, false) => {
            let (parent, name) = (target.parent().unwrap_or(Path::new("/")), target.file_name().unwrap_or_default());
            match directory(root, parent) {
                true => Ok((parent.to_owned(), name.into())),
                false => Err(TransferError::NoDirectory(parent.to_owned())),
            }
        }
    }
}

/// What a target that is a link stands for, inside of its root: the link stays, as cp(1) leaves it. Who puts another link
/// there meanwhile has that one replaced.
fn followed(root: BorrowedFd<'_>, target: &Path) -> PathBuf {
    /// path_resolution(7).
    const MOST_LINKS: usize = 40;
    let mut target = target.to_owned();
    for _ in 0..MOST_LINKS {
        let Some((parent, name)) = target.parent().zip(target.file_name()) else { break };
        let link =
            look::resolve(root, inside(parent)).ok().and_then(|parent| readlinkat(parent, name, Vec::new()).ok());
        let Some(link) = link else { break };
        target = parent.join(OsStr::from_bytes(link.as_bytes()));
    }
    target
}

/// The last part of a path; `.` for what is in it.
fn own_name(path: &Path) -> PathBuf {
    match path.as_os_str().as_encoded_bytes().ends_with(b"/.") {
        true => ".".into(),
        false => path.file_name().map_or_else(|| ".".into(), PathBuf::from),
    }
}

/// A path as it is said from its root.
fn inside(path: &Path) -> &Path {
    let inside = path.strip_prefix("/").unwrap_or(path);
    if inside.as_os_str().is_empty() { Path::new(".") } else { inside }
}

fn directory(root: BorrowedFd<'_>, path: &Path) -> bool {
    let stat = look::resolve(root, inside(path)).and_then(|found| Ok(rustix::fs::fstat(found)?));
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_unless_a_path_begins() {
        let container = |name: &str, path: &str| Place::Container { name: name.into(), path: path.into() };
        let table = [
            ("-", Place::Stream),
            ("web:/etc", container("web", "/etc")),
            ("shop/web:etc/", container("shop/web", "/etc/")),
            ("./a:b", Place::Here("./a:b".into())),
            ("/a:b", Place::Here("/a:b".into())),
            ("file", Place::Here("file".into())),
        ];
        for (text, place) in table {
            assert_eq!(text.parse::<Place>().unwrap(), place, "{text}");
        }
    }
}
