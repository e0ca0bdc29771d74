//! The `evenkeel` command: hands its arguments to [`evenkeel::cli`] and exits with what that says.

use std::process::ExitCode;

use evenkeel::engine::image::build::child as build;
use evenkeel::engine::image::store::trash;
use evenkeel::engine::image::unpack;

fn main() -> ExitCode {
    // The children that unpack and remove layers and run commands of builds must not parse anything they do not need.
    match std::env::args_os().nth(1) {
        Some(argument) if argument == unpack::ARGUMENT => unpack::child_main(std::env::args_os().skip(2)),
        Some(argument) if argument == trash::ARGUMENT => trash::child_main(std::env::args_os().skip(2)),
        Some(argument) if argument == build::ARGUMENT => build::child_main(),
        // The runtime's command line has global options of its own, with the names of ours.
        Some(argument) if argument == evenkeel::cli::runtime::NAME => {
            evenkeel::cli::runtime::main(std::env::args_os().skip(1))
        }
        _ => evenkeel::cli::run(std::env::args_os()),
    }
}
