//! Running other programs, and what they said when they failed.

use std::process::{Command, Stdio};

use crate::Result;

/// A command of words, divided by spaces.
pub fn command(words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Runs it to its end with its output thrown away; an error with what it wrote to stderr unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}: {}", output.status, said.trim()).into())
        }
    }
}

/// Runs it, and gives what it printed.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("{command:?}: {}", output.status).into()),
    }
}

/// Runs all of them, `width` at a time; the first error is returned when all have ended.
pub fn run_all(commands: Vec<Command>, width: usize) -> Result<()> {
    let queue = std::sync::Mutex::new(commands.into_iter());
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            let mut result = Ok(());
            while let Some(mut command) = next() {
                result = result.and(run(&mut command));
            }
            result
        };
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(worker)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a worker panicked".into())));
        ended.fold(Ok(()), Result::and)
    })
}
