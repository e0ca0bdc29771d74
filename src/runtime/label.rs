//! Labels of security modules: the AppArmor profile or the SELinux context that a program is executed under
//! (`process.apparmorProfile`, `process.selinuxLabel`), and the context of what is mounted (`linux.mountLabel`).
//!
//! The kernel takes a label for the next execve(2) of a task through its own /proc/thread-self/attr, and only from
//! itself. That directory is opened while the host's /proc is still there: in the container anything may be mounted in
//! its place, and the label would be written to nowhere (CVE-2019-16884).

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{Linux, Process as ProcessSpec};
use rustix::fs::{Mode, OFlags, open, openat};

use super::error::{Context, RuntimeError, unsupported};

/// What a program is executed under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Labels {
    apparmor: Option<String>,
    selinux: Option<String>,
}

/// The way to set them: a directory of the task that has opened it.
pub(super) struct Attributes(OwnedFd);

/// Reads both. A label that this host's kernel has no module for is an error: without it the container would be less
/// confined than its configuration says.
pub(super) fn prepare(process: &ProcessSpec) -> Result<Labels, RuntimeError> {
    Ok(Labels {
        apparmor: supported("process.apparmorProfile", process.apparmor_profile(), ("AppArmor", has_apparmor))?,
        selinux: supported("process.selinuxLabel", process.selinux_label(), ("SELinux", has_selinux))?,
    })
}

/// Reads `linux.mountLabel`.
pub(super) fn of_mounts(linux: &Linux) -> Result<Option<String>, RuntimeError> {
    supported("linux.mountLabel", linux.mount_label(), ("SELinux", has_selinux))
}

/// Whether a new filesystem of this type takes its label as an option; the others are labelled by the policy.
pub(super) fn is_by_option(kind: &str) -> bool {
    !matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2" | "mqueue")
}

fn supported(
    field: &str,
    label: &Option<String>,
    (module, is_there): (&str, fn() -> bool),
) -> Result<Option<String>, RuntimeError> {
    match label.as_deref().filter(|label| !label.is_empty()) {
        None => Ok(None),
        Some(label) if is_there() => Ok(Some(label.to_owned())),
        Some(_) => Err(unsupported(field, format!("{module} is not active in this host's kernel"))),
    }
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// The kernel makes this directory only where SELinux is active.
fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux").is_dir()
}

impl Labels {
    pub(super) fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }

    /// Opens the way to set them, for this task, while it sees the host's /proc.
    pub(super) fn open(&self) -> Result<Option<Attributes>, RuntimeError> {
        if self.is_empty() {
            return Ok(None);
        }
        let name = "/proc/thread-self/attr";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(name, flags, Mode::empty()).during("open", name).map(|directory| Some(Attributes(directory)))
    }

    /// Sets them for the next execve(2).
    pub(super) fn apply(&self, attributes: Option<&Attributes>) -> Result<(), RuntimeError> {
        let Some(Attributes(directory)) = attributes else { return Ok(()) };
        if let Some(profile) = &self.apparmor {
            let step = "execute under the AppArmor profile";
            // Since Linux 5.8 each module has files of its own; before, the first module has these.
            let file = match openat(directory, "apparmor/exec", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => {
                    openat(directory, "exec", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                }
                other => other,
            };
            let command = format!("exec {profile}");
            file.and_then(|file| rustix::io::write(&file, command.as_bytes())).during(step, profile)?;
        }
        if let Some(label) = &self.selinux {
            openat(directory, "exec", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|file| rustix::io::write(&file, label.as_bytes()))
                .during("execute under the SELinux label", label)?;
        }
        Ok(())
    }
}
