//! The firewall as data: what must be in the kernel follows from the records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddrV4, SocketAddrV6};

use serde::{Deserialize, Serialize};

use super::id::NetworkId;
use super::network::Subnet;
use super::port::HostPort;
use super::record::{ContainerRecord, NetworkRecord};
use super::way_out::WayOut;

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
    /// The rules that these networks and containers need. A port is published by the container's [`WayOut`] of each
    /// family.
    pub fn of<'a>(
        networks: impl IntoIterator<Item = &'a NetworkRecord>,
        containers: impl IntoIterator<Item = &'a ContainerRecord>,
    ) -> Ruleset {
        let mut rules = Ruleset::default();
        let networks: Vec<&NetworkRecord> = networks.into_iter().collect();
        for NetworkRecord { id, spec, subnet, subnet6, .. } in &networks {
            let entry = NetworkRules { subnet: *subnet, subnet6: *subnet6, internal: spec.internal };
            rules.networks.insert(id.clone(), entry);
        }
        for container in containers {
            let WayOut { v4, v6 } = WayOut::of(container, networks.iter().copied());
            let on = |way: Option<&NetworkRecord>| container.addresses.get(&way?.id);
            let (v4, v6) = (on(v4).map(|on| on.v4), on(v6).and_then(|on| on.v6));
            for (host, port) in container.spec.ports.iter().filter(|_| v4.is_some() || v6.is_some()) {
                let targets = rules.ports.entry(*host).or_default();
                targets.v4.extend(v4.map(|v4| SocketAddrV4::new(v4, *port)));
                targets.v6.extend(v6.map(|v6| SocketAddrV6::new(v6, *port, 0, 0)));
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::ContainerSpec;
    use crate::model::image::ImageSource;
    use crate::model::network::NetworkSpec;
    use crate::model::record::Addresses;

    fn network(id: &str, name: &str, subnet6: Option<&str>, internal: bool) -> NetworkRecord {
        NetworkRecord {
            version: 1,
            id: id.parse().unwrap(),
            project: "shop".parse().unwrap(),
            name: name.parse().unwrap(),
            spec: NetworkSpec { internal, ..Default::default() },
            subnet: "10.0.0.0/24".parse().unwrap(),
            subnet6: subnet6.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn where_a_port_leads_follows_from_names_of_networks_and_from_families_not_from_identifiers() {
        let ids = ["00000001", "00000002", "00000003"];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let [front, inner, six] = order.map(|at| ids[at]);
            let networks = [
                network(front, "front", None, false),
                network(inner, "inner", Some("fd00:1::/64"), true),
                network(six, "six", Some("fd00:2::/64"), false),
            ];
            let at = |id: &str, v4: &str, v6: Option<&str>| {
                let v6 = v6.map(|text| text.parse().unwrap());
                (id.parse().unwrap(), Addresses { v4: v4.parse().unwrap(), v6 })
            };
            let addresses = [
                at(front, "10.0.0.2", None),
                at(inner, "10.0.1.2", Some("fd00:1::2")),
                at(six, "10.0.2.2", Some("fd00:2::2")),
            ];
            let mut spec = ContainerSpec::of(ImageSource::Rootfs("/".into()));
            let port: HostPort = "*:443".parse().unwrap();
            spec.ports.insert(port, 8443);
            let web = ContainerRecord {
                version: 1,
                id: "0123456789ab".parse().unwrap(),
                project: "shop".parse().unwrap(),
                instance: "web".parse().unwrap(),
                spec,
                image: None,
                addresses: addresses.into(),
                network_of: None,
                users: None,
                way_out: Default::default(),
                after_end: Default::default(),
                refused: None,
                before: None,
            };
            let targets = PortTargets {
                v4: ["10.0.0.2:8443".parse().unwrap()].into(),
                v6: ["[fd00:2::2]:8443".parse().unwrap()].into(),
            };
            assert_eq!(Ruleset::of(&networks, [&web]).ports, [(port, targets)].into());
        }
    }
}
