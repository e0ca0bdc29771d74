//! Names of the links that join containers to networks: no two containers get the same.
//!
//! A name follows from two identifiers by a short hash ([`veth_number`]). Two containers with one name would take the pair
//! from each other at every repair.

use std::collections::BTreeSet;

use super::World;
use crate::model::id::{ContainerId, NetworkId};
use crate::model::network::veth_number;

/// The names that are taken.
pub(super) struct Pairs(BTreeSet<u32>);

impl Pairs {
    pub fn of(world: &World<'_>) -> Pairs {
        let records = world.actual.containers.values().map(|container| &container.record);
        let numbers =
            records.flat_map(|record| record.addresses.keys().map(|network| veth_number(&record.id, network)));
        Pairs(numbers.collect())
    }

    /// Takes the names of a new container, unless one of them is somebody's.
    pub fn take<'n>(&mut self, id: &ContainerId, networks: impl IntoIterator<Item = &'n NetworkId>) -> bool {
        let numbers: BTreeSet<u32> = networks.into_iter().map(|network| veth_number(id, network)).collect();
        let is_free = numbers.is_disjoint(&self.0);
        if is_free {
            self.0.extend(numbers);
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::id::Ids;

    #[test]
    fn a_container_whose_link_has_the_name_of_another_ones_is_not_made() {
        let network: NetworkId = "01234567".parse().unwrap();
        let mut ids = Ids::from_seed(1);
        let mut seen: BTreeMap<u32, ContainerId> = BTreeMap::new();
        // As many as there are people for one birthday, of 2^32 days.
        let (first, second) = loop {
            let id = ids.container();
            if let Some(other) = seen.insert(veth_number(&id, &network), id.clone()) {
                break (other, id);
            }
        };
        let mut pairs = Pairs(BTreeSet::new());
        assert!(pairs.take(&first, [&network]));
        assert!(!pairs.take(&second, [&network]));
        assert!(pairs.take(&second, []), "on no network it needs none");
        assert!(pairs.take(&ids.container(), [&network]));
    }
}
