//! Network devices of the host that move into a container's network namespace (config-linux.md, "Network Devices").
//!
//! The parent moves them, once the namespace is there, and the first process waits for it: kernel parameters may name
//! them. A device keeps the addresses that it was given for good and is raised. What becomes of it when the namespace
//! goes is the kernel's to say: hardware returns to the host, what was made of software is gone
//! (network_namespaces(7)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags, open};

use super::error::{Context, RuntimeError, invalid};
use super::route::{Address, Link, Routes};
use crate::sys::namespace::setns;

/// linux/if.h, `IFNAMSIZ`, without the zero byte.
const LONGEST_NAME: usize = 15;

/// One device and its name in the container; a name may end in `%d`, for which the kernel finds a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NetDevice {
    on_host: String,
    inside: String,
}

/// Reads `linux.netDevices`. `kinds` are the namespaces that are not the host's, `CLONE_NEW*` bits.
pub(super) fn prepare(linux: &Linux, kinds: u64) -> Result<Vec<NetDevice>, RuntimeError> {
    let mut devices = Vec::new();
    for (on_host, device) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices.{on_host}");
        let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| on_host.clone());
        let pattern = inside.strip_suffix("%d").unwrap_or(&inside);
        if !is_name(on_host) || !is_name(&inside) || pattern.contains('%') {
            return Err(invalid(field, format!("a device cannot have the name `{}`", inside.escape_default())));
        }
        if devices.iter().any(|other: &NetDevice| other.inside == inside && pattern == inside) {
            return Err(invalid(field, format!("a second device would have the name `{inside}`")));
        }
        devices.push(NetDevice { on_host: on_host.clone(), inside });
    }
    if !devices.is_empty() && kinds & libc::CLONE_NEWNET as u64 == 0 {
        return Err(invalid("linux.netDevices", "they need a network namespace of the container's own"));
    }
    devices.sort_unstable_by(|a, b| a.on_host.cmp(&b.on_host));
    Ok(devices)
}

/// As the kernel has it (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte != b'/' && byte != b':' && byte > b' ';
    !name.is_empty() && name.len() <= LONGEST_NAME && name != "." && name != ".." && name.bytes().all(is_allowed)
}

/// Moves the devices into `namespace`, all or none: those that were moved come back, with their names and addresses,
/// where another cannot follow.
pub(super) fn hand_over(devices: &[NetDevice], namespace: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let step = "move the network device";
    let mut here = Routes::open().during("open", "a netlink socket")?;
    let mut there = routes_in(namespace)?;
    let ours = here.links().during("list", "the network devices")?;
    let theirs = there.links().during("list", "the network devices")?;
    let mut found = Vec::with_capacity(devices.len());
    for device in devices {
        let link = ours.iter().find(|link| link.name == device.on_host);
        let link = link.ok_or(rustix::io::Errno::NODEV).during(step, &device.on_host)?;
        if theirs.iter().any(|link| link.name == device.inside) {
            return Err(rustix::io::Errno::EXIST).during(step, format!("{} to {}", device.on_host, device.inside));
        }
        found.push((device, link));
    }
    let mut moved = Vec::with_capacity(found.len());
    for (device, link) in found {
        if let Err(error) = move_one(device, link, (&mut here, &mut there), namespace, &mut moved) {
            take_back(moved, (&mut here, &mut there));
            return Err(error);
        }
    }
    Ok(())
}

/// A device that has left, or may have.
struct Moved<'a> {
    device: &'a NetDevice,
    was_up: bool,
    addresses: Vec<Address>,
    /// What was there before it, and its number there once that was seen.
    before: Vec<Link>,
    index: Option<i32>,
}

