//! Capabilities (capabilities(7)): the five sets of a process, and what this host allows.
//!
//! What this host cannot grant falls away with a warning that names it. Who plans a container asks [`host_bounding`]
//! first and says so in the plan.

use std::collections::BTreeSet;
use std::fmt;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::error::{Context, RuntimeError};
use crate::model::security::Capability;

/// The numbers of the set that Podman grants by default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
/// SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
pub const DEFAULT: [u8; 11] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31];

/// CHOWN, DAC_OVERRIDE, SETGID, SETUID, SETPCAP: a user's directory and descriptors, the user, and the bounding set.
pub(super) const TO_BECOME_A_USER: u64 = 1 | 1 << 1 | 1 << 6 | 1 << 7 | 1 << 8;

pub(super) const SYS_ADMIN: u64 = 1 << 21;
pub(super) const SYS_NICE: u64 = 1 << 23;
const SYS_RESOURCE: u64 = 1 << 24;

/// [`DEFAULT`] as capabilities.
pub fn default_set() -> BTreeSet<Capability> {
    DEFAULT.into_iter().filter_map(Capability::from_number).collect()
}

/// The capabilities that this process could hand on at all: its bounding set.
pub fn host_bounding() -> BTreeSet<Capability> {
    Capability::all().filter(|capability| is_bounding(*capability)).collect()
}

/// Capabilities in the order of their numbers, printed as people write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilityList(pub BTreeSet<Capability>);

impl fmt::Display for CapabilityList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, capability) in self.0.iter().enumerate() {
            write!(f, "{}`{capability}`", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The five sets as bit masks, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl Sets {
    /// What any of them has.
    pub(super) fn all(&self) -> u64 {
        self.bounding | self.effective | self.inheritable | self.permitted | self.ambient
    }
}

/// What is in this process's own bounding set, and what is not.
pub(super) fn within_host(sets: &Sets) -> (Sets, CapabilityList) {
    let missing: BTreeSet<Capability> = members(sets.all()).filter(|capability| !is_bounding(*capability)).collect();
    let granted = missing.iter().fold(u64::MAX, |mask, capability| mask & !(1 << capability.number()));
    let sets = Sets {
        bounding: sets.bounding & granted,
        effective: sets.effective & granted,
        inheritable: sets.inheritable & granted,
        permitted: sets.permitted & granted,
        ambient: sets.ambient & granted,
    };
    (sets, CapabilityList(missing))
}

/// Without the ambient ones that the kernel would refuse, and these: what is ambient must be permitted and inheritable too
/// (capabilities(7)). Bundles have such sets since runc's template has no inheritable ones any more (CVE-2022-29162).
pub(super) fn without_unraisable(sets: &Sets) -> (Sets, CapabilityList) {
    let raisable = sets.permitted & sets.inheritable;
    let refused = members(sets.ambient & !raisable).collect();
    (Sets { ambient: sets.ambient & raisable, ..*sets }, CapabilityList(refused))
}

/// Whether this process may set a hard limit above its own (setrlimit(2)).
pub(super) fn may_raise_limits() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.bits() & SYS_RESOURCE != 0)
}

/// Takes everything else out of the bounding set. Needs `CAP_SETPCAP`, so it comes before [`apply`].
pub(super) fn limit_bounding(sets: &Sets) -> Result<(), RuntimeError> {
    for number in 0..64 {
        if sets.bounding & (1 << number) != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(bit(number)) {
            // The kernel knows fewer than 64: its last one was the one before.
            Err(rustix::io::Errno::INVAL) => break,
            other => other.during("take from the bounding set capability", number)?,
        }
    }
    Ok(())
}

/// Takes everything else from this process, but for its bounding set.
pub(super) fn keep_within(mask: u64) -> Result<(), RuntimeError> {
    let own = rustix::thread::capabilities(None).during("read", "the capabilities")?;
    let kept = |set: CapabilitySet| set & CapabilitySet::from_bits_retain(mask);
    let kept = CapabilitySets {
        effective: kept(own.effective),
        permitted: kept(own.permitted),
        inheritable: kept(own.inheritable),
    };
    set_capabilities(None, kept).during("set", "the capabilities")
}

/// Gives this process exactly these sets.
pub(super) fn apply(sets: &Sets) -> Result<(), RuntimeError> {
    let set = CapabilitySet::from_bits_retain;
    let wanted = CapabilitySets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    set_capabilities(None, wanted).during("set", "the capabilities")?;
    clear_ambient_capability_set().during("clear", "the ambient capabilities")?;
    for capability in members(sets.ambient) {
        configure_capability_in_ambient_set(bit(capability.number()), true)
            .during("raise as ambient the capability", capability)?;
    }
    Ok(())
}

fn members(mask: u64) -> impl Iterator<Item = Capability> {
    Capability::all().filter(move |capability| mask & (1 << capability.number()) != 0)
}

fn is_bounding(capability: Capability) -> bool {
    capability_is_in_bounding_set(bit(capability.number())).unwrap_or(false)
}

fn bit(number: u8) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_podmans() {
        let names: Vec<String> = default_set().iter().map(Capability::to_string).collect();
        let expected =
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let host = host_bounding();
        let all = Sets { bounding: (1 << 41) - 1, ..Sets::default() };
        let (granted, missing) = within_host(&all);
        assert_eq!(members(granted.bounding).collect::<BTreeSet<_>>(), host);
        assert_eq!(missing.0.len() + host.len(), 41);
    }

    #[test]
    fn ambient_is_what_is_permitted_and_inheritable() {
        let sets = Sets { permitted: 0b0110, inheritable: 0b1010, ambient: 0b1111, ..Sets::default() };
        let (granted, refused) = without_unraisable(&sets);
        assert_eq!(granted, Sets { ambient: 0b0010, ..sets });
        assert_eq!(refused.to_string(), "`CHOWN`, `DAC_READ_SEARCH`, `FOWNER`");
    }
}
