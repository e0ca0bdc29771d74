//! Which address a container gets on each of its networks.
//!
//! A declared address is taken as it is. Otherwise a replacement takes over the address of the one that goes, so that
//! connections, firewall and names need no change; one that starts beside its predecessor gets the lowest free
//! address, as every new container does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::networks::Networks;
use super::{Findings, World};
use crate::model::container::ContainerSpec;
use crate::model::id::{Instance, NetworkId, ResourceName};
use crate::model::network::{Attachment, NetworkMode};
use crate::model::record::{Addresses, ContainerRecord};
use crate::model::subnets::{choose_address, choose_address6};

/// What is taken, by network.
pub(super) struct AddressBook {
    v4: BTreeMap<NetworkId, BTreeSet<Ipv4Addr>>,
    v6: BTreeMap<NetworkId, BTreeSet<Ipv6Addr>>,
    /// Declared addresses and whose they are.
    fixed: BTreeMap<(NetworkId, IpAddr), ResourceName>,
}

/// A container that needs addresses.
pub(super) struct Applicant<'a> {
    pub instance: &'a Instance,
    pub spec: &'a ContainerSpec,
    /// Whose addresses it takes over where it can.
    pub heir_of: Option<&'a ContainerRecord>,
}

impl AddressBook {
    /// Every address in a record or declared.
    pub fn of(world: &World<'_>, networks: &Networks<'_>) -> AddressBook {
        let mut book = AddressBook { v4: BTreeMap::new(), v6: BTreeMap::new(), fixed: BTreeMap::new() };
        let readable = world.actual.containers.values().flat_map(|container| &container.record.addresses);
        let others = world.actual.unreadable.iter().flat_map(|record| &record.addresses);
        readable.chain(others).for_each(|(network, addresses)| book.take(network, *addresses));
        for (name, container) in &world.desired.containers {
            let NetworkMode::Networks(attachments) = &container.spec.network else { continue };
            for (network, Attachment { aliases: _, address, address6 }) in attachments {
                let Some(network) = networks.declared.get(network) else { continue };
                let id = &network.record.id;
                book.v4.entry(id.clone()).or_default().extend(address);
                book.v6.entry(id.clone()).or_default().extend(address6);
                let fixed = address.map(IpAddr::from).into_iter().chain(address6.map(IpAddr::from));
                book.fixed.extend(fixed.map(|address| ((id.clone(), address), name.clone())));
            }
        }
        book
    }

    fn take(&mut self, network: &NetworkId, addresses: Addresses) {
        self.v4.entry(network.clone()).or_default().insert(addresses.v4);
        self.v6.entry(network.clone()).or_default().extend(addresses.v6);
    }

    /// Addresses on every network that the applicant is attached to.
    pub fn assign(
        &mut self,
        applicant: &Applicant<'_>,
        networks: &Networks<'_>,
        findings: &mut Findings,
    ) -> BTreeMap<NetworkId, Addresses> {
        let NetworkMode::Networks(attachments) = &applicant.spec.network else { return BTreeMap::new() };
        let mut assigned = BTreeMap::new();
        for (name, attachment) in attachments {
            let Some(network) = networks.declared.get(name) else { continue };
            let record = &network.record;
            let inherited = applicant.heir_of.and_then(|old| old.addresses.get(&record.id));
            let of_another = |address: IpAddr| {
                let owner = self.fixed.get(&(record.id.clone(), address));
                owner.is_some_and(|owner| *owner != applicant.instance.container)
            };
            let v4 = attachment.address.or_else(|| {
                let kept = inherited.map(|a| a.v4).filter(|v4| !of_another((*v4).into()));
                kept.or_else(|| choose_address(record.subnet, self.v4.get(&record.id).unwrap_or(&BTreeSet::new())))
            });
            let v6 = record.subnet6.and_then(|subnet| {
                attachment.address6.or_else(|| {
                    let kept = inherited.and_then(|a| a.v6).filter(|v6| !of_another((*v6).into()));
                    kept.or_else(|| choose_address6(subnet, self.v6.get(&record.id).unwrap_or(&BTreeSet::new())))
                })
            });
            if v4.is_none() || (record.subnet6.is_some() && v6.is_none()) {
                findings.impossible(
                    format!("container {}", applicant.instance),
                    format!("network {name} ({}) has no free address left", record.subnet),
                    "give the network a larger subnet",
                );
            }
            let addresses = Addresses { v4: v4.unwrap_or(Ipv4Addr::UNSPECIFIED), v6 };
            self.take(&record.id, addresses);
            assigned.insert(record.id.clone(), addresses);
        }
        assigned
    }
}

/// Whether two records claim one address.
pub(super) fn collide(a: &ContainerRecord, b: &ContainerRecord) -> bool {
    a.addresses.iter().any(|(network, a)| b.addresses.get(network).is_some_and(|b| a.collide(b)))
}
