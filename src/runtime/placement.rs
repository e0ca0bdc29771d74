//! On which processors a further process runs, and from which memory nodes all of them get their memory
//! (runtime-spec, config.md, `execCPUAffinity`; config-linux.md, "Memory policy").

use oci_spec::runtime::{
    ExecCPUAffinity, Linux, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process as ProcessSpec,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use serde_json::{Value, json};

use super::error::{Context, RuntimeError, invalid};
use crate::sys;

/// Processors and memory nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Placement {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
    memory: Option<MemoryPolicy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MemoryPolicy {
    /// With its flags.
    mode: i32,
    nodes: Vec<libc::c_ulong>,
}

/// Reads both.
pub(super) fn prepare(process: &ProcessSpec, linux: Option<&Linux>) -> Result<Placement, RuntimeError> {
    let affinity = process.exec_cpu_affinity().as_ref();
    let set = |name: &str, list: fn(&ExecCPUAffinity) -> &Option<String>| {
        let list = affinity.and_then(|affinity| list(affinity).as_deref()).filter(|list| !list.is_empty());
        list.map(|list| processors(&format!("process.execCPUAffinity.{name}"), list)).transpose()
    };
    Ok(Placement {
        initial: set("initial", ExecCPUAffinity::initial)?,
        last: set("final", ExecCPUAffinity::cpu_affinity_final)?,
        memory: linux.and_then(|linux| linux.memory_policy().as_ref()).map(memory_policy).transpose()?,
    })
}

fn processors(field: &str, list: &str) -> Result<CpuSet, RuntimeError> {
    let mut set = CpuSet::new();
    for number in numbers(field, list, CpuSet::MAX_CPU)? {
        set.set(number);
    }
    Ok(set)
}

/// `0-3,7`: each number, all below `end`.
fn numbers(field: &str, list: &str, end: usize) -> Result<Vec<usize>, RuntimeError> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) if first <= last && last < end => numbers.extend(first..=last),
            _ => return Err(invalid(field, format!("`{range}` is none of numbers and ranges such as `0-3,7`"))),
        }
    }
    Ok(numbers)
}

/// The kernel's largest number of memory nodes (`MAX_NUMNODES`).
const NODES: usize = 1024;

/// linux/mempolicy.h.
const MODES: [(MemoryPolicyModeType, i32); 7] = [
    (MemoryPolicyModeType::MpolDefault, 0),
    (MemoryPolicyModeType::MpolPreferred, 1),
    (MemoryPolicyModeType::MpolBind, 2),
    (MemoryPolicyModeType::MpolInterleave, 3),
    (MemoryPolicyModeType::MpolLocal, 4),
    (MemoryPolicyModeType::MpolPreferredMany, 5),
    (MemoryPolicyModeType::MpolWeightedInterleave, 6),
];

const FLAGS: [(MemoryPolicyFlagType, i32); 3] = [
    (MemoryPolicyFlagType::MpolFStaticNodes, 1 << 15),
    (MemoryPolicyFlagType::MpolFRelativeNodes, 1 << 14),
    (MemoryPolicyFlagType::MpolFNumaBalancing, 1 << 13),
];

/// What `features` tells of memory policies.
pub(super) fn features() -> Value {
    json!({"modes": MODES.map(|(mode, _)| mode), "flags": FLAGS.map(|(flag, _)| flag)})
}

fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy, RuntimeError> {
    let known = MODES.iter().find(|(known, _)| *known == wanted.mode()).map(|(_, number)| *number);
    let mut mode = known.ok_or_else(|| invalid("linux.memoryPolicy.mode", "it is not known"))?;
    for flag in wanted.flags().iter().flatten() {
        mode |= FLAGS.iter().find(|(known, _)| known == flag).map_or(0, |(_, bit)| *bit);
    }
    let list = wanted.nodes().as_deref().filter(|list| !list.is_empty());
    let mut nodes = Vec::new();
    for number in list.map(|list| numbers("linux.memoryPolicy.nodes", list, NODES)).transpose()?.unwrap_or_default() {
        let bits = libc::c_ulong::BITS as usize;
        nodes.resize(nodes.len().max(number / bits + 1), 0);
        nodes[number / bits] |= 1 << (number % bits);
    }
    Ok(MemoryPolicy { mode, nodes })
}

/// While this lives, this process, and what it makes, runs on the initial processors.
pub(super) struct Elsewhere {
    own: CpuSet,
}

impl Placement {
    /// Before a further process is made: where it runs until it is in the container's cgroup.
    pub(super) fn begin(&self) -> Result<Option<Elsewhere>, RuntimeError> {
        let Some(initial) = &self.initial else { return Ok(None) };
        let step = "move to the processors of";
        let own = sched_getaffinity(None).during(step, "process.execCPUAffinity.initial")?;
        sched_setaffinity(None, initial).during(step, "process.execCPUAffinity.initial")?;
        Ok(Some(Elsewhere { own }))
    }

    /// In that process, once it is there. Of what it has from the caller nothing stays (see [`spread`]).
    pub(super) fn end(&self) -> Result<(), RuntimeError> {
        match (&self.last, &self.initial) {
            (Some(last), _) => {
                sched_setaffinity(None, last).during("move to the processors of", "process.execCPUAffinity.final")
            }
            (None, Some(_)) => Ok(()),
            (None, None) => spread(),
        }
    }

    /// The memory nodes of this process.
    pub(super) fn bind_memory(&self) -> Result<(), RuntimeError> {
        match &self.memory {
            Some(MemoryPolicy { mode, nodes }) => {
                sys::numa::set_memory_policy(*mode, nodes).during("set", "linux.memoryPolicy")
            }
            None => Ok(()),
        }
    }
}

/// Lets this process run wherever its cgroup lets it: on which processors the caller runs, by taskset(1) or by systemd's
/// `CPUAffinity=`, is no limit of the container's.
pub(super) fn spread() -> Result<(), RuntimeError> {
    let mut everywhere = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|number| everywhere.set(number));
    // The kernel takes what there is of it (sched_setaffinity(2)).
    sched_setaffinity(None, &everywhere).during("run on", "all processors")
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // The processors may be gone by now; then this process stays where it is, which is no harm.
        let _ = sched_setaffinity(None, &self.own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbers_and_ranges() {
        assert_eq!(numbers("x", "0-3,7", 8).unwrap(), [0, 1, 2, 3, 7]);
        for list in ["", "3-1", "a", "1,", "-1", "8"] {
            assert!(numbers("x", list, 8).is_err(), "{list:?}");
        }
    }

    #[test]
    fn a_memory_policy_is_a_mode_with_flags_and_a_mask() {
        let policy = |text: &str| memory_policy(&serde_json::from_str(text).unwrap());
        let found = policy(r#"{"mode": "MPOL_BIND", "nodes": "0,65", "flags": ["MPOL_F_STATIC_NODES"]}"#).unwrap();
        assert_eq!(found, MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![1, 2] });
        let found = policy(r#"{"mode": "MPOL_LOCAL"}"#).unwrap();
        assert_eq!(found, MemoryPolicy { mode: 4, nodes: Vec::new() });
        assert!(policy(r#"{"mode": "MPOL_BIND", "nodes": "4096"}"#).is_err());
    }
}
