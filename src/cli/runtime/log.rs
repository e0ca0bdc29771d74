//! Errors and warnings as callers read them: containerd and Podman take the reason of a failure from the last line of
//! `--log FILE --log-format json` whose level is `error`, people read standard error.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::json;

use super::arguments::{Global, LogFormat};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::runtime::RuntimeError;

/// Where what happens is told.
#[derive(Debug)]
pub struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    is_debug: bool,
}

impl Log {
    pub fn new(global: &Global) -> Log {
        Log { file: global.log.clone(), format: global.log_format, is_debug: global.debug }
    }

    pub fn debug(&self, message: &str) {
        if self.is_debug {
            self.write("debug", message);
        }
    }

    pub fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// Tells why the command failed, and how to exit.
    pub fn fail(&self, failure: Failure) -> ExitCode {
        if failure.exit_code() != Exit::Done && (self.file.is_some() || self.format == LogFormat::Json) {
            self.write("error", &failure.line());
        }
        match (&self.file, self.format) {
            (None, LogFormat::Text) => return failure.report(&Output::new(Format::Text)),
            (None, LogFormat::Json) => {}
            // A caller, who shows a line of it to people.
            (Some(_), _) if failure.exit_code() == Exit::Done => {}
            (Some(_), _) => Output::new(Format::Text).remark(&failure.line()),
        }
        failure.exit_code().into()
    }

    fn write(&self, level: &str, message: &str) {
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let line = match self.format {
            LogFormat::Json => json!({"level": level, "msg": message, "time": time.to_string()}).to_string() + "\n",
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        };
        // A log that cannot be written must not fail the command: what is said there is lost.
        let _ = match &self.file {
            Some(path) => File::options()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// An error of the runtime, with the words by which callers tell a missing command (exit code 127) from one that
/// cannot be executed (126), as runc says them.
pub fn failure(error: RuntimeError) -> Failure {
    let words = match &error {
        RuntimeError::CommandNotFound { command } if !command.contains('/') => "executable file not found in $PATH",
        RuntimeError::CommandNotFound { .. } | RuntimeError::InterpreterNotFound { .. } => "no such file or directory",
        RuntimeError::CommandNotExecutable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "permission denied"
        }
        _ => return Failure::from(error),
    };
    Failure::new(words).context(error.to_string())
}
