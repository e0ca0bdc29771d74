//! What to execute and as whom: OCI's `process`, checked, in the form in which the child needs it.
//!
//! The first process of a container and every further one are prepared by the same code, so that what holds for one
//! holds for the other.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use oci_spec::runtime::{
    Capability as OciCapability, ContainerState, Linux, LinuxNamespaceType, LinuxPersonality, LinuxPersonalityDomain,
    PosixRlimit, PosixRlimitType, Process as ProcessSpec, State,
};
use rustix::process::{Resource, Rlimit, getrlimit};
use rustix::termios::Winsize;

use super::capabilities::{self, Sets};
use super::error::{RuntimeError, Warning, invalid, unsupported};
use super::identity::is_somebody;
use super::label::{self, Labels};
use super::placement::{self, Placement};
use super::scheduling::{self, Scheduling};
use super::seccomp::{self, Agent, Filter};
use crate::model::launch::Identity;
use crate::model::security::Capability;

/// One program with everything that execve(2) hands on.
pub(super) struct Program {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub directory: PathBuf,
    pub user: User,
    pub umask: u32,
    pub capabilities: Sets,
    pub limits: Vec<(Resource, Rlimit)>,
    pub privileges: Privileges,
    pub labels: Labels,
    pub seccomp: Option<Filter>,
    /// Who answers the filter's notifications, from [`Program::reach_agent`] on.
    pub agent: Option<Agent>,
    pub oom_score_adj: Option<i32>,
    pub personality: Option<u64>,
    pub scheduling: Scheduling,
    pub placement: Placement,
    pub terminal_size: Option<Winsize>,
    /// What falls away.
    pub warnings: Vec<Warning>,
}

/// As whom it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum User {
    Numbers {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// To be looked up in the container's own files, once they are there.
    Names(Identity),
}

/// Whether execve(2) may grant more than the process has (`PR_SET_NO_NEW_PRIVS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privileges {
    NoNew,
    MayGrow,
}

/// A file made without a mask of its own is not writable by others (OCI leaves the default to the runtime).
const DEFAULT_UMASK: u32 = 0o022;

