//! `exec ID COMMAND..`: a further process in a container, from options or from a file with OCI's `process`.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process as ProcessSpec, Spec, UserBuilder};
use rustix::process::set_child_subreaper;

use super::handover::{self, Attendance, HandoverArguments, Standard};
use super::log::{Log, failure};
use super::store::{Status, Store};
use super::{bundle, death, foreground};
use crate::cli::failure::{Exit, Failure};
use crate::model::launch::Identity;
use crate::runtime::cgroup::Below;
use crate::runtime::exec::{Request, Target};
use crate::runtime::launch::{Keyring, open_process};

#[derive(Debug, Args)]
pub struct ExecArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,

    /// What to execute
    #[arg(value_name = "COMMAND", trailing_var_arg = true, required_unless_present = "process")]
    command: Vec<String>,

    /// A file with `process` as in config.json, in place of the command and of the options about it
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["command", "cwd", "env", "user"])]
    #[arg(conflicts_with_all = ["additional_gids", "cap", "no_new_privs", "apparmor", "process_label"])]
    process: Option<PathBuf>,

    #[command(flatten)]
    handover: HandoverArguments,

    /// Come back as soon as the command is executed
    #[arg(short, long)]
    detach: bool,

    /// The working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// One more variable of the environment; repeat it
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// Give it a terminal; conmon says so beside `--process`, too
    #[arg(short, long)]
    tty: bool,

    /// As whom: numbers, or names that the container's own files know
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,

    /// One more group of the process; repeat it
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,

    /// One more capability; repeat it
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,

    /// Refuse new privileges
    #[arg(long)]
    no_new_privs: bool,

    /// An AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,

    /// An SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,

    /// A cgroup below the container's own, which must exist; in version 1 of some controllers alone, and repeated
    #[arg(long, value_name = "[CONTROLLER[,CONTROLLER..]:]PATH")]
    cgroup: Vec<String>,

    /// In a paused container too: the process stays where it is until `resume`
    #[arg(long)]
    ignore_paused: bool,

    /// Do not become the parent of processes whose own one ended
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

/// Of our own failures, so that they are not taken for the command's (runc-exec(8), "EXIT STATUS").
const FAILED: Exit = Exit::Status(255);

pub fn run(arguments: &ExecArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    execute(arguments, store, log).map_err(|failure| failure.exit(FAILED))
}

fn execute(arguments: &ExecArguments, store: &Store, log: &Log) -> Result<Exit, Failure> {
    handover::get_ready()?;
    let container = store.look(&arguments.id)?;
    let id = &container.record.id;
    let cannot = |failure: Failure| failure.context(format!("cannot execute in the container `{id}`"));
    let allowed = [Status::Created, Status::Running, Status::Paused];
    let allowed = if arguments.ignore_paused { &allowed[..] } else { &allowed[..2] };
    container.require("execute in", allowed)?;
    let Some(pid) = container.live_process() else { return Err(cannot(Failure::new("container not running"))) };
    let spec = container.spec()?;
    let state = container.state()?;
    let (mut process, identity) = match &arguments.process {
        Some(path) => (read_process(path, arguments, log).map_err(cannot)?, None),
        None => process(arguments, &spec).map_err(cannot)?,
    };
    let attendance = if arguments.detach { Attendance::Detached } else { Attendance::Attended };
    handover::check_terminal(Some(&process), &arguments.handover, attendance).map_err(cannot)?;
    handover::size_terminal(&mut process, attendance).map_err(cannot)?;
    let (inheritance, _) = handover::inheritance(&arguments.handover, Keyring::New)?;
    let below = below(&arguments.cgroup).map_err(cannot)?;
    let standard = Standard::take()?;
    let pidfd = open_process(pid).map_err(failure)?;
    let request = Request {
        spec: &spec,
        process: &process,
        identity: identity.as_ref(),
        stdio: standard.stdio(Some(&process), attendance),
        target: Target { pid, pidfd: pidfd.as_fd() },
        inheritance,
        below: &below,
        state: Some(&state),
    };
    if attendance == Attendance::Attended && !arguments.no_subreaper {
        set_child_subreaper(Some(rustix::process::getpid()))?;
    }
    let signals = foreground::watch(attendance)?;
    let process = crate::runtime::exec::exec(&request).map_err(|error| cannot(failure(error)))?;
    for warning in &process.warnings {
        log.warn(&warning.to_string());
    }
    log.debug(&format!("executed process {} in the container `{id}`", process.pid));
    if let Err(failure) = handover::tell(process.terminal.as_ref(), process.pid, &arguments.handover) {
        death::end(&process);
        return Err(cannot(failure));
    }
    match signals {
        None => Ok(Exit::Done),
        Some(signals) => foreground::attend(process, &signals),
    }
}

/// Cgroups, as runc-exec(8) has them: one path for all controllers, or paths of controllers by name.
fn below(texts: &[String]) -> Result<Vec<Below>, Failure> {
    let mut named = BTreeSet::new();
    let mut parse = |text: &String| {
        let wrong = |reason: String| Failure::usage(format!("`--cgroup {text}`: {reason}"));
        match text.split_once(':') {
            None if texts.len() > 1 => Err(wrong("more than one of them need the names of controllers".to_owned())),
            None => Ok(Below { controllers: Vec::new(), path: text.into() }),
            Some((names, path)) => {
                let controllers: Vec<String> = names.split(',').map(str::to_owned).collect();
                match controllers.iter().find(|name| name.is_empty() || !named.insert((*name).clone())) {
                    Some(name) if name.is_empty() => Err(wrong("the name of a controller is empty".to_owned())),
                    Some(name) => Err(wrong(format!("`{name}` has a path already"))),
                    None => Ok(Below { controllers, path: path.into() }),
                }
            }
        }
    };
    texts.iter().map(&mut parse).collect()
}

