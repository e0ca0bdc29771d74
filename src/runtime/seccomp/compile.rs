//! From `linux.seccomp` to a program and its flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::os::fd::AsFd;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use super::agent::{Address, Agent};
use serde_json::{Value, json};

use super::bpf::{self, Comparison, Test, Verdict};
use super::table;
use crate::runtime::error::{Context, RuntimeError, invalid, unsupported};
use crate::sys::seccomp::{self, Instruction};

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub(super) program: Vec<Instruction>,
    flags: u64,
    /// Who answers, where something is notified.
    agent: Option<Address>,
}

impl Filter {
    /// Filters the system calls of this thread, and of what it executes, from here on.
    pub fn install(&self) -> Result<(), RuntimeError> {
        self.install_for(None)
    }

    /// Who has to be connected to before [`Filter::install_for`].
    pub(in crate::runtime) fn agent(&self) -> Option<&Address> {
        self.agent.as_ref()
    }

    /// As [`Filter::install`], with who answers what the filter notifies of.
    pub(in crate::runtime) fn install_for(&self, agent: Option<&Agent>) -> Result<(), RuntimeError> {
        let message = agent.map(Agent::message).transpose()?;
        let notifications = seccomp::install(&self.program, self.flags).during("install", "the seccomp filter")?;
        match (agent, message, notifications) {
            (Some(agent), Some(message), Some(notifications)) => agent.send(&message, notifications.as_fd()),
            _ => Ok(()),
        }
    }
}

/// x32 has the architecture number of x86_64 and this bit in every call's number (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

/// One set of numbers: the column of the table, the audit number (linux/audit.h), and where its numbers begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Abi {
    pub(super) column: usize,
    pub(super) audit: u32,
    pub(super) first: u32,
}

pub(super) const X86_64: Abi = Abi { column: 0, audit: 0xc000_003e, first: 0 };
pub(super) const I386: Abi = Abi { column: 1, audit: 0x4000_0003, first: 0 };
pub(super) const X32: Abi = Abi { column: 2, audit: 0xc000_003e, first: X32_BIT };
pub(super) const AARCH64: Abi = Abi { column: 3, audit: 0xc000_00b7, first: 0 };

/// Those whose numbers are known here.
const ARCHITECTURES: [(Arch, Abi); 4] = [
    (Arch::ScmpArchAarch64, AARCH64),
    (Arch::ScmpArchX32, X32),
    (Arch::ScmpArchX86, I386),
    (Arch::ScmpArchX86_64, X86_64),
];

impl Abi {
    /// Whether a processor of this one executes the other's programs.
    fn executes(self, other: Abi) -> bool {
        self == other || (self == X86_64 && [I386, X32].contains(&other))
    }
}

/// What happens to each number on one architecture.
type Verdicts = BTreeMap<u32, Verdict>;

/// Compiles `profile` for this processor.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, RuntimeError> {
    compile_for(if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 }, profile)
}

/// The same for another.
pub(super) fn compile_for(native: Abi, profile: &LinuxSeccomp) -> Result<Filter, RuntimeError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    refuse_unknown_names(profile)?;
    let abis = abis(native, profile);
    let verdicts = verdicts(profile, &abis, default)?;
    let agent = address(profile)?;
    if agent.is_some() {
        refuse_to_wait_for_itself(abis[0], &verdicts[0], default)?;
    }
    let mut architectures: Vec<(u32, Vec<(u32, Verdict)>)> = Vec::new();
    for (abi, verdicts) in abis.iter().zip(verdicts) {
        let verdicts = intervals(*abi, verdicts, default);
        match architectures.iter_mut().find(|(audit, _)| *audit == abi.audit) {
            Some((_, known)) => known.extend(verdicts),
            None => architectures.push((abi.audit, verdicts)),
        }
    }
    for (_, verdicts) in &mut architectures {
        verdicts.sort_by_key(|(first, _)| *first);
        if verdicts.first().is_none_or(|(first, _)| *first != 0) {
            verdicts.insert(0, (0, Verdict::always(libc::SECCOMP_RET_KILL_PROCESS)));
        }
        if verdicts.iter().all(|(first, _)| *first < X32_BIT) {
            // Without x32 in the profile its numbers must not slip through as unknown ones.
            verdicts.push((X32_BIT, Verdict::always(libc::SECCOMP_RET_KILL_PROCESS)));
        }
    }
    let flags = flags(profile, agent.is_some())?;
    Ok(Filter { program: bpf::program(&architectures, libc::SECCOMP_RET_KILL_PROCESS), flags, agent })
}

