//! The unpacking child: `evenkeel internal-unpack ..`, started by [`super::parent`] and by nobody else.
//!
//! Before it looks at the first byte it
//!
//! 1. dies with its parent, dumps no core, and has a limit on memory;
//! 2. unshares its mount namespace and makes the layer's directory the root of it (pivot_root(2)), so that no path and
//!    no link leads anywhere else;
//! 3. gives up every capability that making files does not need, for good (`no_new_privs`).
//!
//! Then one thread reads, inflates and hashes, and the first one makes files:
//!
//! ```text
//! stdin ─> inflate ─> diff id ─> buffers ─> members ─> files        stdout <─ report, one line of JSON
//!                                              └─> recipe, opened before
//! ```
//!
//! What it keeps, it needs: nothing to write an image, which is open before; for a directory CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID and MKNOD for files, SETFCAP for
//! `security.capability`, SYS_ADMIN for `trusted.*` attributes.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet as Caps, CapabilitySets};
use sha2::{Digest as _, Sha256};

use super::Limits;
use super::compression::decoder;
use super::directories::Directories;
use super::extract::Extractor;
use super::ground::Ground;
use super::image::Image;
use super::members::{Kind, Lending, Members, Stream};
use super::report::{Listed, Problem, Report};
use super::tree::Tree;
use crate::engine::image::recipe::Recipe;
use crate::model::id::Digest;

const BUFFER: usize = 256 << 10;
/// Buffers on their way from the inflating thread to the one that makes files.
const BUFFERS: usize = 8;
/// Which of the ways to lay out an image this is: one more whenever a layer's inodes come to lie elsewhere.
const LAYOUT: u32 = 2;
/// Files in an archive of images; each image has a handful.
const LISTED_MAX: usize = 100_000;
/// What making files of a stranger's owners, modes and attributes takes. Who writes into a file that is open needs none.
const FOR_FILES: Caps = Caps::CHOWN
    .union(Caps::DAC_OVERRIDE)
    .union(Caps::FOWNER)
    .union(Caps::FSETID)
    .union(Caps::MKNOD)
    .union(Caps::SETFCAP)
    .union(Caps::SYS_ADMIN);

/// The child's whole life. `args` are what follows the hidden argument: a task and its parameters.
pub fn child_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|arg| arg.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let report = run(&args).unwrap_or_else(Report::Failed);
    let Ok(mut line) = serde_json::to_vec(&report) else { return ExitCode::FAILURE };
    line.push(b'\n');
    // The inflating task's standard output is where the bytes go; its report goes beside.
    let written = match args.first() {
        Some(&"inflate") => io::stderr().write_all(&line),
        _ => io::stdout().write_all(&line),
    };
    // A parent that has gone away needs no report.
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(args: &[&str]) -> Result<Report, Problem> {
    let usage = || Problem::new("internal-unpack is Evenkeel's own");
    let number = |text: &str| text.parse::<u64>().map_err(|_| usage());
    match args {
        ["layer", directory, image, recipe, memory, content, entries] => {
            let limits = Limits { memory: number(memory)?, content: number(content)?, entries: number(entries)? };
            // It may be a device: who wants no recipe gives the one that forgets.
            let recipe = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(recipe)
                .and_then(|file| Recipe::new(BufWriter::new(file)))
                .map_err(|error| Problem::writing("begin the recipe", &error))?;
            let image = match *image {
                "" => None,
                path => Some(
                    File::options()
                        .read(true)
                        .write(true)
                        .create_new(true)
                        .mode(0o400)
                        .open(path)
                        .map_err(|error| Problem::writing("begin the image", &error))?,
                ),
            };
            let capabilities = if image.is_some() { Caps::empty() } else { FOR_FILES };
            confine(Path::new(directory), limits.memory, capabilities)?;
            match image {
                Some(file) => unpack(Image::new(file), limits, recipe, |writer, diff_id| {
                    writer
                        .seal(image_name(diff_id))
                        .map_err(|errno| Problem::writing("finish the image", &errno.into()))
                }),
                None => {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    let root = rustix::fs::open("/", flags, Mode::empty());
                    let root = root.map_err(|errno| Problem::on("open", b"", errno))?;
                    unpack(Directories::new(root), limits, recipe, |(), _| Ok(()))
                }
            }
        }
        ["list", empty, memory, _] => {
            confine(Path::new(empty), number(memory)?, Caps::empty())?;
            list()
        }
        ["inflate", empty, memory, most] => {
            confine(Path::new(empty), number(memory)?, Caps::empty())?;
            inflate(number(most)?)
        }
        _ => Err(usage()),
    }
}