/// What to execute, from a file.
fn read_process(path: &Path, arguments: &ExecArguments, log: &Log) -> Result<ProcessSpec, Failure> {
    let within = |failure: Failure| failure.context(format!("cannot read the process `{}`", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| within(error.into()))?;
    let (mut process, warnings) = bundle::parse_process(&text).map_err(within)?;
    warnings.iter().for_each(|warning| log.warn(warning));
    if arguments.tty {
        process.set_terminal(Some(true));
    }
    Ok(process)
}

/// The container's own `process` with what the options change.
fn process(arguments: &ExecArguments, spec: &Spec) -> Result<(ProcessSpec, Option<Identity>), Failure> {
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(arguments.command.clone())).set_terminal(Some(arguments.tty));
    if let Some(directory) = &arguments.cwd {
        process.set_cwd(directory.clone());
    }
    let environment = process.env().iter().flatten().chain(&arguments.env).cloned().collect();
    process.set_env(Some(environment));
    if arguments.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if arguments.apparmor.is_some() {
        process.set_apparmor_profile(arguments.apparmor.clone());
    }
    if arguments.process_label.is_some() {
        process.set_selinux_label(arguments.process_label.clone());
    }
    if !arguments.cap.is_empty() {
        process.set_capabilities(Some(with_capabilities(process.capabilities().clone(), &arguments.cap)?));
    }
    let identity = become_user(&mut process, arguments)?;
    Ok((process, identity))
}

/// Numbers go into `process.user`; names are looked up in the container.
fn become_user(process: &mut ProcessSpec, arguments: &ExecArguments) -> Result<Option<Identity>, Failure> {
    let mut groups = arguments.additional_gids.clone();
    let Some(user) = &arguments.user else {
        if !groups.is_empty() {
            let mut user = process.user().clone();
            groups.splice(0..0, user.additional_gids().clone().unwrap_or_default());
            user.set_additional_gids(Some(groups));
            process.set_user(user);
        }
        return Ok(None);
    };
    let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
    match (uid.parse(), gid.parse()) {
        (Ok::<u32, _>(uid), Ok::<u32, _>(gid)) => {
            process.set_user(UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build()?);
            Ok(None)
        }
        _ => {
            let groups = groups.iter().map(u32::to_string).collect();
            Ok(Some(Identity { user: user.clone(), groups }))
        }
    }
}

/// In the sets that a command can use at once; in the ambient one only where it is inheritable already, since a
/// capability must be that to be ambient (capabilities(7)).
fn with_capabilities(sets: Option<LinuxCapabilities>, names: &[String]) -> Result<LinuxCapabilities, Failure> {
    let mut sets = sets.unwrap_or_default();
    for name in names {
        let unknown = |_| Failure::usage(format!("`{name}` is not a capability such as CAP_NET_ADMIN"));
        let known: crate::model::security::Capability = name.parse().map_err(unknown)?;
        let capability: Capability = serde_json::from_value(format!("CAP_{known}").into())?;
        let with = |set: &Option<HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        let is_inherited =
            |set: &Option<HashSet<Capability>>| set.as_ref().is_some_and(|set| set.contains(&capability));
        if is_inherited(sets.inheritable()) {
            let ambient = with(sets.ambient());
            sets.set_ambient(ambient);
        }
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ExecArguments,
    }

    fn parse(line: &str) -> ExecArguments {
        Line::try_parse_from(["exec"].into_iter().chain(line.split(' '))).unwrap().arguments
    }

    #[test]
    fn options_may_follow_the_id_and_end_where_the_command_begins() {
        let arguments = parse("web --tty --user 1:2 ls -l --tty");
        assert_eq!((arguments.id.as_str(), arguments.tty), ("web", true));
        assert_eq!(arguments.command, ["ls", "-l", "--tty"]);
    }

    #[test]
    fn options_change_the_containers_own_process() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion": "1.2.0", "process": {"cwd": "/a", "user": {"uid": 5, "gid": 6}, "args": ["x"], "env": ["A=1"]}}"#,
        )
        .unwrap();
        let (process, identity) =
            super::process(&parse("-e B=2 --cwd /b --cap net_admin --no-new-privs web y"), &spec).unwrap();
        assert_eq!(process.args().as_deref(), Some(&["y".to_owned()][..]));
        assert_eq!(process.env().as_deref(), Some(&["A=1".to_owned(), "B=2".to_owned()][..]));
        assert_eq!((process.user().uid(), process.user().gid(), identity), (5, 6, None));
        assert!(process.capabilities().as_ref().unwrap().effective().as_ref().unwrap().contains(&Capability::NetAdmin));
        let (_, identity) = super::process(&parse("-u web:video web y"), &spec).unwrap();
        assert_eq!(identity.unwrap().user, "web:video");
    }
}
