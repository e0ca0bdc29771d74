//! One bridge per network: the link, the gateway's addresses and the settings that packets need to pass.
//!
//! What is wrong is found by a pure comparison (`Bridge` against a snapshot); drift prints it, `ensure` repairs it,
//! one thing at a time.
//!
//! # What is changed beyond our own links
//!
//! A network that is not internal needs the host to forward packets: `net.ipv4.ip_forward` becomes 1, with IPv6
//! `net.ipv6.conf.all.forwarding` too. Both stay when the network goes, since others may have come to rely on them.
//! Forwarding cannot be had for one link alone: the answers come in through the uplinks. A host that must not route
//! between its other links says so in its own firewall; one whose firewall drops what is forwarded by default (Docker
//! does that in the chain FORWARD of iptables) must accept what comes from and goes to links called `ek*`, because no
//! table of nftables can overrule another's drop.
//!
//! # Decisions
//! `forwarding` of an internal network's bridge is left as the kernel has it: turning it on for the host turns it on for
//! every link, and what keeps these packets in is the firewall. Of what no other setting touches both values are wanted, so
//! that a network that becomes internal is as one that was made so.

use std::net::IpAddr;

use rtnetlink::LinkUnspec;

use crate::model::actual::Drift;
use crate::model::id::RootTag;
use crate::model::network::{bridge_name, mac_address};
use crate::model::record::NetworkRecord;

use super::NetworkError;
use super::link::Links;
use super::snapshot::Snapshot;
use super::sysctl;

/// The kernel's default for Ethernet.
pub(super) const DEFAULT_MTU: u32 = 1500;

/// Settings of the whole host, as keys below /proc/sys/net.
pub(super) const FORWARD_V4: &str = "ipv4/ip_forward";
pub(super) const FORWARD_V6: &str = "ipv6/conf/all/forwarding";

/// A bridge as its network's record wants it.
#[derive(Debug)]
pub(super) struct Bridge {
    pub name: String,
    hardware: [u8; 6],
    mtu: u32,
    addresses: Vec<(IpAddr, u8)>,
    /// Keys below /proc/sys/net and their values.
    settings: Vec<(String, &'static str)>,
    forwards_ipv6: bool,
}

/// One thing about a bridge that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    Missing,
    Foreign { kind: String },
    Down,
    Mtu { found: u32 },
    Address(IpAddr, u8),
    Setting { key: String, found: Option<String>, wanted: &'static str },
}

impl Bridge {
    pub fn of(tag: &RootTag, record: &NetworkRecord) -> Bridge {
        let NetworkRecord { id, spec, subnet, subnet6, version: _, project: _, name: _ } = record;
        let name = bridge_name(tag, id);
        let gateway = subnet.gateway();
        let hardware = match gateway {
            IpAddr::V4(v4) => mac_address(v4),
            IpAddr::V6(_) => mac_address(std::net::Ipv4Addr::UNSPECIFIED),
        };
        let subnets = std::iter::once(subnet).chain(subnet6);
        let addresses = subnets.map(|subnet| (subnet.gateway(), subnet.prefix())).collect();
        let mut settings = Vec::new();
        if !spec.internal {
            settings.push((FORWARD_V4.to_owned(), "1"));
            settings.push((format!("ipv4/conf/{name}/forwarding"), "1"));
        }
        // Lets the host's own packets from 127.0.0.1 leave to a container whose port is published there. The firewall
        // drops what a container sends to 127.0.0.0/8 in return for the favour (CVE-2020-8558).
        settings.push((format!("ipv4/conf/{name}/route_localnet"), if spec.internal { "0" } else { "1" }));
        // The host is the router here: no container tells it where to send its packets, or gives it an address. A network
        // without IPv6 is no exception, since its bridge has IPv6 as every link has (CVE-2020-13401).
        settings.push((format!("ipv6/conf/{name}/accept_ra"), "0"));
        if subnet6.is_some() {
            settings.push((format!("ipv6/conf/{name}/disable_ipv6"), "0"));
            // Whoever asks for a container's neighbour on behalf of others does so from the link-local address. While
            // that one is checked for duplicates (RFC 4862), no packet from outside would find its container.
            settings.push((format!("ipv6/conf/{name}/accept_dad"), "0"));
        }
        let forwards_ipv6 = subnet6.is_some() && !spec.internal;
        Bridge { name, hardware, mtu: spec.mtu.unwrap_or(DEFAULT_MTU), addresses, settings, forwards_ipv6 }
    }

