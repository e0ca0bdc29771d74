//! A profile in Docker's format, as it holds for one container on this host.

use std::collections::BTreeSet;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall};
use serde_json::{Value, json};

use crate::model::seccomp::{Filter, KernelVersion, Profile};
use crate::model::security::Capability;
use crate::runtime::error::{RuntimeError, invalid};

/// What decides which rules of a profile hold.
pub struct Surroundings<'a> {
    pub capabilities: &'a BTreeSet<Capability>,
    pub kernel: KernelVersion,
}

/// The processor in Go's words, and in libseccomp's.
const PROCESSOR: (&str, &str) = match cfg!(target_arch = "aarch64") {
    true => ("arm64", "SCMP_ARCH_AARCH64"),
    false => ("amd64", "SCMP_ARCH_X86_64"),
};

/// OCI's form of `profile`: rules that do not hold here are left out.
pub fn from_docker(profile: &Profile, on: &Surroundings<'_>) -> Result<LinuxSeccomp, RuntimeError> {
    let mut filter = LinuxSeccomp::default();
    filter.set_default_action(word("defaultAction", &json!(profile.default_action))?);
    filter.set_default_errno_ret(profile.default_errno_ret);
    filter.set_architectures(Some(architectures(profile)?));
    let flags: Vec<LinuxSeccompFilterFlag> =
        profile.flags.iter().map(|flag| word("flags", &json!(flag))).collect::<Result<_, _>>()?;
    filter.set_flags((!flags.is_empty()).then_some(flags));
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        if !holds(&rule.includes, on) || excludes(&rule.excludes, on) {
            continue;
        }
        let mut names = rule.names.clone();
        names.extend((!rule.name.is_empty()).then(|| rule.name.clone()));
        if names.is_empty() {
            return Err(invalid("syscalls", "a rule names no system call"));
        }
        let arguments: Vec<LinuxSeccompArg> = rule
            .args
            .iter()
            .flatten()
            .map(|argument| {
                let op: &Value = &json!(argument.op);
                let whole =
                    json!({"index": argument.index, "value": argument.value, "valueTwo": argument.value_two, "op": op});
                word("args", &whole)
            })
            .collect::<Result<_, _>>()?;
        let mut made = LinuxSyscall::default();
        made.set_names(names).set_action(word("action", &json!(rule.action))?).set_errno_ret(rule.errno_ret);
        made.set_args((!arguments.is_empty()).then_some(arguments));
        rules.push(made);
    }
    filter.set_syscalls(Some(rules));
    Ok(filter)
}

/// A word of this format is the same word of OCI's.
fn word<T: serde::de::DeserializeOwned>(field: &str, value: &Value) -> Result<T, RuntimeError> {
    serde_json::from_value(value.clone())
        .map_err(|error| invalid(format!("seccomp profile: {field}"), error.to_string()))
}

/// `archMap` says which other programs this processor executes; a plain list is taken as it is.
fn architectures(profile: &Profile) -> Result<Vec<Arch>, RuntimeError> {
    let mapped = profile.arch_map.iter().find(|entry| entry.architecture == PROCESSOR.1);
    let names: Vec<&String> = match mapped {
        Some(entry) => std::iter::once(&entry.architecture).chain(entry.sub_architectures.iter().flatten()).collect(),
        None => profile.architectures.iter().collect(),
    };
    names.into_iter().map(|name| word("architectures", &json!(name))).collect()
}

fn has(on: &Surroundings<'_>, name: &str) -> bool {
    name.parse::<Capability>().is_ok_and(|capability| on.capabilities.contains(&capability))
}

fn holds(includes: &Filter, on: &Surroundings<'_>) -> bool {
    let Filter { caps, arches, min_kernel } = includes;
    caps.iter().all(|name| has(on, name))
        && (arches.is_empty() || arches.contains(PROCESSOR.0))
        && min_kernel.is_none_or(|oldest| on.kernel >= oldest)
}

fn excludes(excludes: &Filter, on: &Surroundings<'_>) -> bool {
    let Filter { caps, arches, min_kernel } = excludes;
    caps.iter().any(|name| has(on, name))
        || arches.contains(PROCESSOR.0)
        || min_kernel.is_some_and(|oldest| on.kernel >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Profile, capabilities: &[&str], kernel: KernelVersion) -> Vec<String> {
        let capabilities = capabilities.iter().map(|name| name.parse().unwrap()).collect();
        let filter = from_docker(profile, &Surroundings { capabilities: &capabilities, kernel }).unwrap();
        filter.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_hold_where_their_conditions_do() {
        let profile: Profile = r#"{
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]},
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["s390_pci_mmio_read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
            ]}"#
        .parse()
        .unwrap();
        assert_eq!(names(&profile, &[], KernelVersion(6, 1)), ["read", "ptrace", "clone"]);
        assert_eq!(names(&profile, &["SYS_ADMIN"], KernelVersion(4, 7)), ["read", "mount"]);
        let on = Surroundings { capabilities: &BTreeSet::new(), kernel: KernelVersion(6, 1) };
        let filter = from_docker(&profile, &on).unwrap();
        if cfg!(target_arch = "x86_64") {
            assert_eq!(filter.architectures().as_ref().unwrap().len(), 3);
        }
        crate::runtime::seccomp::compile(&filter).unwrap();
    }

    #[test]
    fn what_libseccomp_does_not_know_is_an_error_that_names_the_field() {
        let profile: Profile = r#"{"defaultAction": "SCMP_ACT_LOG", "flags": ["X"]}"#.parse().unwrap();
        let on = Surroundings { capabilities: &BTreeSet::new(), kernel: KernelVersion(6, 1) };
        assert!(from_docker(&profile, &on).unwrap_err().to_string().contains("flags"));
    }
}
