//! The `evenkeel` command: hands its arguments to [`evenkeel::cli`] and exits with what that says.

use std::process::ExitCode;

use evenkeel::engine::image::unpack;

fn main() -> ExitCode {
    // The confined child that unpacks layers must not parse anything it does not need.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == unpack::ARGUMENT) {
        return unpack::child_main(std::env::args_os().skip(2));
    }
    // The runtime's command line has global options of its own, with the names of ours.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == evenkeel::cli::runtime::NAME) {
        return evenkeel::cli::runtime::main(std::env::args_os().skip(1));
    }
    evenkeel::cli::run(std::env::args_os())
}
