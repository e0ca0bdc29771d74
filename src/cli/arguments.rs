//! The tree of commands and options.
//!
//! `-f` may stand before the command or behind it (`logs -f` is `--follow`, as everywhere). Options that every
//! command understands are global.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use sha2::{Digest as _, Sha256};
use tracing_subscriber::filter::LevelFilter;

use super::after_end::AfterEndArguments;
use super::apply::ApplyArguments;
use super::attach::AttachArguments;
use super::completions::CompletionsArguments;
use super::container::ContainerArguments;
use super::cp::CpArguments;
use super::diff::DiffArguments;
use super::down::DownArguments;
use super::events::EventsArguments;
use super::examples;
use super::exec::ExecArguments;
use super::failure::Exit;
use super::image::ImageArguments;
use super::inspect::InspectArguments;
use super::kill::KillArguments;
use super::lock::LockFileArguments;
use super::login::{LoginArguments, LogoutArguments};
use super::logs::LogsArguments;
use super::man::ManArguments;
use super::network::NetworkArguments;
use super::output::Format;
use super::pause::PauseArguments;
use super::plan::PlanArguments;
use super::port::PortArguments;
use super::ps::PsArguments;
use super::rename::RenameArguments;
use super::restart::RestartArguments;
use super::rm::RmArguments;
use super::run::{CreateArguments, RunArguments};
use super::schema::SchemaArguments;
use super::start::StartArguments;
use super::stats::StatsArguments;
use super::status::StatusArguments;
use super::stop::StopArguments;
use super::top::TopArguments;
use super::update::UpdateArguments;
use super::volume::VolumeArguments;
use super::wait::WaitArguments;
use super::watch::WatchArguments;
use crate::model::paths::Paths;
use crate::model::units::Timespan;

const DEFAULT_ROOT: &str = "/var/lib/evenkeel";
const DEFAULT_RUN: &str = "/run/evenkeel";

/// Keeps this host at the state that TOML manifests declare: images, containers, volumes, networks
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, propagate_version = false, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 error, 2 changes pending (with --detailed-exitcode), \
3 degraded or rolled back, 4 refused by a guard, 5 stale plan or locked, 64 usage. `run`, `create` and `exec`: the \
command's own, 127 when it is not there, 126 when it cannot be executed, 125 when it did not come to that.")]
pub struct Arguments {
    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub global: Global,

    #[command(subcommand)]
    pub command: Command,
}

