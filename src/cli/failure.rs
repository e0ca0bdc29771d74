//! How a command ends: exit codes, and an error with its causes and hints.
//!
//! Errors of every module become a [`Failure`] at the edge, where the chain is printed once:
//!
//! ```text
//! error: cannot pull `registry.example.org/shop/web:1.4`
//!   caused by: cannot connect to registry.example.org:443
//!   caused by: connection refused
//! hint: is the registry up? `pull = "never"` uses what the host has
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde::Serialize;

use super::output::{Format, Output};
use crate::engine::error::EngineError;
use crate::manifest::{Colour, Located, Problems};
use crate::model::foreign::tamed;
use crate::monitor::error::MonitorError;

/// The exit codes of DESIGN.md section 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done,
    Error,
    /// Changes are pending; only with `--detailed-exitcode`.
    Pending,
    /// Applied, but something is degraded or was rolled back.
    Degraded,
    /// Refused by a guard.
    Refused,
    /// The plan is stale, or another apply holds the lock.
    Stale,
    /// sysexits(3) EX_USAGE.
    Usage,
    /// The status of a command that was run in a container.
    Status(u8),
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Pending => 2,
            Exit::Degraded => 3,
            Exit::Refused => 4,
            Exit::Stale => 5,
            Exit::Usage => 64,
            Exit::Status(status) => status,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    /// Apart, since results carry a `Failure` through every command and are mostly `Ok`.
    account: Box<Account>,
}

#[derive(Debug)]
struct Account {
    message: String,
    /// Each the cause of the one before it, or, without a label, each on its own.
    causes: Vec<String>,
    label: &'static str,
    hints: Vec<String>,
    /// What is wrong in manifests, each with its place.
    problems: Vec<Problems>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        let message = message.into();
        let account =
            Account { message, causes: Vec::new(), label: "caused by: ", hints: Vec::new(), problems: Vec::new() };
        Failure { exit: Exit::Error, account: Box::new(account) }
    }

    /// The manifests do not say something that can be done.
    pub fn problems(problems: Problems) -> Failure {
        Failure::problems_in("the manifest", problems)
    }

    /// A Dockerfile that a command was given does not say something that can be done.
    pub fn dockerfile_problems(problems: Problems) -> Failure {
        Failure::problems_in("the Dockerfile", problems)
    }

    /// Two files of which neither says something that can be done.
    pub fn and(mut self, other: Failure) -> Failure {
        self.account.message = format!("{}, {}", self.account.message, other.account.message);
        self.account.problems.extend(other.account.problems);
        self
    }

    /// The host file does not say something that can be done.
    pub fn host_problems(problems: Problems) -> Failure {
        Failure::problems_in("the host file", problems)
    }

    /// The lock file does not say something that can be understood.
    pub fn lock_problems(problems: Problems) -> Failure {
        Failure::problems_in("the lock file", problems)
    }

    fn problems_in(file: &str, problems: Problems) -> Failure {
        let count = super::phrase::counted(problems.count() as u64, "problem");
        let mut failure = Failure::new(format!("{count} in {file}"));
        failure.account.problems.push(problems);
        failure
    }

    /// An error of the engine, with the next step that it knows.
    pub fn engine(error: EngineError) -> Failure {
        let hint = error.hint();
        let exit = if matches!(error, EngineError::Locked { .. }) { Exit::Stale } else { Exit::Error };
        hint.into_iter().fold(Failure::from(error).exit(exit), Failure::hint)
    }

    /// An error of a monitor, with the next step that it knows.
    pub fn monitor(error: MonitorError) -> Failure {
        let hint = error.hint().map(str::to_owned);
        hint.into_iter().fold(Failure::from(error), Failure::hint)
    }

    /// This mistake was made in the command's arguments.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(message).exit(Exit::Usage)
    }

    /// Several reasons of equal weight.
    pub fn list(message: impl Into<String>, reasons: impl IntoIterator<Item = String>) -> Failure {
        let mut failure = Failure::new(message);
        failure.account.causes = reasons.into_iter().collect();
        failure.account.label = "";
        failure
    }

    pub fn exit(self, exit: Exit) -> Failure {
        Failure { exit, ..self }
    }

    /// The same failure as a command says it whose exit codes are those of what it runs, as Docker has it: 125 is ours.
    /// What a shell would say (126, 127) is kept, and a reader who left is no failure.
    pub fn before_the_command(self) -> Failure {
        match self.exit {
            Exit::Status(_) | Exit::Done => self,
            _ => self.exit(Exit::Status(125)),
        }
    }

    /// What the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.account.hints.push(hint.into());
        self
    }

    /// The same failure as the cause of `message`.
    pub fn context(mut self, message: impl Into<String>) -> Failure {
        let cause = std::mem::replace(&mut self.account.message, message.into());
        self.account.causes.insert(0, cause);
        self
    }

    /// A failure to write to stdout. That nobody reads any more is no failure: the reader had enough.
    pub fn stdout(error: &io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new("").exit(Exit::Done),
            _ => Failure::new(error.to_string()).context("cannot write to standard output"),
        }
    }

    pub fn exit_code(&self) -> Exit {
        self.exit
    }

    /// Message and causes in one line, for logs.
    pub fn line(&self) -> String {
        let causes = self.account.causes.iter();
        causes.fold(self.account.message.clone(), |line, cause| line + ": " + cause)
    }

    /// All of it as it is printed, without colour, for logs.
    pub fn plain(&self) -> String {
        anstream::adapter::strip_str(&self.account.render(Format::Text)).to_string()
    }

    /// Prints it to stderr and says how to exit.
    pub fn report(self, output: &Output) -> ExitCode {
        if self.exit != Exit::Done {
            let text = self.account.render(output.format());
            // There is no one else to tell when stderr is closed; the exit code still says it.
            let _ = anstream::stderr().write_all(text.as_bytes());
        }
        self.exit.into()
    }
}

