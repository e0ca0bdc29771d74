//! By which of its networks a container reaches what is beyond them, and is reached from there.
//!
//! One answer for the default routes, for where published ports lead and for what `host-gateway` stands for: whoever is
//! reached by one network answers by the default route.
//!
//! # Decisions
//! The order is that of names, and not that of identifiers, which are random: one manifest makes the same on every host.
//! Containers that were made when it was that of identifiers keep it until they are made anew, or restarted for a change:
//! a route that moves breaks connections, and nobody has asked for that.

use serde::{Deserialize, Serialize};

use super::network::Subnet;
use super::record::{Addresses, ContainerRecord, NetworkRecord};

/// Which of several networks is the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    #[default]
    Names,
    Identifiers,
}

impl Order {
    pub fn is_default(&self) -> bool {
        *self == Order::default()
    }
}

/// The networks that lead out, by family. None of a container that has internal networks only, or no address of the
/// family on another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WayOut<'a> {
    pub v4: Option<&'a NetworkRecord>,
    pub v6: Option<&'a NetworkRecord>,
}

impl<'a> WayOut<'a> {
    /// Of `networks` those count that the container has an address on: of each family the first that is not internal.
    pub fn of(container: &ContainerRecord, networks: impl IntoIterator<Item = &'a NetworkRecord>) -> WayOut<'a> {
        let open = networks.into_iter().filter(|network| !network.spec.internal);
        let mut open: Vec<_> =
            open.filter_map(|network| Some((network, container.addresses.get(&network.id)?))).collect();
        let name = |network: &'a NetworkRecord| (container.way_out == Order::Names).then_some(&network.name);
        open.sort_by_key(|(network, _)| (name(network), &network.id));
        let has_v6 = |(network, own): &&(&NetworkRecord, &Addresses)| network.subnet6.is_some() && own.v6.is_some();
        WayOut {
            v4: open.first().map(|(network, _)| *network),
            v6: open.iter().find(has_v6).map(|(network, _)| *network),
        }
    }

    /// The subnets whose gateways are the default routes of a container on `network`.
    pub fn subnets_of(&self, network: &NetworkRecord) -> impl Iterator<Item = Subnet> {
        let is_it = |way: Option<&NetworkRecord>| way.is_some_and(|way| way.id == network.id);
        let v4 = is_it(self.v4).then_some(network.subnet);
        let v6 = network.subnet6.filter(|_| is_it(self.v6));
        v4.into_iter().chain(v6)
    }
}