    /// What is not as wanted, in the order in which it must be repaired: settings rule how a link comes up, and one that
    /// comes up has lost its IPv6 addresses.
    fn faults(&self, found: &Snapshot, setting: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
        let Some(link) = found.links.get(&self.name) else { return vec![Fault::Missing] };
        if link.kind != "bridge" {
            return vec![Fault::Foreign { kind: link.kind.clone() }];
        }
        let mut faults = Vec::new();
        let has_ipv6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let mut settings: Vec<(&str, &'static str)> = self.settings.iter().map(|(key, v)| (key.as_str(), *v)).collect();
        if self.forwards_ipv6 {
            settings.push((FORWARD_V6, "1"));
        }
        for (key, wanted) in settings {
            let found = setting(key);
            // A host without IPv6 has no such settings, and nobody to listen.
            if found.is_none() && key.starts_with("ipv6/") && !has_ipv6 {
                continue;
            }
            if found.as_deref() != Some(wanted) {
                faults.push(Fault::Setting { key: key.to_owned(), found, wanted });
            }
        }
        if link.mtu != self.mtu {
            faults.push(Fault::Mtu { found: link.mtu });
        }
        if !link.is_up {
            faults.push(Fault::Down);
        }
        let missing =
            self.addresses.iter().filter(|(address, prefix)| !found.has_address(link.index, *address, *prefix));
        faults.extend(missing.map(|(address, prefix)| Fault::Address(*address, *prefix)));
        faults
    }

    pub fn drift(&self, found: &Snapshot) -> Vec<Drift> {
        self.faults(found, sysctl::read).into_iter().map(|fault| self.describe(fault)).collect()
    }

    fn describe(&self, fault: Fault) -> Drift {
        let name = &self.name;
        let (object, found, wanted) = match fault {
            Fault::Missing => (format!("bridge {name}"), "missing".to_owned(), "present".to_owned()),
            Fault::Foreign { kind } => {
                (format!("bridge {name}"), format!("a link of kind {kind}"), "a bridge".to_owned())
            }
            Fault::Down => (format!("bridge {name}"), "down".to_owned(), "up".to_owned()),
            Fault::Mtu { found } => (format!("mtu of {name}"), found.to_string(), self.mtu.to_string()),
            Fault::Address(address, prefix) => {
                (format!("address {address}/{prefix} of {name}"), "missing".to_owned(), "present".to_owned())
            }
            Fault::Setting { key, found, wanted } => {
                let found = found.unwrap_or_else(|| "missing".to_owned());
                (format!("sysctl net.{}", key.replace('/', ".")), found, wanted.to_owned())
            }
        };
        Drift { object, found, wanted }
    }

    fn repair(&self, links: &Links, index: u32, fault: Fault) -> Result<(), NetworkError> {
        match fault {
            Fault::Missing => links.create_bridge(&self.name, self.hardware, self.mtu),
            Fault::Foreign { kind } => Err(NetworkError::Foreign { link: self.name.clone(), kind }),
            Fault::Down => links.change(&self.name, LinkUnspec::new_with_index(index).up().build()),
            Fault::Mtu { .. } => links.change(&self.name, LinkUnspec::new_with_index(index).mtu(self.mtu).build()),
            Fault::Address(address, prefix) => links.add_address(&self.name, index, (address, prefix)),
            Fault::Setting { key, .. } if key == FORWARD_V6 => sysctl::forward_ipv6(),
            Fault::Setting { key, wanted, .. } => sysctl::ensure(&key, wanted),
        }
    }
}

impl Links {
    /// Bridge, addresses and settings of this network are there. Sends nothing where nothing is missing.
    pub fn ensure_bridge(&self, tag: &RootTag, record: &NetworkRecord) -> Result<(), NetworkError> {
        let bridge = Bridge::of(tag, record);
        let mut found = self.look(Snapshot::of_links)?;
        let mut faults = bridge.faults(&found, sysctl::read);
        if faults == [Fault::Missing] {
            bridge.repair(self, 0, Fault::Missing)?;
            found = self.look(Snapshot::of_links)?;
            faults = bridge.faults(&found, sysctl::read);
        }
        let index = found.links.get(&bridge.name).map_or(0, |link| link.index);
        faults.into_iter().try_for_each(|fault| bridge.repair(self, index, fault))
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Link;
    use super::*;

    fn bridge(subnet6: Option<&str>) -> Bridge {
        let record = NetworkRecord {
            version: 1,
            id: "01234567".parse().unwrap(),
            project: "shop".parse().unwrap(),
            name: "front".parse().unwrap(),
            spec: Default::default(),
            subnet: "10.89.7.0/24".parse().unwrap(),
            subnet6: subnet6.map(|text| text.parse().unwrap()),
        };
        Bridge::of(&"ab12".parse().unwrap(), &record)
    }

    fn whole(bridge: &Bridge) -> Snapshot {
        let link = Link { index: 7, is_up: true, mtu: 1500, kind: "bridge".into(), ..Link::default() };
        Snapshot {
            links: [(bridge.name.clone(), link)].into(),
            addresses: bridge.addresses.iter().map(|(address, prefix)| (7, *address, *prefix)).collect(),
            routes: Vec::new(),
        }
    }

    fn all_set(key: &str) -> Option<String> {
        let is_off = ["disable_ipv6", "accept_ra", "accept_dad"].iter().any(|off| key.ends_with(off));
        Some(if is_off { "0" } else { "1" }.into())
    }

    #[test]
    fn a_bridge_as_recorded_has_no_faults() {
        let bridge = bridge(None);
        assert_eq!(bridge.faults(&whole(&bridge), all_set), []);
    }

    #[test]
    fn each_thing_that_is_missing_is_a_fault_of_its_own() {
        let bridge = bridge(None);
        let mut found = whole(&bridge);
        found.addresses.clear();
        found.links.get_mut(&bridge.name).unwrap().is_up = false;
        let faults = bridge.faults(&found, |key| match key {
            "ipv4/ip_forward" => Some("0".into()),
            key => all_set(key),
        });
        let forward = Fault::Setting { key: "ipv4/ip_forward".into(), found: Some("0".into()), wanted: "1" };
        assert_eq!(faults, [forward, Fault::Down, Fault::Address("10.89.7.1".parse().unwrap(), 24)]);
    }

    #[test]
    fn a_network_without_ipv6_wants_none_of_a_host_that_has_none() {
        let without_ipv6 = |key: &str| all_set(key).filter(|_| !key.starts_with("ipv6/"));
        let old = bridge(None);
        assert_eq!(old.faults(&whole(&old), without_ipv6), []);
        let new = bridge(Some("fd00:7::/64"));
        assert_ne!(new.faults(&whole(&new), without_ipv6), []);
    }

    #[test]
    fn a_foreign_link_of_the_name_is_not_repaired() {
        let bridge = bridge(Some("fd00:7::/64"));
        let mut found = whole(&bridge);
        found.links.get_mut(&bridge.name).unwrap().kind = "dummy".into();
        assert_eq!(bridge.faults(&found, all_set), [Fault::Foreign { kind: "dummy".into() }]);
    }

    #[test]
    fn drift_names_the_kernel_object() {
        let bridge = bridge(Some("fd00:7::/64"));
        let drift = bridge.describe(Fault::Address("fd00:7::1".parse().unwrap(), 64));
        assert_eq!(drift.object, "address fd00:7::1/64 of ekab12b01234567");
    }
}
