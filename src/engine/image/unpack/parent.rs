//! The parent's side of an unpacking child.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::report::{Listed, Problem, Report};
use super::{ARGUMENT, Limits};
use crate::engine::image::error::ImageError;
use crate::engine::image::store::record::LayerRecord;
use crate::model::id::Digest;

/// A pipe of this size lets the two sides work in larger turns (pipe(7); more needs CAP_SYS_RESOURCE).
const PIPE: usize = 1 << 20;
/// A report names the directories that a layer only implies; it has no reason to be longer.
const REPORT_MAX: u64 = 64 << 20;

/// What a layer becomes.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// A tree in this empty directory.
    Directory(&'a Path),
    /// An EROFS image, a file that is not there yet; `empty` is a directory for the child to be confined in.
    Image { file: &'a Path, empty: &'a Path },
}

/// A child that unpacks one layer. Dropped before [`Unpacking::finish`], it is killed.
pub struct Unpacking {
    child: Child,
    /// What errors call the layer.
    layer: String,
    place: PathBuf,
}

/// A layer that is unpacked.
pub struct Unpacked {
    pub diff_id: Digest,
    pub record: LayerRecord,
}

impl Unpacking {
    /// Starts `helper` to unpack, and to write down in `recipe`, a file that it makes, how the stream is made again.
    pub fn start(
        helper: &Path,
        layer: &str,
        into: Destination<'_>,
        recipe: Option<&Path>,
        limits: Limits,
    ) -> Result<Unpacking, ImageError> {
        let recipe = recipe.unwrap_or(Path::new("/dev/null"));
        let (tree, image) = match into {
            Destination::Directory(tree) => (tree, Path::new("")),
            Destination::Image { file, empty } => (empty, file),
        };
        let Limits { memory, content, entries } = limits;
        let numbers = [memory, content, entries].map(|number| number.to_string());
        let child = Command::new(helper)
            .args([OsStr::new(ARGUMENT), OsStr::new("layer"), tree.as_os_str(), image.as_os_str(), recipe.as_os_str()])
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ImageError::Helper { path: helper.to_owned(), source })?;
        if let Some(stdin) = &child.stdin {
            // A smaller pipe is slower and nothing else.
            let _ = rustix::pipe::fcntl_setpipe_size(stdin, PIPE);
        }
        Ok(Unpacking { child, layer: layer.to_owned(), place: tree.to_owned() })
    }

    /// Gives the child compressed bytes. `false` when it wants no more, and [`Unpacking::finish`] knows why.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<bool, ImageError> {
        let Some(stdin) = &mut self.child.stdin else { return Ok(false) };
        match stdin.write_all(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(ImageError::file("feed the unpacking of", &self.place)(error)),
        }
    }

    /// Where the child reads, for whoever can give it bytes without having them.
    pub fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.child.stdin.as_ref().map(AsFd::as_fd)
    }

    /// Gives the child everything that `write` writes, and waits.
    pub fn feed_all(
        mut self,
        write: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), ImageError>,
    ) -> Result<Unpacked, ImageError> {
        let mut feeding = Feeding { unpacking: &mut self, failure: None };
        let written = write(&mut feeding);
        // Why the child stopped reading is better known to the child.
        match (feeding.failure, written) {
            (Some(Stop::Failed(error)), _) | (None, Err(error)) => Err(error),
            (Some(Stop::HungUp), _) | (None, Ok(())) => self.finish(),
        }
    }

    /// Ends the input and waits.
    pub fn finish(mut self) -> Result<Unpacked, ImageError> {
        drop(self.child.stdin.take());
        match hear(&mut self.child, &self.layer, &self.place)? {
            Report::Unpacked { diff_id, record } => Ok(Unpacked { diff_id, record }),
            other => Err(unexpected(&self.layer, &other)),
        }
    }
}

/// Why the stream to the child ended before its writer did.
enum Stop {
    HungUp,
    Failed(ImageError),
}

/// The child as something to write to.
struct Feeding<'a> {
    unpacking: &'a mut Unpacking,
    failure: Option<Stop>,
}

impl Write for Feeding<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.failure = match self.unpacking.feed(bytes) {
            Ok(true) => return Ok(bytes.len()),
            Ok(false) => Some(Stop::HungUp),
            Err(error) => Some(Stop::Failed(error)),
        };
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        // It has ended already, or nobody wants its result: either way there is nothing to hear.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where each file of the archive `input` is. `empty` is a directory for the child to be confined in.
pub fn list(helper: &Path, input: &File, empty: &Path, limits: Limits) -> Result<Vec<Listed>, ImageError> {
    match run(helper, "list", input, Stdio::piped(), empty, limits)? {
        Report::Listed { members } => Ok(members),
        other => Err(unexpected("archive", &other)),
    }
}