/// Where notifications go, if there are any.
fn address(profile: &LinuxSeccomp) -> Result<Option<Address>, RuntimeError> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone().filter(|metadata| !metadata.is_empty());
    if metadata.is_some() && path.is_none() {
        return Err(invalid("linux.seccomp.listenerMetadata", "it needs `linux.seccomp.listenerPath`"));
    }
    let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    let mut rules = profile.syscalls().iter().flatten();
    if !is_notify(profile.default_action()) && !rules.any(|rule| is_notify(rule.action())) {
        return Ok(None);
    }
    match path {
        Some(path) if path.is_absolute() => Ok(Some(Address { path: path.clone(), metadata })),
        Some(_) => Err(invalid("linux.seccomp.listenerPath", "it must be an absolute path")),
        None => Err(invalid("linux.seccomp.listenerPath", "the action `SCMP_ACT_NOTIFY` needs it")),
    }
}

/// The calls by which the agent gets the descriptor must neither wait for the agent nor fail.
fn refuse_to_wait_for_itself(native: Abi, verdicts: &Verdicts, default: u32) -> Result<(), RuntimeError> {
    for name in Agent::CALLS {
        let number = table::numbers(name).and_then(|row| u32::try_from(row[native.column]).ok());
        let verdict = number.and_then(|number| verdicts.get(&number)).cloned().unwrap_or(Verdict::always(default));
        let mut actions = verdict.conditional.iter().map(|(_, action)| *action).chain([verdict.otherwise]);
        if !actions.all(|action| matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)) {
            let reason =
                format!("`{name}` hands notifications to the agent: with `SCMP_ACT_NOTIFY` it must be allowed");
            return Err(unsupported("linux.seccomp.syscalls", reason));
        }
    }
    Ok(())
}

/// Architectures that this processor can never execute are left out: a profile may list them all.
fn abis(native: Abi, profile: &LinuxSeccomp) -> Vec<Abi> {
    let mut abis = vec![native];
    for listed in profile.architectures().iter().flatten() {
        let found = ARCHITECTURES.iter().find(|(known, _)| known == listed).map(|(_, abi)| *abi);
        if let Some(abi) = found.filter(|abi| native.executes(*abi) && !abis.contains(abi)) {
            abis.push(abi);
        }
    }
    abis
}

/// For each of `abis`, what happens to the numbers that the profile names.
fn verdicts(profile: &LinuxSeccomp, abis: &[Abi], default: u32) -> Result<Vec<Verdicts>, RuntimeError> {
    let mut all = vec![Verdicts::new(); abis.len()];
    for rule in profile.syscalls().iter().flatten() {
        if rule.names().is_empty() {
            return Err(invalid("linux.seccomp.syscalls", "a rule without names"));
        }
        let action = action(rule.action(), rule.errno_ret())?;
        let conditions = conditions(rule)?;
        // Found once for all of them: looking names up is most of the work.
        for row in rule.names().iter().filter_map(|name| table::numbers(name)) {
            for (abi, verdicts) in abis.iter().zip(&mut all) {
                let Ok(number) = u32::try_from(row[abi.column]) else { continue };
                let verdict = verdicts.entry(number).or_insert_with(|| Verdict::always(default));
                match conditions.is_empty() {
                    // What was said before without conditions is said anew.
                    true => verdict.otherwise = action,
                    false => verdict.conditional.extend(conditions.iter().map(|tests| (tests.clone(), action))),
                }
            }
        }
    }
    Ok(all)
}

/// The alternatives under which a rule applies; none when it always does. Tests of the same argument are
/// alternatives, tests of different ones must all hold (runc and libseccomp).
fn conditions(rule: &LinuxSyscall) -> Result<Vec<Vec<Test>>, RuntimeError> {
    let tests: Vec<Test> = rule.args().iter().flatten().map(test).collect::<Result<_, _>>()?;
    let distinct: BTreeSet<u32> = tests.iter().map(|test| test.argument).collect();
    Ok(match (tests.is_empty(), distinct.len() == tests.len()) {
        (true, _) => Vec::new(),
        (false, true) => vec![tests],
        (false, false) => tests.into_iter().map(|test| vec![test]).collect(),
    })
}

const OPERATORS: [LinuxSeccompOperator; 7] = [
    LinuxSeccompOperator::ScmpCmpEq,
    LinuxSeccompOperator::ScmpCmpGe,
    LinuxSeccompOperator::ScmpCmpGt,
    LinuxSeccompOperator::ScmpCmpLe,
    LinuxSeccompOperator::ScmpCmpLt,
    LinuxSeccompOperator::ScmpCmpMaskedEq,
    LinuxSeccompOperator::ScmpCmpNe,
];

