//! Capabilities (capabilities(7)): the five sets of a process, and what this host allows.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::security::Capability;

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

/// The numbers of the set that Podman grants by default: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID,
/// SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
pub const DEFAULT: [u8; 11] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31];

/// [`DEFAULT`] as capabilities.
pub fn default_set() -> BTreeSet<Capability> {
    DEFAULT.into_iter().filter_map(Capability::from_number).collect()
}

/// The capabilities that this process could hand on at all: its bounding set.
pub fn host_bounding() -> BTreeSet<Capability> {
    Capability::all().filter(|c| is_bounding(*c)).collect()
}

fn is_bounding(capability: Capability) -> bool {
    let bit = rustix::thread::CapabilitySet::from_bits_retain(1 << capability.number());
    rustix::thread::capability_is_in_bounding_set(bit).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_podmans() {
        let names: Vec<String> = default_set().iter().map(Capability::to_string).collect();
        assert_eq!(
            names,
            [
                "CHOWN",
                "DAC_OVERRIDE",
                "FOWNER",
                "FSETID",
                "KILL",
                "SETGID",
                "SETUID",
                "SETPCAP",
                "NET_BIND_SERVICE",
                "SYS_CHROOT",
                "SETFCAP"
            ]
        );
    }
}
