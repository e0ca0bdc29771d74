//! The `evenkeel` command: hands its arguments to [`evenkeel::cli`] and exits with what that says.

use std::path::Path;
use std::process::ExitCode;

use evenkeel::cli::runtime;
use evenkeel::engine::image::build::child as build;
use evenkeel::engine::image::store::trash;
use evenkeel::engine::image::unpack;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // A link to this program with the name of the other one, for callers that put no sub-command in front.
    if arguments.next().is_some_and(|name| Path::new(&name).file_name() == Some(runtime::PROGRAM.as_ref())) {
        return runtime::main(std::env::args_os());
    }
    // The children that unpack and remove layers and run commands of builds must not parse anything they do not need.
    match arguments.next() {
        Some(argument) if argument == unpack::ARGUMENT => unpack::child_main(arguments),
        Some(argument) if argument == trash::ARGUMENT => trash::child_main(arguments),
        Some(argument) if argument == build::ARGUMENT => build::child_main(),
        // The runtime's command line has global options of its own, with the names of ours.
        Some(argument) if argument == runtime::NAME => {
            let name = format!("evenkeel {}", runtime::NAME);
            runtime::main(std::iter::once(name.into()).chain(arguments))
        }
        _ => evenkeel::cli::run(std::env::args_os()),
    }
}