/// The options of one are made when it is the one: all together are some five hundred.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Show what apply would do, field by field
    #[command(after_help = examples::PLAN)]
    Plan(PlanArguments),
    /// Make the host what the manifests declare
    #[command(after_help = examples::APPLY)]
    Apply(ApplyArguments),
    /// Keep the host as declared, for as long as this runs
    #[command(after_help = examples::WATCH)]
    Watch(WatchArguments),
    /// Remove what a project has on this host
    #[command(after_help = examples::DOWN)]
    Down(DownArguments),
    /// Show what is declared against what is, and why they differ
    #[command(after_help = examples::STATUS)]
    Status(StatusArguments),
    /// Check the manifests: all that is wrong with them, each at its place
    #[command(after_help = examples::VALIDATE)]
    Validate(ManifestArguments),
    /// Print the resolved manifest
    #[command(after_help = examples::CONFIG)]
    Config(ManifestArguments),
    /// Print the JSON Schema of the manifest, or of the host file
    Schema(SchemaArguments),
    /// Pin every image reference to a digest, in a lock file beside the manifest
    #[command(after_help = examples::LOCK)]
    Lock(LockFileArguments),
    /// Run a container beside what is declared: for a look, or one job
    #[command(after_help = examples::RUN)]
    Run(RunArguments),
    /// Make a container as `run` does, without starting it
    Create(CreateArguments),
    /// Start containers that are there and do not run
    Start(StartArguments),
    /// End containers and leave them there
    Stop(StopArguments),
    /// Stop containers and start them again
    Restart(RestartArguments),
    /// Send a signal to the first process of containers
    Kill(KillArguments),
    /// Freeze the processes of containers
    Pause(PauseArguments),
    /// Let frozen containers go on
    Unpause(PauseArguments),
    /// Wait until containers have ended, and print their exit codes
    Wait(WaitArguments),
    /// Remove containers
    Rm(RmArguments),
    /// Look on as a running container writes, and feed its standard input
    Attach(AttachArguments),
    /// Copy files out of a container or into it
    #[command(after_help = examples::CP)]
    Cp(CpArguments),
    /// Show what a container changed in its image's files
    Diff(DiffArguments),
    /// Show where a container's ports are published
    Port(PortArguments),
    /// Give a container that nobody declares another name
    Rename(RenameArguments),
    /// Change limits and restart policy of containers that nobody declares
    Update(UpdateArguments),
    /// Volumes that nobody declares: make, list, remove
    Volume(VolumeArguments),
    /// Networks that nobody declares: make, list, remove
    Network(NetworkArguments),
    /// See to what is left of a container that ended; its monitor calls this
    #[command(hide = true)]
    AfterEnd(AfterEndArguments),
    /// List containers and how they are
    #[command(after_help = examples::PS)]
    Ps(PsArguments),
    /// Show what containers wrote
    #[command(after_help = examples::LOGS)]
    Logs(LogsArguments),
    /// Run a further process in a running container
    #[command(after_help = examples::EXEC)]
    Exec(ExecArguments),
    /// Show what happens to containers, images, networks and volumes, and who does it
    #[command(after_help = examples::EVENTS)]
    Events(EventsArguments),
    /// List the processes of containers
    Top(TopArguments),
    /// Show what containers use: processor, memory, processes, traffic
    #[command(after_help = examples::STATS)]
    Stats(StatsArguments),
    /// Show everything that is known of containers, images, networks and volumes, as JSON
    Inspect(InspectArguments),
    /// Keep credentials for a registry, once it has taken them
    Login(LoginArguments),
    /// Forget the credentials for a registry
    Logout(LogoutArguments),
    /// List, fetch, push, save, load and remove images
    Image(ImageArguments),
    /// Make images and archives of containers
    Container(ContainerArguments),
    /// Run containers from OCI bundles, as runc does; also the program `evenkeel-runtime`
    Runtime(RuntimeArguments),
    /// Print a completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArguments),
    /// Write manual pages
    Man(ManArguments),
    /// Print the version
    Version,
}

/// What the words say, and which command they are: `apply`, `image rm`. What a monitor calls as its last act is the monitor's.
pub fn parse(words: &[OsString]) -> Result<(Arguments, String), clap::Error> {
    let matches = Arguments::command().try_get_matches_from(words)?;
    let mut names = Vec::new();
    let mut within = &matches;
    while let Some((name, inner)) = within.subcommand() {
        names.push(name);
        within = inner;
    }
    let arguments = Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut Arguments::command()))?;
    let who = match arguments.command {
        Command::AfterEnd(_) => "monitor".to_owned(),
        _ => names.join(" "),
    };
    Ok((arguments, who))
}

/// How a command ends whose arguments cannot be read. `run`, `create` and `exec` have Docker's exit codes, where
/// everything that goes wrong before the container's command is 125.
pub fn mistake(words: &[OsString]) -> Exit {
    match command_word(words).as_deref() {
        Some("run" | "create" | "exec") => Exit::Status(125),
        _ => Exit::Usage,
    }
}

