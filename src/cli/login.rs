//! `evenkeel login` and `evenkeel logout`: credentials for a registry, checked before they are kept.
//!
//! # Decisions
//! * They are kept in `/etc/evenkeel/auth.json`, not below `$HOME`: the service that pulls with them has no `$HOME`, and
//!   the one of whoever uses sudo is another.
//! * There is no option for the password: everybody on the host can read the arguments of a process.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use crate::engine::image::ImageError;
use crate::engine::image::registry::credentials::{self, Kept};
use crate::engine::image::registry::login;
use crate::model::host_config::RegistryName;
use crate::model::reference::ReferenceError;

#[derive(Debug, Args)]
pub struct LoginArguments {
    /// The registry: `registry.example.org:5000`
    #[arg(value_name = "HOST", default_value = "docker.io", value_parser = registry)]
    registry: RegistryName,

    /// Who logs in; asked for on a terminal
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,

    /// What Docker's users know; refused with the reason
    #[arg(short, long, value_name = "PASSWORD", hide = true)]
    password: Option<String>,

    /// Read the password, or token, from standard input
    #[arg(long)]
    password_stdin: bool,

    #[command(flatten)]
    file: FileArguments,
}

#[derive(Debug, Args)]
pub struct LogoutArguments {
    /// The registry: `registry.example.org:5000`
    #[arg(value_name = "HOST", default_value = "docker.io", value_parser = registry)]
    registry: RegistryName,

    #[command(flatten)]
    file: FileArguments,
}

#[derive(Debug, Args)]
struct FileArguments {
    /// Where credentials are kept [default: $REGISTRY_AUTH_FILE, else /etc/evenkeel/auth.json]
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
}

impl FileArguments {
    fn path(&self) -> PathBuf {
        let named = || std::env::var_os("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
        self.auth_file.clone().or_else(named).unwrap_or_else(|| PathBuf::from(credentials::OWN_FILE))
    }
}

#[derive(Serialize)]
struct LoggedIn<'a> {
    registry: &'a RegistryName,
    username: &'a str,
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<String>,
}