/// Inflates the archive `input` into `output`.
pub fn inflate(helper: &Path, input: &File, output: &File, empty: &Path, limits: Limits) -> Result<(), ImageError> {
    let output = output.try_clone().map_err(ImageError::file("use", empty))?;
    match run(helper, "inflate", input, Stdio::from(output), empty, limits)? {
        Report::Listed { .. } => Ok(()),
        other => Err(unexpected("archive", &other)),
    }
}

fn run(
    helper: &Path,
    task: &str,
    input: &File,
    output: Stdio,
    empty: &Path,
    limits: Limits,
) -> Result<Report, ImageError> {
    let input = input.try_clone().map_err(ImageError::file("use", empty))?;
    let mut child = Command::new(helper)
        .args([OsStr::new(ARGUMENT), OsStr::new(task), empty.as_os_str()])
        .args([limits.memory, limits.content].map(|number| number.to_string()))
        .stdin(Stdio::from(input))
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ImageError::Helper { path: helper.to_owned(), source })?;
    hear(&mut child, "archive", empty)
}

/// The child's report, and the meaning of its silence.
fn hear(child: &mut Child, layer: &str, place: &Path) -> Result<Report, ImageError> {
    // One after the other, each to its end and closed: a child that waits for a reader would be waited for, for ever.
    let output = hear_out(child.stdout.take(), place)?;
    let complaint = match output {
        Some(_) => hear_out(child.stderr.take(), place)?,
        None => None,
    };
    let (Some(output), Some(complaint)) = (output, complaint) else {
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().map_err(ImageError::file("wait for the unpacking of", place))?;
        let problem = format!("the names in it take more than the {REPORT_MAX} bytes allowed");
        return Err(ImageError::Layer { layer: layer.to_owned(), problem });
    };
    let status = child.wait().map_err(ImageError::file("wait for the unpacking of", place))?;
    let said = if output.is_empty() { &complaint } else { &output };
    let problem = match serde_json::from_slice(said) {
        Ok(Report::Failed(Problem::DiskFull)) => return Err(ImageError::DiskFull { path: place.to_owned() }),
        Ok(Report::Failed(Problem::Memory)) => return Err(ImageError::LayerMemory { layer: layer.to_owned() }),
        Ok(Report::Failed(Problem::Other(problem))) => problem,
        Ok(report) => return Ok(report),
        Err(_) if is_out_of_memory(status, &complaint) => {
            return Err(ImageError::LayerMemory { layer: layer.to_owned() });
        }
        Err(_) => silence(status, &complaint),
    };
    Err(ImageError::Layer { layer: layer.to_owned(), problem })
}

/// All that is said there, or nothing where it is too much.
fn hear_out(said: Option<impl Read>, place: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let mut bytes = Vec::new();
    if let Some(said) = said {
        let read = said.take(REPORT_MAX + 1).read_to_end(&mut bytes);
        read.map_err(ImageError::file("hear from the unpacking of", place))?;
    }
    Ok((bytes.len() as u64 <= REPORT_MAX).then_some(bytes))
}

fn is_out_of_memory(status: ExitStatus, complaint: &[u8]) -> bool {
    status.signal() == Some(libc::SIGABRT) && String::from_utf8_lossy(complaint).contains("memory allocation")
}

fn silence(status: ExitStatus, complaint: &[u8]) -> String {
    let complaint = String::from_utf8_lossy(complaint);
    match status.signal() {
        Some(signal) => format!("its process was ended by signal {signal}"),
        None => format!("its process ended with {status} and no word: {}", complaint.trim()),
    }
}

fn unexpected(layer: &str, report: &Report) -> ImageError {
    ImageError::Layer {
        layer: layer.to_owned(),
        problem: format!("its process gave an answer to another task: {report:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_says_too_much_is_ended_and_not_waited_for() {
        for words in ["exec cat /dev/zero", "exec >&2 cat /dev/zero"] {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", words]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let error = hear(&mut shell.spawn().unwrap(), "archive", Path::new("/")).unwrap_err();
            assert!(
                matches!(&error, ImageError::Layer { problem, .. } if problem.contains("bytes allowed")),
                "{error}"
            );
        }
    }
}