impl Account {
    fn render(&self, format: Format) -> String {
        if format == Format::Json {
            let problems = self.problems.iter().flat_map(Problems::located).collect();
            let document = Document { error: &self.message, causes: &self.causes, hints: &self.hints, problems };
            // Strings and lists of strings always serialise.
            return serde_json::to_string(&document).unwrap_or_default() + "\n";
        }
        let (red, bold) = (super::output::ERROR, super::output::STRONG);
        let mut text = String::new();
        for problems in &self.problems {
            // Styles that stderr does not show are taken out when it is written.
            text += &(problems.render(Colour::Ansi) + "\n\n");
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "{red}error:{red:#} {}", tamed(&self.message));
        for cause in &self.causes {
            let _ = writeln!(text, "  {}{}", self.label, tamed(cause));
        }
        for hint in &self.hints {
            text += &format!("{bold}hint:{bold:#} {}\n", tamed(hint));
        }
        text
    }
}

#[derive(Serialize)]
struct Document<'a> {
    error: &'a str,
    causes: &'a [String],
    hints: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Located>,
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut failure = Failure::new(error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            failure.account.causes.push(cause.to_string());
            source = cause.source();
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_printed_from_the_outside_in_and_hints_come_last() {
        let number = "x".parse::<u8>().unwrap_err();
        let failure = Failure::from(number).context("cannot read `port`").hint("use digits");
        assert_eq!(
            failure.plain(),
            "error: cannot read `port`\n  caused by: invalid digit found in string\nhint: use digits\n"
        );
    }

    #[test]
    fn a_reader_who_left_is_no_error() {
        assert_eq!(Failure::stdout(&io::Error::from(io::ErrorKind::BrokenPipe)).exit, Exit::Done);
        assert_eq!(Failure::stdout(&io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Error);
    }

    #[test]
    fn json_errors_are_one_line() {
        let failure = Failure::new("a\nb").hint("c");
        assert_eq!(failure.account.render(Format::Json), "{\"error\":\"a\\nb\",\"causes\":[],\"hints\":[\"c\"]}\n");
    }

    #[test]
    fn what_a_container_said_does_not_reach_the_terminal_as_orders() {
        let failure = Failure::list("web is unhealthy: \x1b[2J", ["\x1b]0;x\x07".to_owned()]);
        let text = failure.account.render(Format::Text);
        assert!(!text.contains("\x1b[2J") && !text.contains("\x1b]") && !text.contains('\x07'), "{text:?}");
    }
}
