//! The tree of commands and options: runc's, in clap's manner, so that options may also follow the container's id.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::birth::CreateArguments;
use super::delete::DeleteArguments;
use super::events::EventsArguments;
use super::exec::ExecArguments;
use super::kill::KillArguments;
use super::list::ListArguments;
use super::ps::PsArguments;
use super::run::RunArguments;
use super::spec::SpecArguments;
use super::update::UpdateArguments;
use crate::cli::failure::Failure;

/// Runs containers as the OCI runtime specification describes them
#[derive(Debug, Parser)]
#[command(name = super::PROGRAM, arg_required_else_help = true, disable_version_flag = true)]
#[command(version = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0"))]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,

    // runc's letter, and that of every other program.
    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "a process has one")]
pub enum Command {
    #[command(flatten)]
    Of(Operation),
    /// Write a config.json to begin with
    Spec(SpecArguments),
}

/// The options of one are made when it is the one. Those of `spec` are not among them: one of them has the name of a
/// global option, which has to give way to it.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Operation {
    /// Create a container from a bundle, all but its command
    Create(CreateArguments),
    /// Execute the command of a created container
    Start(ContainerArguments),
    /// Create a container and start it
    Run(RunArguments),
    /// Print the state of a container as JSON
    State(ContainerArguments),
    /// Send a signal to the first process of a container
    Kill(KillArguments),
    /// Remove what is left of a stopped container
    Delete(DeleteArguments),
    /// Execute a further process in a container
    Exec(ExecArguments),
    /// List the processes of a container
    Ps(PsArguments),
    /// Stop every process of a container where it is
    Pause(ContainerArguments),
    /// Let the processes of a paused container go on
    Resume(ContainerArguments),
    /// Change the limits of a container
    Update(UpdateArguments),
    /// List the containers of this root
    List(ListArguments),
    /// Print what this runtime can do, as JSON
    Features,
    /// Print what a container uses, and its lack of memory, as JSON
    Events(EventsArguments),
    /// Not supported
    Checkpoint(AnyArguments),
    /// Not supported
    Restore(AnyArguments),
}

#[derive(Debug, Args)]
pub struct ContainerArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    pub id: String,
}

// Whatever runc would take here.
#[derive(Debug, Args)]
pub struct AnyArguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// Options that every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the state of containers is kept; it should be gone after a reboot
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/evenkeel-runtime")]
    pub root: PathBuf,

    /// Where errors and warnings go besides standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// The format of the log: lines for people, or one JSON object a line with level, msg and time
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Log also what is done
    #[arg(long, global = true)]
    pub debug: bool,

    /// Let systemd make the cgroups: not supported
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,

    /// Whether errors of permission at cgroups are passed over; `true` is not supported
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    Auto,
    False,
    True,
}

impl Global {
    /// Refuses what cannot be done.
    pub fn check(&self) -> Result<(), Failure> {
        if self.systemd_cgroup {
            let failure = Failure::new("`--systemd-cgroup` is not supported: cgroups are made without systemd");
            let hint =
                "Podman: `cgroup_manager = \"cgroupfs\"` in containers.conf; containerd: `SystemdCgroup = false`";
            return Err(failure.hint(hint));
        }
        if self.rootless == Rootless::True {
            return Err(Failure::new("`--rootless true` is not supported: this runtime needs root"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Documentation of a group of arguments would take its place, since arguments are made after the command.
    #[test]
    fn the_help_of_a_command_begins_with_what_the_list_says_of_it() {
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string);
        let listed = Arguments::command();
        let mut built = Arguments::command();
        built.build();
        for command in listed.get_subcommands() {
            let name = command.get_name();
            assert_eq!(about(built.find_subcommand(name).unwrap()), about(command), "{name}");
        }
    }

    #[test]
    fn the_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn rootless_means_something_else_for_spec() {
        let parse = |line: &str| Arguments::try_parse_from(["evenkeel-runtime"].into_iter().chain(line.split(' ')));
        for line in ["spec", "spec --rootless", "--rootless auto spec --bundle /b", "--rootless=false state a"] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        assert!(parse("state --rootless a").is_err());
    }

    #[test]
    fn options_stand_before_and_behind_the_id() {
        for line in ["delete --force a", "delete a --force", "--root /x delete a --force", "delete a --force --root /x"]
        {
            let words = ["evenkeel-runtime"].into_iter().chain(line.split(' '));
            assert!(Arguments::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