/// `--rm=true` is `--rm`, and `--rm=false` is nothing, as Docker's users write them: the words that were meant, where
/// such a value is what is wrong with them.
pub fn without_value_of_a_flag(error: &clap::Error, words: &[OsString]) -> Option<Vec<OsString>> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
    let is_it = |option: &str| match error.kind() {
        ErrorKind::TooManyValues => option == flag,
        // Of short ones the value is taken for further letters: `-i=true` has an option `-=`.
        ErrorKind::UnknownArgument => {
            let are_letters = |rest: &str| !rest.is_empty() && rest.chars().all(char::is_alphabetic);
            flag == "-=" && option.strip_prefix('-').is_some_and(are_letters)
        }
        _ => false,
    };
    // It is the first of these words: what follows an image, a name or `--` is no option, and no mistake.
    let (at, option, value) = words.iter().enumerate().find_map(|(at, word)| {
        let (option, value) = word.to_str()?.split_once('=')?;
        is_it(option).then_some((at, option, value))
    })?;
    let meant = match (value, option.starts_with("--")) {
        ("true", _) => option,
        ("false", true) => "",
        // `-it=false` is about its last letter.
        ("false", false) => option.get(..option.len() - 1).filter(|others| *others != "-").unwrap_or_default(),
        _ => return None,
    };
    let mut fewer = words.to_vec();
    match meant {
        "" => drop(fewer.remove(at)),
        meant => fewer[at] = meant.into(),
    }
    Some(fewer)
}

/// Which command was meant, whatever is wrong with the rest.
pub fn command_word(words: &[OsString]) -> Option<String> {
    let lenient = Arguments::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    lenient.subcommand_name().map(str::to_owned)
}

// For commands that need nothing but the manifests.
#[derive(Debug, Args)]
pub struct ManifestArguments {
    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
}

// It has options of its own, read where it is the first word (see `main`).
#[derive(Debug, Args)]
pub struct RuntimeArguments {
    /// See `evenkeel runtime --help`
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    _rest: Vec<OsString>,
}

