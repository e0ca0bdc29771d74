//! The `evenkeel-monitor` process: one beside every container. See [`evenkeel::monitor`].

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::monitor::process::main(std::env::args_os().skip(1))
}