/// Prepares `process` for a container whose configuration says `linux`.
pub(super) fn prepare(
    process: &ProcessSpec,
    identity: Option<&Identity>,
    linux: Option<&Linux>,
) -> Result<Program, RuntimeError> {
    refuse_unsupported(process)?;
    let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
    let personality = linux.and_then(|linux| linux.personality().as_ref());
    let mut warnings = Vec::new();
    let arguments = process.args().clone().unwrap_or_default();
    if arguments.first().is_none_or(String::is_empty) {
        return Err(invalid("process.args", "there is no command"));
    }
    if let Some(text) = arguments.iter().chain(process.env().iter().flatten()).find(|text| text.contains('\0')) {
        return Err(invalid("process", format!("`{}` holds a zero byte", text.escape_default())));
    }
    if !process.cwd().is_absolute() {
        return Err(invalid("process.cwd", "it must be an absolute path"));
    }
    Ok(Program {
        arguments,
        environment: process.env().clone().unwrap_or_default(),
        directory: process.cwd().clone(),
        user: user(process, identity)?,
        umask: process.user().umask().unwrap_or(DEFAULT_UMASK),
        capabilities: capability_sets(process, linux, &mut warnings)?,
        limits: limits(process.rlimits().as_deref().unwrap_or_default())?,
        privileges: match process.no_new_privileges() {
            Some(true) => Privileges::NoNew,
            _ => Privileges::MayGrow,
        },
        labels: label::prepare(process)?,
        seccomp: seccomp.map(seccomp::compile).transpose()?,
        agent: None,
        oom_score_adj: process.oom_score_adj(),
        personality: personality.map(persona).transpose()?,
        scheduling: scheduling::prepare(process)?,
        placement: placement::prepare(process, linux)?,
        terminal_size: process.console_size().map(|size| Winsize {
            ws_row: size.height() as u16,
            ws_col: size.width() as u16,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        warnings,
    })
}

impl Program {
    /// Connects to who answers the filter's notifications, where it makes any. `state` is the container's; `status`
    /// what it is when the program is executed.
    pub(super) fn reach_agent(&mut self, state: Option<&State>, status: ContainerState) -> Result<(), RuntimeError> {
        let Some(address) = self.seccomp.as_ref().and_then(Filter::agent) else { return Ok(()) };
        let Some(state) = state else {
            let reason = "notifications need a bundle: they are handed on by `evenkeel runtime`";
            return Err(unsupported("linux.seccomp.listenerPath", reason));
        };
        self.agent = Some(Agent::reach(address, state, status)?);
        Ok(())
    }

    /// What the process must keep open for it.
    pub(super) fn agent_descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.agent.iter().flat_map(Agent::descriptors)
    }

    /// What it takes to become this program: its own capabilities, and those to become its user and to give the
    /// standard descriptors to it. Limits above the process's own are not among it, nor are labels.
    pub(super) fn needed_capabilities(&self) -> u64 {
        let scheduling = if self.scheduling == Scheduling::default() { 0 } else { capabilities::SYS_NICE };
        let filter = match (self.privileges, &self.seccomp) {
            (Privileges::MayGrow, Some(_)) => capabilities::SYS_ADMIN,
            _ => 0,
        };
        self.capabilities.all() | capabilities::TO_BECOME_A_USER | scheduling | filter
    }
}

fn refuse_unsupported(process: &ProcessSpec) -> Result<(), RuntimeError> {
    let fields = [
        ("process.commandLine", process.command_line().is_some(), "it belongs to Windows"),
        ("process.user.username", process.user().username().is_some(), "it belongs to Windows"),
    ];
    match fields.into_iter().find(|(_, set, _)| *set) {
        Some((field, _, reason)) => Err(unsupported(field, reason)),
        None => Ok(()),
    }
}

fn user(process: &ProcessSpec, identity: Option<&Identity>) -> Result<User, RuntimeError> {
    if let Some(identity) = identity {
        return Ok(User::Names(identity.clone()));
    }
    let (uid, gid) = (process.user().uid(), process.user().gid());
    let groups = process.user().additional_gids().clone().unwrap_or_default();
    match [uid, gid].iter().chain(&groups).all(|number| is_somebody(*number)) {
        true => Ok(User::Numbers { uid, gid, groups }),
        false => Err(invalid("process.user", format!("{} is nobody's number", u32::MAX))),
    }
}

/// The five sets. Without `process.capabilities` all are empty. What this host cannot grant falls away with a warning,
/// as the specification has it (config.md, "Linux Process"); a user namespace's root may have all of its own.
fn capability_sets(
    process: &ProcessSpec,
    linux: Option<&Linux>,
    warnings: &mut Vec<Warning>,
) -> Result<Sets, RuntimeError> {
    let Some(wanted) = process.capabilities() else { return Ok(Sets::default()) };
    let sets = Sets {
        bounding: mask("bounding", wanted.bounding())?,
        effective: mask("effective", wanted.effective())?,
        inheritable: mask("inheritable", wanted.inheritable())?,
        permitted: mask("permitted", wanted.permitted())?,
        ambient: mask("ambient", wanted.ambient())?,
    };
    let (sets, refused) = capabilities::without_unraisable(&sets);
    if !refused.0.is_empty() {
        let why = format!("only what is permitted and inheritable can be ambient, not {refused}");
        warnings.push(Warning::new("process.capabilities.ambient", why));
    }
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    if namespaces.into_iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return Ok(sets);
    }
    let (granted, missing) = capabilities::within_host(&sets);
    if !missing.0.is_empty() {
        warnings.push(Warning::new("process.capabilities", format!("this host does not allow {missing}")));
    }
    Ok(granted)
}

fn mask(set: &str, names: &Option<HashSet<OciCapability>>) -> Result<u64, RuntimeError> {
    let mut bits = 0;
    for name in names.iter().flatten() {
        let capability: Capability = name
            .to_string()
            .parse()
            .map_err(|_| unsupported(format!("process.capabilities.{set}"), format!("the capability `{name}`")))?;
        bits |= 1 << capability.number();
    }
    Ok(bits)
}

/// Each once (config.md, "POSIX process").
fn limits(wanted: &[PosixRlimit]) -> Result<Vec<(Resource, Rlimit)>, RuntimeError> {
    for (at, one) in wanted.iter().enumerate() {
        if wanted[..at].iter().any(|earlier| earlier.typ() == one.typ()) {
            return Err(invalid("process.rlimits", format!("a second `{}`", one.typ())));
        }
    }
    wanted.iter().map(limit).collect()
}

/// A limit that this process could not set is an error here already, with both numbers.
fn limit(wanted: &PosixRlimit) -> Result<(Resource, Rlimit), RuntimeError> {
    let resource = resource(wanted.typ());
    let name = || wanted.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase();
    if wanted.soft() > wanted.hard() {
        return Err(invalid("process.rlimits", format!("the soft limit of `{}` is above its hard limit", name())));
    }
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    let own = getrlimit(resource).maximum;
    let is_above = own.is_some_and(|own| finite(wanted.hard()).is_none_or(|hard| hard > own));
    if is_above && !capabilities::may_raise_limits() {
        let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
        return Err(RuntimeError::Rlimit {
            resource: name(),
            requested: text(finite(wanted.hard())),
            limit: text(own),
        });
    }
    Ok((resource, Rlimit { current: finite(wanted.soft()), maximum: finite(wanted.hard()) }))
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

fn persona(personality: &LinuxPersonality) -> Result<u64, RuntimeError> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(unsupported("linux.personality.flags", "the specification defines none"));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        // linux/personality.h: PER_LINUX32.
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
