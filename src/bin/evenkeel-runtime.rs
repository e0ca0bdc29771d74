//! The `evenkeel-runtime` command: the OCI runtime as Podman and containerd call it. See [`evenkeel::cli::runtime`].

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::cli::runtime::main(std::env::args_os())
}
