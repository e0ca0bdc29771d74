//! The firewall as data: what must be in the kernel follows from the records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::id::NetworkId;
use super::network::Subnet;
use super::port::HostPort;
use super::record::{ContainerRecord, NetworkRecord};

/// What the rules need to know of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkRules {
    pub subnet: Subnet,
    pub subnet6: Option<Subnet>,
    pub internal: bool,
}

/// Where packets to a published port go: one of these, chosen at random per connection where there are several
/// (replicas).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortTargets {
    pub v4: BTreeSet<SocketAddrV4>,
    pub v6: BTreeSet<SocketAddrV6>,
}

/// All rules of one state root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    pub networks: BTreeMap<NetworkId, NetworkRules>,
    pub ports: BTreeMap<HostPort, PortTargets>,
}

impl Ruleset {
    /// The rules that these networks and containers need. A port is published by way of the first (by
    /// identifier) network of its container that is not internal.
    pub fn of<'a>(
        networks: impl IntoIterator<Item = &'a NetworkRecord>,
        containers: impl IntoIterator<Item = &'a ContainerRecord>,
    ) -> Ruleset {
        let mut rules = Ruleset::default();
        for NetworkRecord { id, spec, subnet, subnet6, .. } in networks {
            let entry = NetworkRules { subnet: *subnet, subnet6: *subnet6, internal: spec.internal };
            rules.networks.insert(id.clone(), entry);
        }
        for container in containers {
            let reachable =
                container.addresses.iter().find(|(id, _)| rules.networks.get(id).is_some_and(|n| !n.internal));
            let Some((_, addresses)) = reachable else { continue };
            for (host, port) in &container.spec.ports {
                let targets = rules.ports.entry(*host).or_default();
                targets.v4.insert(SocketAddrV4::new(addresses.v4, *port));
                targets.v6.extend(addresses.v6.map(|v6| SocketAddrV6::new(v6, *port, 0, 0)));
            }
        }
        rules
    }
}