/// Steps 1 to 3 of the module's list.
fn confine(root: &Path, memory: u64, capabilities: Caps) -> Result<(), Problem> {
    let step = |what: &'static str| move |errno: rustix::io::Errno| Problem::new(format!("cannot {what}: {errno}"));
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(step("follow the parent"))?;
    let limit = |resource, value| {
        let value = Some(value);
        rustix::process::setrlimit(resource, Rlimit { current: value, maximum: value }).map_err(step("limit itself"))
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Data, memory)?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Problem::new(format!("cannot have mounts of its own: {errno}")))?;
    use rustix::mount::{MountPropagationFlags, UnmountFlags};
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", private).map_err(step("keep its mounts to itself"))?;
    rustix::mount::mount_bind(root, root).map_err(step("bind its root"))?;
    rustix::process::chdir(root).map_err(step("enter its root"))?;
    // The old root ends up on top of the new one, which is the current directory: pivot_root(2), "pivot_root(".", ".")".
    rustix::process::pivot_root(".", ".").map_err(step("change its root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(step("leave the old root"))?;
    rustix::process::chdir("/").map_err(step("enter its root"))?;
    rustix::process::umask(Mode::empty());
    rustix::thread::set_no_new_privs(true).map_err(step("give up privileges"))?;
    let held = rustix::thread::capabilities(None).map_err(step("read its capabilities"))?;
    let sets = CapabilitySets {
        effective: held.effective & capabilities,
        permitted: held.permitted & capabilities,
        inheritable: Caps::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(step("give up capabilities"))
}

fn unpack<G: Ground>(
    ground: G,
    limits: Limits,
    recipe: Recipe<BufWriter<File>>,
    seal: impl FnOnce(G::Done, &Digest) -> Result<(), Problem>,
) -> Result<Report, Problem> {
    let (send, receive) = sync_channel(BUFFERS);
    let (give_back, returned) = channel();
    let inflating = std::thread::Builder::new().spawn(move || hash_and_send(&send, &returned));
    let inflating = inflating.map_err(|error| Problem::new(format!("cannot start a thread: {error}")))?;
    let recipe = Rc::new(RefCell::new(recipe));
    let buffers = Buffers { receive, give_back, current: Vec::new(), at: 0 };
    let mut members = Members::new(Recorded { stream: buffers, recipe: recipe.clone(), limit: limits.content });
    let extracted = Extractor::new(Tree::new(ground), limits, recipe.clone()).extract(&mut members);
    // What follows the archive's end is padding, but part of the digest. A failed extraction stops the thread by
    // hanging up.
    let extracted = extracted.and_then(|extracted| members.drain().map(|size| (extracted, size)));
    drop(members);
    let read = inflating.join().map_err(|_| Problem::new("the inflating thread died"))?;
    match (extracted, read) {
        (Ok(((mut record, done), size)), Ok(diff_id)) => {
            record.tar_size = size;
            // Stream and extractor, which had it too, are gone.
            let recipe = Rc::into_inner(recipe).ok_or_else(|| Problem::new("the recipe is still in use"))?.into_inner();
            record.replaced = recipe.finish().map_err(|error| Problem::writing("finish the recipe", &error))?;
            seal(done, &diff_id)?;
            Ok(Report::Unpacked { diff_id, record })
        }
        // Why the stream broke says more than that it did.
        (_, Err(error)) => Err(broken(&error)),
        (Err(problem), Ok(_)) => Err(problem),
    }
}

/// An image is called what it is made of and how, so that it is the same whenever it is made again, and another where
/// inodes have other numbers: overlayfs remembers files of lower layers by both names.
fn image_name(diff_id: &Digest) -> [u8; 16] {
    let mut name = [0; 16];
    let hash = Sha256::digest(format!("layer image {LAYOUT} {diff_id}"));
    name.copy_from_slice(&hash[..16]);
    name
}

fn broken(error: &io::Error) -> Problem {
    // zstd has only words for these (zstd_errors.h), and so has the reader of xz.
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::new("the compressed stream ends early"),
        io::ErrorKind::Unsupported => Problem::new(error.to_string()),
        _ if text.contains("mem_limit_kb") => Problem::new(
            "it is compressed with a dictionary larger than 128 MiB, the most that is read (`xz --lzma2=dict=128MiB`)",
        ),
        io::ErrorKind::OutOfMemory => Problem::Memory,
        _ if text.contains("not enough memory") => Problem::Memory,
        _ if text.contains("too much memory") => {
            Problem::new("it is compressed with a window larger than 128 MiB, the most that is read (`zstd --long=27`)")
        }
        _ => Problem::new(format!("the compressed stream is damaged: {error}")),
    }
}

/// Sends all of standard input, inflated, and returns its digest. Stops without a word when nobody listens any more.
/// Buffers that come back are filled again.
fn hash_and_send(send: &SyncSender<Vec<u8>>, returned: &Receiver<Vec<u8>>) -> io::Result<Digest> {
    let mut input = decoder(stdin_file()?)?;
    let mut hasher = Sha256::new();
    loop {
        let mut buffer = returned.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let filled = fill(&mut input, &mut buffer)?;
        buffer.truncate(filled);
        hasher.update(&buffer);
        if filled == 0 || send.send(buffer).is_err() {
            return Ok(Digest::from_sha256(&hasher.finalize().into()));
        }
    }
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Standard input without the buffer that the standard library puts before it.
fn stdin_file() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// A stream of which everything that passes is written down.
pub(super) struct Recorded<S> {
    pub stream: S,
    pub recipe: Rc<RefCell<Recipe<BufWriter<File>>>>,
    /// Of bytes that are in no file of the tree: a stream that is nothing but padding must not fill the disk either.
    pub limit: u64,
}

impl<S: Lending> Lending for Recorded<S> {
    fn lend(&mut self, most: usize) -> io::Result<&[u8]> {
        let bytes = self.stream.lend(most)?;
        let mut recipe = self.recipe.borrow_mut();
        recipe.passed(bytes)?;
        match recipe.own_bytes() > self.limit {
            true => Err(io::Error::other("it has more bytes beside its files than are allowed")),
            false => Ok(bytes),
        }
    }
}

impl<S: Lending> Read for Recorded<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.lend(into.len())?;
        into[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl<S: Lending> Stream for Recorded<S> {
    /// What is passed over is part of the stream too.
    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            match self.lend(usize::try_from(bytes).unwrap_or(usize::MAX))?.len() {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes -= count as u64,
            }
        }
        Ok(())
    }
}

/// The receiving end of the inflating thread.
struct Buffers {
    receive: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Buffers {
    /// Whether there is a byte at the current place.
    fn advance(&mut self) -> bool {
        while self.at == self.current.len() {
            match self.receive.recv() {
                Ok(buffer) => {
                    let empty = std::mem::replace(&mut self.current, buffer);
                    // A thread that has sent everything takes none back.
                    let _ = self.give_back.send(empty);
                    self.at = 0;
                }
                Err(_) => return false,
            }
        }
        true
    }
}

impl Lending for Buffers {
    fn lend(&mut self, most: usize) -> io::Result<&[u8]> {
        if most == 0 || !self.advance() {
            return Ok(&[]);
        }
        let from = self.at;
        self.at += most.min(self.current.len() - from);
        Ok(&self.current[from..self.at])
    }
}

impl<S: Stream> Members<S> {
    /// Reads to the end of the stream and returns its length.
    pub(super) fn drain(&mut self) -> Result<u64, Problem> {
        let mut buffer = [0; 4096];
        while self.read_raw(&mut buffer)? > 0 {}
        Ok(self.position())
    }
}

/// An archive of images: where each file in it is. Nothing is written.
fn list() -> Result<Report, Problem> {
    let file = stdin_file().map_err(|error| broken(&error))?;
    let mut members = Members::new(SeekableFile(BufReader::with_capacity(BUFFER, file)));
    let mut listed = Vec::new();
    while let Some(member) = members.next()? {
        let (Ok(name), Ok(link)) = (String::from_utf8(member.path), String::from_utf8(member.link)) else { continue };
        let link = match member.kind {
            Kind::File if member.sparse.is_none() => None,
            Kind::HardLink | Kind::SymbolicLink => Some(link),
            _ => continue,
        };
        listed.push(Listed { name, offset: members.position(), size: member.size, link });
        if listed.len() > LISTED_MAX {
            return Err(Problem::new(format!("it has more than {LISTED_MAX} files")));
        }
    }
    Ok(Report::Listed { members: listed })
}

/// An archive that is compressed as a whole, made one of at most so many bytes that can be read from any place.
fn inflate(most: u64) -> Result<Report, Problem> {
    let mut input = stdin_file().and_then(decoder).map_err(|error| broken(&error))?;
    let output = io::stdout().as_fd().try_clone_to_owned();
    let mut output = output.map(File::from).map_err(|error| broken(&error))?;
    let (mut buffer, mut written) = (vec![0; BUFFER], 0);
    loop {
        let count = fill(&mut input, &mut buffer).map_err(|error| broken(&error))?;
        written += count as u64;
        match count {
            0 => return Ok(Report::Listed { members: Vec::new() }),
            _ if written > most => {
                return Err(Problem::new(format!("it inflates to more than the {most} bytes allowed")));
            }
            count => output
                .write_all(&buffer[..count])
                .map_err(|error| Problem::writing("write what was inflated", &error))?,
        }
    }
}

struct SeekableFile(BufReader<File>);

impl Read for SeekableFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Stream for SeekableFile {
    /// Past the end too: the parent knows the file's length and looks at every place it is told.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        match bytes {
            0 => Ok(()),
            bytes => self.0.seek_relative(bytes),
        }
    }
}
