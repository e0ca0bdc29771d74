//! What a plan is about: the whole project, or some containers and what they need.

use std::collections::BTreeSet;

use super::Policy;
use crate::model::actual::Actual;
use crate::model::container::ContainerSpec;
use crate::model::desired::Desired;
use crate::model::id::ResourceName;
use crate::model::network::NetworkMode;

/// What a plan may touch.
pub(super) enum Scope {
    Whole,
    /// By name: containers, and networks beside theirs.
    Narrow {
        containers: BTreeSet<ResourceName>,
        networks: BTreeSet<ResourceName>,
    },
}

impl Scope {
    /// The targets with everything declared that they depend on, or whose network they share. A container whose network is
    /// lent is not of this plan, and neither is one that has its name here.
    pub fn of(desired: &Desired, policy: &Policy) -> Scope {
        if policy.targets.is_empty() && policy.networks.is_empty() {
            return Scope::Whole;
        }
        let mut held = BTreeSet::new();
        let mut open: Vec<&ResourceName> = policy.targets.iter().collect();
        while let Some(name) = open.pop() {
            if held.insert(name.clone()) {
                let needed = desired.containers.get(name).into_iter().flat_map(|container| needs(&container.spec));
                open.extend(needed.filter(|needed| desired.containers.contains_key(*needed)));
            }
        }
        Scope::Narrow { containers: held, networks: policy.networks.clone() }
    }

    pub fn is_whole(&self) -> bool {
        matches!(self, Scope::Whole)
    }

    pub fn holds(&self, container: &ResourceName) -> bool {
        match self {
            Scope::Whole => true,
            Scope::Narrow { containers, .. } => containers.contains(container),
        }
    }

    /// The declared networks that this plan is about: those of the containers in scope, as they will be and as they are,
    /// since who leaves a network leaves its names too.
    pub fn networks<'a>(&self, desired: &'a Desired, actual: &'a Actual) -> BTreeSet<&'a ResourceName> {
        match self {
            Scope::Whole => desired.networks.keys().collect(),
            Scope::Narrow { networks, .. } => {
                let named = desired.networks.keys().filter(|name| networks.contains(*name));
                let present = actual.containers.values().map(|container| &container.record);
                let present = present.filter(|r| r.project == desired.project && self.holds(&r.instance.container));
                self.specs(desired).chain(present.map(|record| &record.spec)).flat_map(attached).chain(named).collect()
            }
        }
    }

    /// Whether a network goes that is not declared any more.
    pub fn lets_go(&self, network: &ResourceName) -> bool {
        match self {
            Scope::Whole => true,
            Scope::Narrow { networks, .. } => networks.contains(network),
        }
    }

    /// The declared volumes that this plan is about.
    pub fn volumes<'a>(&self, desired: &'a Desired) -> BTreeSet<&'a ResourceName> {
        match self {
            Scope::Whole => desired.volumes.keys().collect(),
            Scope::Narrow { .. } => self.specs(desired).flat_map(ContainerSpec::volumes).collect(),
        }
    }

    fn specs<'a>(&self, desired: &'a Desired) -> impl Iterator<Item = &'a ContainerSpec> {
        desired.containers.iter().filter(|(name, _)| self.holds(name)).map(|(_, container)| &container.spec)
    }
}

/// The containers without which one of this spec cannot start.
pub(super) fn needs(spec: &ContainerSpec) -> impl Iterator<Item = &ResourceName> {
    spec.depends_on.keys().chain(shared_network(spec))
}

/// The container whose network namespace it shares.
pub(super) fn shared_network(spec: &ContainerSpec) -> Option<&ResourceName> {
    match &spec.network {
        NetworkMode::Container(name) => Some(name),
        NetworkMode::Networks(_) | NetworkMode::None | NetworkMode::Host => None,
    }
}

/// The networks that a container of this spec is on.
pub(super) fn attached(spec: &ContainerSpec) -> impl Iterator<Item = &ResourceName> {
    match &spec.network {
        NetworkMode::Networks(attachments) => Some(attachments.keys()),
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => None,
    }
    .into_iter()
    .flatten()
}

/// The declared containers, each behind those that it needs; by name where nothing else decides.
pub(super) fn in_order(desired: &Desired) -> Vec<&ResourceName> {
    fn visit<'a>(desired: &'a Desired, name: &'a ResourceName, order: &mut Vec<&'a ResourceName>, seen: &mut Seen<'a>) {
        let Some(container) = desired.containers.get(name) else { return };
        // The parser refuses cycles; here they only must not hang.
        if seen.insert(name) {
            let mut needed: Vec<&ResourceName> = needs(&container.spec).collect();
            needed.sort();
            needed.into_iter().for_each(|name| visit(desired, name, order, seen));
            order.push(name);
        }
    }
    let (mut order, mut seen) = (Vec::new(), Seen::new());
    desired.containers.keys().for_each(|name| visit(desired, name, &mut order, &mut seen));
    order
}

type Seen<'a> = BTreeSet<&'a ResourceName>;