/// Options that every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where state that survives a reboot is kept
    #[arg(long, global = true, value_name = "DIR", env = "EVENKEEL_ROOT", default_value = DEFAULT_ROOT)]
    #[arg(hide_env_values = true)]
    pub root: PathBuf,

    /// Where state of this boot is kept [default: /run/evenkeel, or a directory beside it for another root]
    #[arg(long, global = true, value_name = "DIR", env = "EVENKEEL_RUN", hide_env_values = true)]
    pub run: Option<PathBuf>,

    /// How long removed volumes stay in `ROOT/trash`, before a command that changes the host deletes them
    #[arg(long, global = true, value_name = "TIME", env = "EVENKEEL_KEEP_REMOVED", default_value = "7d")]
    #[arg(hide_env_values = true)]
    pub keep_removed: Timespan,

    /// The host file: registries and their mirrors, when unused images are removed [default: /etc/evenkeel/host.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "EVENKEEL_HOST_CONFIG", hide_env_values = true)]
    pub host_config: Option<PathBuf>,

    /// Answer as JSON: one document for state, one object a line for streams
    #[arg(long, global = true)]
    pub json: bool,

    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    /// What is logged to stderr [default: info for watch, else warn]
    #[arg(long, global = true, value_enum, value_name = "LEVEL", env = "EVENKEEL_LOG", hide_env_values = true)]
    pub log_level: Option<LogLevel>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Makes it the choice of the whole process.
    pub fn apply(self) {
        match self {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Global {
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }

    pub fn log_level(&self, command: &Command) -> LevelFilter {
        match self.log_level {
            Some(LogLevel::Error) => LevelFilter::ERROR,
            Some(LogLevel::Warn) => LevelFilter::WARN,
            Some(LogLevel::Info) => LevelFilter::INFO,
            Some(LogLevel::Debug) => LevelFilter::DEBUG,
            Some(LogLevel::Trace) => LevelFilter::TRACE,
            None if matches!(command, Command::Watch(_)) => LevelFilter::INFO,
            None => LevelFilter::WARN,
        }
    }

    /// Both roots, absolute; the state root by its one true name, since names on the host follow from it. Two state roots never meet, so another root has another run directory, too: it is
    /// derived from the root unless it is given.
    pub fn paths(&self) -> std::io::Result<Paths> {
        let root = std::path::absolute(&self.root)?;
        let root = root.canonicalize().unwrap_or(root);
        let run = match &self.run {
            Some(run) => std::path::absolute(run)?,
            None => default_run(&root),
        };
        Ok(Paths { root, run })
    }
}

fn default_run(root: &Path) -> PathBuf {
    if root == Path::new(DEFAULT_ROOT) {
        return PathBuf::from(DEFAULT_RUN);
    }
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    PathBuf::from(format!("{DEFAULT_RUN}-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]))
}

#[cfg(test)]
mod tests {
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
    fn the_examples_of_run_are_read() {
        let examples: Vec<&str> = examples::RUN.lines().filter_map(|line| line.strip_prefix("  evenkeel ")).collect();
        assert!(!examples.is_empty());
        for example in examples {
            let line = example.split("   ").next().unwrap_or_default();
            let words = ["evenkeel"].into_iter().chain(line.split_whitespace());
            assert!(Arguments::try_parse_from(words).is_ok(), "{example}");
        }
    }

    #[test]
    fn what_follows_an_image_is_its_command() {
        for line in ["run --rm image --rm --name x -e A=1", "create -i image --help", "run image -- a"] {
            let words = ["evenkeel"].into_iter().chain(line.split(' '));
            let container = match Arguments::try_parse_from(words).unwrap().command {
                Command::Run(arguments) => arguments.container,
                Command::Create(arguments) => arguments.container,
                _ => panic!("{line}"),
            };
            assert_eq!(container.image(), "image");
            assert!(line.ends_with(&format!(" image {}", container.command().join(" "))), "{line}");
        }
    }

    #[test]
    fn a_flag_may_say_true_or_false() {
        let meant = |line: &str| {
            let mut words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            loop {
                let error = match Arguments::try_parse_from(&words) {
                    Ok(_) => return words.join(std::ffi::OsStr::new(" ")).into_string().ok(),
                    Err(error) => error,
                };
                words = without_value_of_a_flag(&error, &words)?;
            }
        };
        for (written, understood) in [
            ("evenkeel run --rm=true image", Some("evenkeel run --rm image")),
            ("evenkeel run --rm=false -i=true -t=false image", Some("evenkeel run -i image")),
            ("evenkeel run --rm=false image --rm=false", Some("evenkeel run image --rm=false")),
            ("evenkeel run -it=false -dt=true image", Some("evenkeel run -i -dt image")),
            ("evenkeel run -=true image", None),
            ("evenkeel ps -a=true --no-trunc=false", Some("evenkeel ps -a")),
            ("evenkeel run --sig-proxy=false image", Some("evenkeel run --sig-proxy=false image")),
            ("evenkeel run --rm=maybe image", None),
        ] {
            assert_eq!(meant(written).as_deref(), understood, "{written}");
        }
    }

    #[test]
    fn mistakes_of_what_runs_a_command_are_125() {
        let exit = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(Arguments::try_parse_from(&words).is_err(), "{line}");
            mistake(&words)
        };
        for line in [
            "evenkeel run --nope box",
            "evenkeel run",
            "evenkeel --root /x run --memory",
            "evenkeel -f ps --json run --cpus 1 --cpu-quota 5 box",
            "evenkeel create",
            "evenkeel exec web",
            "evenkeel exec --nope web true",
            "evenkeel run --cpu-shares many box",
        ] {
            assert_eq!(exit(line), Exit::Status(125), "{line}");
        }
        for line in
            ["evenkeel ps --nope", "evenkeel pln", "evenkeel --nope run box", "evenkeel", "evenkeel -f run ps -x"]
        {
            assert_eq!(exit(line), Exit::Usage, "{line}");
        }
    }

    #[test]
    fn the_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn another_root_has_another_run_directory() {
        assert_eq!(default_run(Path::new(DEFAULT_ROOT)), Path::new(DEFAULT_RUN));
        assert_ne!(default_run(Path::new("/tmp/a")), default_run(Path::new("/tmp/b")));
    }
}