fn move_one<'a>(
    device: &'a NetDevice,
    link: &Link,
    (here, there): (&mut Routes, &mut Routes),
    namespace: BorrowedFd<'_>,
    moved: &mut Vec<Moved<'a>>,
) -> Result<(), RuntimeError> {
    let step = "move the network device";
    let addresses = here.addresses(link.index).during("list the addresses of", &device.on_host)?;
    let before = there.links().during("list", "the network devices")?;
    let leaving =
        Moved { device, was_up: link.is_up, addresses: addresses.clone(), before: before.clone(), index: None };
    // Whatever fails from here on, it may be there.
    moved.push(leaving);
    let sent = here.move_link(link.index, namespace, &device.inside).during(step, &device.on_host);
    // The kernel names it after it has moved it: one that cannot have its name is there all the same.
    let arrived = arrived(&before, there.links().during("list", "the network devices")?);
    let Some(Link { index, name, .. }) = arrived else {
        return sent.and(Err(rustix::io::Errno::NODEV).during(step, &device.on_host));
    };
    if let Some(last) = moved.last_mut() {
        last.index = Some(index);
    }
    sent?;
    for address in &addresses {
        there.add_address(index, address).during("keep the addresses of", &device.on_host)?;
    }
    there.raise(index).during("raise the network device", &name)
}

/// As far as it goes: what the caller hears of is why they come back.
fn take_back(moved: Vec<Moved<'_>>, (here, there): (&mut Routes, &mut Routes)) {
    let Ok(own) = own_namespace() else { return };
    for Moved { device, was_up, addresses, before, index } in moved.into_iter().rev() {
        let found = || there.links().ok().and_then(|after| arrived(&before, after)).map(|link| link.index);
        // One that was never there needs no way back.
        let Some(index) = index.or_else(found) else { continue };
        let Ok(before) = here.links() else { continue };
        if there.move_link(index, own.as_fd(), &device.on_host).is_err() {
            continue;
        }
        let Some(back) = here.links().ok().and_then(|after| arrived(&before, after)) else { continue };
        // Whatever is lost on the way back is a smaller loss than the device.
        for address in &addresses {
            let _ = here.add_address(back.index, address);
        }
        if was_up {
            // As above.
            let _ = here.raise(back.index);
        }
    }
}

fn own_namespace() -> Result<OwnedFd, RuntimeError> {
    let name = "/proc/thread-self/ns/net";
    open(name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).during("open", name)
}

/// A device gets another number where its own is taken, and perhaps another name.
fn arrived(before: &[Link], after: Vec<Link>) -> Option<Link> {
    after.into_iter().find(|link| before.iter().all(|known| known.index != link.index))
}

/// A socket there; this process stays where it is.
fn routes_in(namespace: BorrowedFd<'_>) -> Result<Routes, RuntimeError> {
    let own = own_namespace()?;
    setns(namespace, libc::CLONE_NEWNET).during("join", "the container's network namespace")?;
    let routes = Routes::open();
    setns(own.as_fd(), libc::CLONE_NEWNET).during("return to", "the network namespace")?;
    routes.during("open", "a netlink socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(devices: &str, kinds: i32) -> Result<Vec<NetDevice>, RuntimeError> {
        let linux = serde_json::from_str(&format!(r#"{{"netDevices": {devices}}}"#)).unwrap();
        prepare(&linux, kinds as u64)
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let devices = prepared(r#"{"b": {"name": "eth%d"}, "a": {}}"#, libc::CLONE_NEWNET).unwrap();
        let names: Vec<(&str, &str)> = devices.iter().map(|d| (d.on_host.as_str(), d.inside.as_str())).collect();
        assert_eq!(names, [("a", "a"), ("b", "eth%d")]);
    }

    #[test]
    fn names_that_no_device_can_have_and_networks_of_the_host_are_refused() {
        for devices in [
            r#"{"a/b": {}}"#,
            r#"{"a": {"name": "sixteen-letters-"}}"#,
            r#"{"a": {"name": "e%s"}}"#,
            r#"{"a": {"name": ".."}}"#,
            r#"{"a": {"name": "x y"}}"#,
            r#"{"a": {"name": "same"}, "b": {"name": "same"}}"#,
        ] {
            assert!(prepared(devices, libc::CLONE_NEWNET).is_err(), "{devices}");
        }
        assert!(prepared(r#"{"a": {"name": "e%d"}, "b": {"name": "e%d"}}"#, libc::CLONE_NEWNET).is_ok());
        assert!(prepared(r#"{"a": {}}"#, libc::CLONE_NEWUTS).is_err());
        assert!(prepared("{}", 0).unwrap().is_empty());
    }
}
