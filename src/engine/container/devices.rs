//! Devices of the host inside a container: nodes to make, and rules of what may be opened.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::engine::error::{At, EngineError};
use crate::model::container::ContainerSpec;

/// Nodes beside those that every container has (runtime-spec, config-linux.md, "Default Devices", which the
/// runtime makes), and the rules for all of them.
pub struct Devices {
    pub nodes: Vec<LinuxDevice>,
    pub rules: Vec<LinuxDeviceCgroup>,
}

/// Looks at the declared devices on the host. A privileged container gets all of `/dev`.
pub fn devices(spec: &ContainerSpec) -> Result<Devices, EngineError> {
    if spec.privileged {
        let mut nodes = Vec::new();
        collect(Path::new("/dev"), &mut nodes)?;
        return Ok(Devices { nodes, rules: vec![rule(Verdict::Allow, None, None, "rwm")] });
    }
    let mut devices = Devices { nodes: Vec::new(), rules: default_rules() };
    for declared in &spec.devices {
        let node = node(Path::new(&declared.source), Path::new(&declared.target))?;
        let number = Some((node.major(), Some(node.minor())));
        devices.rules.push(rule(Verdict::Allow, Some(node.typ()), number, &declared.permissions));
        devices.nodes.push(node);
    }
    Ok(devices)
}

enum Verdict {
    Allow,
    Deny,
}

/// Nothing, then the harmless ones: Docker's list. `mknod` of any device is allowed, opening it is not.
fn default_rules() -> Vec<LinuxDeviceCgroup> {
    let char = Some(LinuxDeviceType::C);
    let numbers =
        [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];
    let mut rules = vec![
        rule(Verdict::Deny, None, None, "rwm"),
        rule(Verdict::Allow, char, None, "m"),
        rule(Verdict::Allow, Some(LinuxDeviceType::B), None, "m"),
    ];
    rules.extend(numbers.map(|number| rule(Verdict::Allow, char, Some(number), "rwm")));
    rules
}

fn rule(
    verdict: Verdict,
    typ: Option<LinuxDeviceType>,
    number: Option<(i64, Option<i64>)>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(matches!(verdict, Verdict::Allow));
    rule.set_typ(Some(typ.unwrap_or(LinuxDeviceType::A)));
    rule.set_major(number.map(|(major, _)| major));
    rule.set_minor(number.and_then(|(_, minor)| minor));
    rule.set_access(Some(access.to_owned()));
    rule
}

/// The device at `source` of the host, to be made at `target`.
fn node(source: &Path, target: &Path) -> Result<LinuxDevice, EngineError> {
    let metadata = fs::metadata(source).at("look at the device", source)?;
    let file_type = metadata.file_type();
    let typ = match (file_type.is_char_device(), file_type.is_block_device()) {
        (true, _) => LinuxDeviceType::C,
        (_, true) => LinuxDeviceType::B,
        _ => {
            let not_a_device = std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no device");
            return Err(not_a_device).at("use the device", source);
        }
    };
    let number = metadata.rdev();
    let mut device = LinuxDevice::default();
    device.set_path(target.to_owned());
    device.set_typ(typ);
    device.set_major(i64::from(rustix::fs::major(number)));
    device.set_minor(i64::from(rustix::fs::minor(number)));
    device.set_file_mode(Some(metadata.mode() & 0o777));
    device.set_uid(Some(metadata.uid()));
    device.set_gid(Some(metadata.gid()));
    Ok(device)
}

/// Every device below `directory`, except what the container mounts its own (`pts`, `shm`, `mqueue`) and what it
/// has anyway.
fn collect(directory: &Path, nodes: &mut Vec<LinuxDevice>) -> Result<(), EngineError> {
    const OWN: [&str; 11] =
        ["pts", "shm", "mqueue", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
    for entry in fs::read_dir(directory).at("list", directory)? {
        let path: PathBuf = entry.at("list", directory)?.path();
        let own = directory == Path::new("/dev") && OWN.iter().any(|name| path.ends_with(name));
        // A device that vanished while we looked is no device.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let kind = metadata.file_type();
        if own {
            continue;
        } else if kind.is_dir() {
            collect(&path, nodes)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            nodes.push(node(&path, &path)?);
        }
    }
    Ok(())
}
