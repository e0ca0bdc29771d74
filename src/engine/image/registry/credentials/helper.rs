//! Credential helpers: programs `docker-credential-NAME` that keep secrets where a file would not
//! (docker/docker-credential-helpers: `get`, `store` and `erase`, spoken over standard input and output).
//!
//! A secret goes to them by standard input and comes by standard output, never as an argument.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use super::{Credential, malformed};
use crate::engine::image::error::ImageError;

/// A helper may ask somebody for a password, who may not be there.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX: u64 = 1 << 20;
/// How long what a helper left behind may hold its output open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What the helpers' own library says.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// What the helper has for a registry.
pub(super) fn get(path: &Path, helper: &str, registry: &str) -> Result<Option<Credential>, ImageError> {
    let said = match call(path, helper, "get", registry.as_bytes())? {
        Said::Done(output) => output,
        Said::Failed(words) => {
            if !words.contains(NOT_FOUND) {
                // Many images need no credentials: whether these do, the registry says.
                tracing::warn!("the credential helper `{helper}` has nothing for `{registry}`: {words}");
            }
            return Ok(None);
        }
    };
    let answer: Answer = serde_json::from_slice(&said)
        .map_err(|_| malformed(path, format!("`docker-credential-{helper}` gave no valid answer")))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", token) => Some(Credential::Identity(token)),
        (user, password) => Some(Credential::Basic { user: user.to_owned(), password }),
    })
}

pub(super) fn store(path: &Path, helper: &str, registry: &str, user: &str, password: &str) -> Result<(), ImageError> {
    let entry = json!({ "ServerURL": registry, "Username": user, "Secret": password }).to_string();
    match call(path, helper, "store", entry.as_bytes())? {
        Said::Done(_) => Ok(()),
        Said::Failed(words) => Err(malformed(path, format!("`docker-credential-{helper}` did not keep it: {words}"))),
    }
}

/// Whether there was something to erase. Not every helper tells.
pub(super) fn erase(path: &Path, helper: &str, registry: &str) -> Result<bool, ImageError> {
    match call(path, helper, "erase", registry.as_bytes())? {
        Said::Done(_) => Ok(true),
        Said::Failed(words) if words.contains(NOT_FOUND) => Ok(false),
        Said::Failed(words) => Err(malformed(path, format!("`docker-credential-{helper}` did not erase it: {words}"))),
    }
}

enum Said {
    Done(Vec<u8>),
    /// In its own words, a line.
    Failed(String),
}

fn call(path: &Path, helper: &str, verb: &str, input: &[u8]) -> Result<Said, ImageError> {
    let failed = |problem: String| malformed(path, problem);
    // The name becomes a program: a slash would let whoever writes the file run any.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if helper.is_empty() || !helper.chars().all(plain) {
        return Err(failed(format!("`{helper}` is not the name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(format!("`{program}` cannot be run: {error}")))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let input = input.to_vec();
    // A helper that reads nothing still answers. Neither thread is waited for: what the helper left behind may hold the
    // other ends for as long as it likes.
    std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let (to, pieces) = mpsc::channel();
    std::thread::spawn(move || read_pieces(stdout, &to));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                // It may end by itself at this moment.
                let _ = child.kill();
                // Nothing but its end is waited for, and that is its end.
                let _ = child.wait();
                return Err(failed(format!("`{program}` did not answer within a minute")));
            }
            Err(error) => return Err(failed(format!("`{program}` cannot be waited for: {error}"))),
        }
    };
    // What a helper that has ended has written is in the pipe.
    let (mut output, deadline) = (Vec::new(), Instant::now() + LAST_WORDS);
    while let Ok(piece) = pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        output.extend(piece.map_err(|error| failed(format!("`{program}` cannot be read: {error}")))?);
    }
    if status.success() {
        return Ok(Said::Done(output));
    }
    let line = String::from_utf8_lossy(&output).trim().lines().next().unwrap_or_default().to_owned();
    Ok(Said::Failed(if line.is_empty() { format!("{status}") } else { line.chars().take(200).collect() }))
}

/// Sends what comes, until the end or until that is enough.
fn read_pieces(stdout: Option<ChildStdout>, to: &mpsc::Sender<std::io::Result<Vec<u8>>>) {
    let Some(stdout) = stdout else { return };
    let mut stdout = stdout.take(ANSWER_MAX);
    loop {
        let mut piece = vec![0; 4096];
        let read = stdout.read(&mut piece).map(|count| {
            piece.truncate(count);
            piece
        });
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        // Nobody listens any more where it came too late.
        if to.send(read).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_a_name_and_no_path() {
        for name in ["../evil", "", "a b", "/bin/sh"] {
            assert!(get(Path::new("config.json"), name, "a").is_err(), "{name}");
        }
    }
}
