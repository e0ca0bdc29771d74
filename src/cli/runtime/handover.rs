//! What goes from the caller into a process of the container and back: descriptors, a terminal, a number.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use oci_spec::runtime::{BoxBuilder, Process as ProcessSpec};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::process::Pid;

use super::log::failure;
use crate::cli::failure::Failure;
use crate::cli::terminal::window;
use crate::runtime::binary;
use crate::runtime::launch::{Inheritance, Keyring, Lines, Stdio, open_process};
use crate::sys::descriptors::close_on_exec_from;

// What `create`, `run` and `exec` have in common.
#[derive(Debug, Args)]
pub struct HandoverArguments {
    /// Send the terminal's master side to this socket (AF_UNIX)
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,

    /// Send a descriptor of the process (pidfd_open(2)) to this socket (AF_UNIX)
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,

    /// Write the process's number, as the host sees it, to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Pass so many descriptors from 3 on, besides those of LISTEN_FDS
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub preserve_fds: u32,
}

/// The caller's standard descriptors.
pub struct Standard {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Standard {
    pub fn take() -> io::Result<Standard> {
        let above = |fd: rustix::fd::BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        Ok(Standard {
            stdin: above(io::stdin().as_fd())?,
            stdout: above(io::stdout().as_fd())?,
            stderr: above(io::stderr().as_fd())?,
        })
    }

    /// These, or a terminal, as `process` wants it.
    ///
    /// As runc does, one that we stand in front of hands on what is written as it is: the terminal in front of us, if there
    /// is one, completes the lines by itself, and a file has none that are.
    pub fn stdio(&self, process: Option<&ProcessSpec>, attendance: Attendance) -> Stdio<'_> {
        let lines = if attendance == Attendance::Attended { Lines::Kept } else { Lines::Completed };
        match process.is_some_and(|process| process.terminal() == Some(true)) {
            true => Stdio::Terminal(lines),
            false => Stdio::Descriptors { stdin: &self.stdin, stdout: &self.stdout, stderr: &self.stderr },
        }
    }
}

/// Makes this process fit to start others: executed through a mount that nobody can write to (CVE-2019-5736), and
/// with nothing open that a process inherits by accident. Must come before anything is opened.
pub fn get_ready() -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::from(error).context("cannot execute this program from a read-only mount");
    if !binary::is_read_only().map_err(failure)? {
        let view = binary::read_only(Path::new("/proc/self/exe")).map_err(failure)?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&view)));
        if let Some(name) = arguments.next() {
            std::os::unix::process::CommandExt::arg0(&mut command, name);
        }
        return Err(cannot(std::os::unix::process::CommandExt::exec(command.args(arguments))));
    }
    Ok(close_on_exec_from(3)?)
}

/// What was executed by a descriptor has its number for a name (proc(5), /proc/pid/comm), and so would containers that
/// wait to be started.
pub fn take_name() {
    // A name is for people; nothing depends on it. The kernel keeps 15 bytes.
    let _ = rustix::thread::set_name(c"evenkeel-runtime");
}

/// What is to be inherited, and the variables that tell of it (sd_listen_fds(3)).
pub fn inheritance(arguments: &HandoverArguments, keyring: Keyring) -> Result<(Inheritance, Vec<String>), Failure> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    let is_ours = number("LISTEN_PID") == Some(std::process::id());
    let listening = number("LISTEN_FDS").filter(|_| is_ours).unwrap_or(0);
    let descriptors = listening.saturating_add(arguments.preserve_fds);
    let end = descriptors.saturating_add(3);
    if let Some(number) = (3..end).find(|number| !Path::new(&format!("/proc/self/fd/{number}")).exists()) {
        let failure = Failure::usage(format!("descriptor {number} is to be passed on and is not open"));
        return Err(failure.hint(format!("`--preserve-fds {}` asks for it", arguments.preserve_fds)));
    }
    let variables = match listening {
        0 => Vec::new(),
        // The first process of the container, as it sees itself.
        listening => vec![format!("LISTEN_FDS={listening}"), "LISTEN_PID=1".to_owned()],
    };
    Ok((Inheritance { descriptors, keyring }, variables))
}

/// Whether somebody stays with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attendance {
    Attended,
    Detached,
}

/// A terminal needs somebody at its other side: us, or who listens at the console socket.
pub fn check_terminal(
    process: Option<&ProcessSpec>,
    arguments: &HandoverArguments,
    attendance: Attendance,
) -> Result<(), Failure> {
    let terminal = process.is_some_and(|process| process.terminal() == Some(true));
    match (terminal, &arguments.console_socket, attendance) {
        (true, None, Attendance::Detached) => Err(Failure::usage("a terminal needs `--console-socket`")),
        (false, Some(_), _) => Err(Failure::usage("`--console-socket` needs `process.terminal`, which is not set")),
        (true, Some(_), Attendance::Attended) => Err(Failure::usage("`--console-socket` needs a detached process")),
        _ => Ok(()),
    }
}

/// A terminal that we stand in front of is as large as ours from the first moment on.
pub fn size_terminal(process: &mut ProcessSpec, attendance: Attendance) -> Result<(), Failure> {
    if attendance == Attendance::Attended
        && process.terminal() == Some(true)
        && let Some(size) = window()
    {
        let size = BoxBuilder::default().height(size.ws_row).width(size.ws_col).build()?;
        process.set_console_size(Some(size));
    }
    Ok(())
}

/// Sends a descriptor to a socket, with a message that says what it is.
fn send(descriptor: BorrowedFd<'_>, message: &str, path: &Path) -> Result<(), Failure> {
    let send = || -> io::Result<()> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(&socket, &[IoSlice::new(message.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    send().map_err(|error| Failure::from(error).context(format!("cannot send `{message}` to `{}`", path.display())))
}

/// Writes the number whole: a reader sees it or nothing. Into a new file, as its directory may be open to others.
fn write_pid(path: &Path, pid: Pid) -> Result<(), Failure> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let write = || -> io::Result<()> {
        File::create_new(&aside)?.write_all(pid.as_raw_nonzero().to_string().as_bytes())?;
        std::fs::rename(&aside, path)
    };
    write().map_err(|error| Failure::from(error).context(format!("cannot write the pid file `{}`", path.display())))
}

/// Tells the caller of a process, a child of ours that nobody has waited for: its terminal, a descriptor of it and its
/// number, where they are asked for.
pub fn tell(terminal: Option<&OwnedFd>, pid: Pid, arguments: &HandoverArguments) -> Result<(), Failure> {
    if let (Some(terminal), Some(path)) = (terminal, &arguments.console_socket) {
        send(terminal.as_fd(), "/dev/ptmx", path)?;
    }
    if let Some(path) = &arguments.pidfd_socket {
        send(open_process(pid).map_err(failure)?.as_fd(), "pidfd", path)?;
    }
    arguments.pid_file.as_ref().map_or(Ok(()), |path| write_pid(path, pid))
}