fn test(argument: &LinuxSeccompArg) -> Result<Test, RuntimeError> {
    let value = argument.value();
    let comparison = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Comparison::Below(value),
        LinuxSeccompOperator::ScmpCmpLe => Comparison::AtMost(value),
        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Comparison::AtLeast(value),
        LinuxSeccompOperator::ScmpCmpGt => Comparison::Above(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Comparison::MaskedEqual { mask: value, value: argument.value_two().unwrap_or(0) }
        }
    };
    match argument.index() {
        index @ 0..=5 => Ok(Test { argument: index as u32, comparison }),
        index => Err(invalid("linux.seccomp.syscalls", format!("a system call has no argument {index}"))),
    }
}

/// Neighbouring numbers of the same verdict become one interval; what lies between is the default.
fn intervals(abi: Abi, verdicts: Verdicts, default: u32) -> Vec<(u32, Verdict)> {
    let mut intervals: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |first: u32, verdict: Verdict| match intervals.last() {
        Some((_, last)) if *last == verdict => {}
        _ => intervals.push((abi.first + first, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if number > next {
            push(next, Verdict::always(default));
        }
        push(number, verdict);
        next = number + 1;
    }
    push(next, Verdict::always(newer(default)));
    intervals
}

/// What a call gets that is newer than the profile.
fn newer(default: u32) -> u32 {
    match default & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ERRNO => libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        _ => default,
    }
}

fn refuse_unknown_names(profile: &LinuxSeccomp) -> Result<(), RuntimeError> {
    if !matches!(profile.default_action(), LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog) {
        return Ok(());
    }
    let mut names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    match names.find(|name| table::numbers(name).is_none()) {
        Some(name) => Err(invalid("linux.seccomp.syscalls", format!("`{name}` is not a known system call"))),
        None => Ok(()),
    }
}

/// Every action, and what the filter returns for it (seccomp(2)).
const ACTIONS: [(LinuxSeccompAction, u32); 9] = [
    (LinuxSeccompAction::ScmpActAllow, libc::SECCOMP_RET_ALLOW),
    (LinuxSeccompAction::ScmpActErrno, libc::SECCOMP_RET_ERRNO),
    (LinuxSeccompAction::ScmpActKill, libc::SECCOMP_RET_KILL_THREAD),
    (LinuxSeccompAction::ScmpActKillProcess, libc::SECCOMP_RET_KILL_PROCESS),
    (LinuxSeccompAction::ScmpActKillThread, libc::SECCOMP_RET_KILL_THREAD),
    (LinuxSeccompAction::ScmpActLog, libc::SECCOMP_RET_LOG),
    (LinuxSeccompAction::ScmpActNotify, libc::SECCOMP_RET_USER_NOTIF),
    (LinuxSeccompAction::ScmpActTrace, libc::SECCOMP_RET_TRACE),
    (LinuxSeccompAction::ScmpActTrap, libc::SECCOMP_RET_TRAP),
];

fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<u32, RuntimeError> {
    let refuse = |reason: &str| Err(invalid("linux.seccomp", format!("the action `{action}` {reason}")));
    match (ACTIONS.iter().find(|(known, _)| *known == action), data) {
        (Some((_, value @ (libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE))), data) => {
            Ok(value | (data.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA))
        }
        (Some((_, value)), None) => Ok(*value),
        (Some(_), Some(_)) => refuse("has no errno to return"),
        (None, _) => refuse("is not known"),
    }
}

/// Every flag, and its bit. How a notified call waits (Linux 5.19) is a question only where something is notified; the
/// kernel refuses that flag elsewhere.
const FLAGS: [(LinuxSeccompFilterFlag, u64); 4] = [
    (LinuxSeccompFilterFlag::SeccompFilterFlagLog, libc::SECCOMP_FILTER_FLAG_LOG),
    (LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    (LinuxSeccompFilterFlag::SeccompFilterFlagTsync, libc::SECCOMP_FILTER_FLAG_TSYNC),
    (LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv, seccomp::FLAG_WAIT_KILLABLE_RECV),
];

fn flags(profile: &LinuxSeccomp, notifies: bool) -> Result<u64, RuntimeError> {
    let mut bits = 0;
    for flag in profile.flags().iter().flatten() {
        bits |= FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |(_, bit)| *bit);
    }
    match notifies {
        // A call that returns a descriptor cannot return a thread too: then ESRCH tells of one.
        true if bits & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 => {
            bits |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
        true => bits |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
        false => bits &= !seccomp::FLAG_WAIT_KILLABLE_RECV,
    }
    match bits == 0 || seccomp::knows(bits) {
        true => Ok(bits),
        false => Err(unsupported("linux.seccomp.flags", "this host's kernel does not have all of them")),
    }
}

/// What `features` tells of all this.
pub(in crate::runtime) fn features() -> Value {
    let text = |name: &dyn Display| Value::from(name.to_string());
    let flags: Vec<Value> = FLAGS.iter().map(|(flag, _)| text(flag)).collect();
    json!({
        "enabled": true,
        "actions": ACTIONS.iter().map(|(action, _)| text(action)).collect::<Vec<_>>(),
        "operators": OPERATORS.iter().map(|operator| text(operator)).collect::<Vec<_>>(),
        "archs": ARCHITECTURES.iter().map(|(architecture, _)| text(architecture)).collect::<Vec<_>>(),
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

    fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number as u32
    }

    fn profile(json: &str) -> LinuxSeccomp {
        serde_json::from_str(json).unwrap()
    }

    fn verdict(filter: &Filter, abi: Abi, name: &str, arguments: [u64; 6]) -> u32 {
        let number = abi.first + u32::try_from(table::numbers(name).unwrap()[abi.column]).unwrap();
        bpf::evaluate(&filter.program, abi.audit, number, arguments)
    }

    #[test]
    fn every_architecture_gets_its_own_numbers() {
        let filter = compile(&profile(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["read", "exit", "newfstatat", "socketcall"], "action": "SCMP_ACT_ALLOW"}]}"#,
        ))
        .unwrap();
        for abi in [X86_64, I386, X32] {
            assert_eq!(verdict(&filter, abi, "read", [0; 6]), ALLOW);
            assert_eq!(verdict(&filter, abi, "mount", [0; 6]), errno(libc::EPERM));
        }
        assert_eq!(verdict(&filter, I386, "socketcall", [0; 6]), ALLOW);
        assert_eq!(bpf::evaluate(&filter.program, AARCH64.audit, 63, [0; 6]), KILL);
    }

    #[test]
    fn numbers_of_an_architecture_that_is_not_listed_are_killed() {
        let filter = compile(&profile(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)).unwrap();
        assert_eq!(verdict(&filter, X86_64, "read", [0; 6]), ALLOW);
        assert_eq!(verdict(&filter, X32, "read", [0; 6]), KILL);
        assert_eq!(verdict(&filter, I386, "read", [0; 6]), KILL);
    }

    #[test]
    fn calls_newer_than_the_profile_do_not_exist() {
        let filter = compile(&profile(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}]}"#,
        ))
        .unwrap();
        assert_eq!(verdict(&filter, X86_64, "mount", [0; 6]), errno(libc::EPERM));
        assert_eq!(verdict(&filter, X86_64, "landlock_create_ruleset", [0; 6]), errno(libc::ENOSYS));
        assert_eq!(bpf::evaluate(&filter.program, X86_64.audit, 9999, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn arguments_decide() {
        let filter = compile(&profile(
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                 {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
                 {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}]}"#,
        ))
        .unwrap();
        let with = |name: &str, first, second| verdict(&filter, X86_64, name, [first, second, 0, 0, 0, 0]);
        assert_eq!(with("clone", 0x11, 0), ALLOW);
        assert_eq!(with("clone", 0x1000_0000 | 0x11, 0), errno(38));
        assert_eq!([with("personality", 0, 0), with("personality", 8, 0)], [ALLOW; 2]);
        assert_eq!(with("personality", 4, 0), errno(38));
        assert_eq!([with("socket", 1, 2), with("socket", 1, 1), with("socket", 2, 2)], [KILL, ALLOW, ALLOW]);
        assert_eq!(with("clone3", 0, 0), errno(22));
    }

    #[test]
    fn an_unknown_name_is_an_error_only_where_leaving_it_out_would_allow_it() {
        let with = |default: &str| {
            let text = format!(
                r#"{{"defaultAction": "{default}", "syscalls": [{{"names": ["mystery"], "action": "SCMP_ACT_KILL"}}]}}"#
            );
            compile(&profile(&text))
        };
        assert!(with("SCMP_ACT_ERRNO").is_ok());
        assert!(with("SCMP_ACT_ALLOW").is_err());
    }
}