pub fn login(arguments: &LoginArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let registry = &arguments.registry;
    if arguments.password.is_some() {
        return Err(Failure::usage("a password among the arguments can be read by everybody on this host")
            .hint("`--password-stdin` reads it from standard input, and on a terminal it is asked for"));
    }
    let options = context.images(PathBuf::new())?;
    let username = match &arguments.username {
        Some(name) => name.clone(),
        None if arguments.password_stdin || !io::stdin().is_terminal() => {
            return Err(Failure::usage("there is no terminal to ask for the name").hint("name it with `-u NAME`"));
        }
        None => ask("Username: ")?,
    };
    if username.is_empty() || username.contains(':') {
        return Err(Failure::usage("a user name is not empty and has no colon in it"));
    }
    let password = match arguments.password_stdin {
        true => from_stdin()?,
        false if io::stdin().is_terminal() => ask_secretly("Password: ")?,
        false => {
            return Err(Failure::usage("there is no terminal to ask for the password")
                .hint("`--password-stdin` reads it from standard input"));
        }
    };
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    login::check(registry, &username, &password, &options).map_err(failure)?;
    let file = arguments.file.path();
    let kept = credentials::keep(&file, registry.as_str(), &username, &password).map_err(not_kept)?;
    let helper = match kept {
        Kept::File => None,
        Kept::Helper(name) => Some(name),
    };
    match output.format() {
        Format::Json => output.document(&LoggedIn { registry, username: &username, file, helper })?,
        Format::Text => {
            let place = match helper {
                Some(helper) => format!("docker-credential-{helper}"),
                None => file.display().to_string(),
            };
            output.text(&format!("logged in to {registry} as {username}; kept in {place}\n"))?;
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct LoggedOut<'a> {
    registry: &'a RegistryName,
    file: PathBuf,
    removed: bool,
}

pub fn logout(arguments: &LogoutArguments, output: &Output) -> Result<Exit, Failure> {
    let registry = &arguments.registry;
    let file = arguments.file.path();
    let removed = credentials::forget(&file, registry.as_str()).map_err(not_kept)?;
    for other in credentials::files(&|name: &str| -> Option<OsString> { std::env::var_os(name) }) {
        // One that cannot be read lets nobody in.
        if other != file && credentials::file::knows(&other, registry.as_str()).unwrap_or(false) {
            output
                .warning(&format!("`{}` has credentials for {registry}, too; `--auth-file` names it", other.display()));
        }
    }
    match output.format() {
        Format::Json => output.document(&LoggedOut { registry, file, removed })?,
        Format::Text if removed => output.text(&format!("logged out of {registry}\n"))?,
        Format::Text => output.text(&format!("{} has nothing for {registry}\n", file.display()))?,
    }
    Ok(Exit::Done)
}

/// A registry as it is copied from a browser or from Docker's own documentation, too: `https://registry.example.org/`,
/// `https://index.docker.io/v1/`. How it is reached is for the host file to say.
fn registry(text: &str) -> Result<RegistryName, ReferenceError> {
    let name = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let name = name.trim_end_matches('/');
    let name = name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name);
    name.parse()
}

fn failure(error: ImageError) -> Failure {
    let hint = error.hint();
    hint.into_iter().fold(Failure::from(error), Failure::hint)
}

fn not_kept(error: ImageError) -> Failure {
    failure(error).hint("`--auth-file FILE` names another place; that of all, /etc/evenkeel, needs root")
}

/// The whole of standard input without the end of its line.
fn from_stdin() -> Result<String, Failure> {
    const LONGEST: u64 = 64 << 10;
    let mut text = String::new();
    let read = io::stdin().take(LONGEST + 1).read_to_string(&mut text);
    let failed = |problem: &str| Failure::new(problem).context("cannot read the password from standard input");
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(failed("it is not UTF-8 text")),
        Err(error) => Err(failed(&error.to_string())),
        Ok(count) if count as u64 > LONGEST => Err(failed("it has no end")),
        Ok(_) => Ok(text.strip_suffix('\n').map(|text| text.trim_end_matches('\r').to_owned()).unwrap_or(text)),
    }
}

fn ask(question: &str) -> Result<String, Failure> {
    let mut stderr = anstream::stderr();
    let asked = write!(stderr, "{question}").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::from(error).context("cannot ask"))?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| Failure::from(error).context("cannot read the answer"))?;
    // ^C, where it comes as a character.
    if line.contains('\u{3}') {
        return Err(Failure::new("cancelled"));
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks without showing the answer. As getpass(3) does: without signals from the keyboard, which would leave the
/// terminal so.
fn ask_secretly(question: &str) -> Result<String, Failure> {
    let failed = |error: rustix::io::Errno| Failure::from(io::Error::from(error)).context("cannot hide the password");
    let before = tcgetattr(io::stdin()).map_err(failed)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).map_err(failed)?;
    let answer = ask(question);
    tcsetattr(io::stdin(), OptionalActions::Flush, &before).map_err(failed)?;
    // The end of the line was not shown either; that nothing can be shown is no failure of the login.
    let _ = writeln!(anstream::stderr());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_taken_as_people_copy_it() {
        for (text, expected) in [
            ("registry.example.org:5000", "registry.example.org:5000"),
            ("https://registry.example.org", "registry.example.org"),
            ("http://localhost:5000/", "localhost:5000"),
            ("https://registry.example.org/v2/", "registry.example.org"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            assert_eq!(registry(text).unwrap().as_str(), expected, "{text}");
        }
        for text in ["", "https://", "registry.example.org/shop", "ftp://registry.example.org"] {
            assert!(registry(text).is_err(), "{text}");
        }
    }
}
