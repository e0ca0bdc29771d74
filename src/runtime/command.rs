//! From the first word of a command to execve(2), with the reason in words when it fails.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};
use rustix::fs::{FileType, stat};

use super::error::{RuntimeError, invalid};

/// Where a command is looked for when the environment says nothing, as Docker's images expect.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command, found, with its arguments and its environment.
pub(super) struct Command {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    name: String,
}

/// Finds the command in the root, and as the user, that this process has. Its directory is the working directory.
pub(super) fn find(arguments: &[String], environment: &[String]) -> Result<Command, RuntimeError> {
    let name = &arguments[0];
    let path = if name.contains('/') {
        check(name)?;
        name.clone()
    } else {
        search(name, environment)?
    };
    let text = |text: &String| CString::new(text.as_str()).map_err(|_| invalid("process", "it holds a zero byte"));
    Ok(Command {
        path: text(&path)?,
        arguments: arguments.iter().map(text).collect::<Result<_, _>>()?,
        environment: environment.iter().map(text).collect::<Result<_, _>>()?,
        name: name.clone(),
    })
}

/// The first executable file of that name (execvp(3)). One that is there but may not be executed is remembered for
/// the message.
fn search(name: &str, environment: &[String]) -> Result<String, RuntimeError> {
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let mut refused = None;
    for directory in path.unwrap_or(DEFAULT_PATH).split(':') {
        let candidate = format!("{}/{name}", if directory.is_empty() { "." } else { directory });
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(RuntimeError::CommandNotExecutable { source, .. }) => refused = Some(source),
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(source) => RuntimeError::CommandNotExecutable { command: name.to_owned(), source },
        None => RuntimeError::CommandNotFound { command: name.to_owned() },
    })
}

fn check(path: &str) -> Result<(), RuntimeError> {
    let refuse = |source| RuntimeError::CommandNotExecutable { command: path.to_owned(), source };
    match stat(path) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
            Err(RuntimeError::CommandNotFound { command: path.to_owned() })
        }
        Err(errno) => Err(refuse(errno.into())),
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
            Err(refuse(io::Error::from_raw_os_error(libc::EISDIR)))
        }
        Ok(_) => access(path, AccessFlags::X_OK).map_err(|errno| refuse(errno.into())),
    }
}

impl Command {
    /// Its environment, as `NAME=VALUE`.
    pub(super) fn environment(&self) -> Vec<String> {
        self.environment.iter().map(|variable| variable.to_string_lossy().into_owned()).collect()
    }

    /// Becomes the command. Returns only the reason why not.
    pub(super) fn execute(&self) -> Result<Infallible, RuntimeError> {
        let arguments: Vec<&CStr> = self.arguments.iter().map(CString::as_c_str).collect();
        let environment: Vec<&CStr> = self.environment.iter().map(CString::as_c_str).collect();
        let errno = match execve(&self.path, &arguments, &environment) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        let command = self.name.clone();
        Err(match errno {
            // The file was there a moment ago: what is missing is what its first line, or its ELF header, names.
            Errno::ENOENT => RuntimeError::InterpreterNotFound { command },
            errno => RuntimeError::CommandNotExecutable { command, source: errno.into() },
        })
    }
}
