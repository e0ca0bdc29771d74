//! The `evenkeel` command: hands its arguments to [`evenkeel::cli`] and exits with what that says.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::cli::run(std::env::args_os())
}
