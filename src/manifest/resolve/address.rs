//! Subnets and fixed addresses.

use std::net::IpAddr;

use crate::model::container::UpdateOrder;
use crate::model::id::ResourceName;
use crate::model::network::Subnet;

use super::container::replicas_of;
use super::{entries, network, value_of};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::manifest::shape::container::Container;
use crate::manifest::shape::project::Manifest;

pub(super) fn check(manifest: &Manifest, reading: &mut Reading<'_>) {
    check_overlaps(manifest, reading);
    let mut seen: Vec<(&ResourceName, Placed<IpAddr>)> = Vec::new();
    for (name, container) in entries(&manifest.containers) {
        for (on, address) in network::fixed_addresses(container) {
            check_sharing(name, container, &address, reading);
            check_subnet(manifest, on, &address, reading);
            let taken = seen.iter().find(|(network, other)| **network == on.value && other.value == address.value);
            if let Some((_, other)) = taken {
                reading.report(
                    Problem::at(&address.place, format!("two containers have the address {}", address.value))
                        .related(&other.place, "the first one"),
                );
            }
            seen.push((&on.value, address));
        }
    }
}

fn check_overlaps(manifest: &Manifest, reading: &mut Reading<'_>) {
    let mut seen: Vec<(&ResourceName, &Placed<Subnet>)> = Vec::new();
    for (name, written) in entries(&manifest.networks) {
        for subnet in network::subnets(written) {
            if let Some((other_name, other)) = seen.iter().find(|(_, other)| other.overlaps(&subnet.value)) {
                reading.report(
                    Problem::at(&subnet.place, format!("the networks `{other_name}` and `{}` overlap", name.value))
                        .related(&other.place, "the other subnet"),
                );
            }
            seen.push((&name.value, subnet));
        }
    }
}

/// An address belongs to one container at a time.
fn check_sharing(
    name: &Placed<ResourceName>,
    container: &Container,
    address: &Placed<IpAddr>,
    reading: &mut Reading<'_>,
) {
    let order = container.update.as_ref().and_then(|update| update.order.as_ref());
    if let Some(replicas) = container.replicas.as_ref().filter(|_| replicas_of(container) > 1) {
        reading.report(
            Problem::at(&address.place, format!("the replicas of `{}` cannot share an address", name.value))
                .related(&replicas.place, "several replicas"),
        );
    }
    if let Some(order) = order.filter(|order| order.value == UpdateOrder::StartFirst) {
        reading.report(
            Problem::at(&address.place, format!("`{}` and its successor cannot share an address", name.value))
                .related(&order.place, "both run at once"),
        );
    }
}

fn check_subnet(manifest: &Manifest, on: &Placed<ResourceName>, address: &Placed<IpAddr>, reading: &mut Reading<'_>) {
    let Some(written) = network::find(manifest, &on.value) else {
        if on.value == network::default_name() {
            reading.report(no_subnet(on, address));
        }
        return;
    };
    let key = if address.is_ipv4() { "subnet" } else { "subnet6" };
    let subnet = match address.is_ipv4() {
        true => &written.subnet,
        false => &written.subnet6,
    };
    let Some(placed) = subnet else {
        if !written.unread.contains(&key) {
            reading.report(no_subnet(on, address));
        }
        return;
    };
    let subnet = value_of(subnet).unwrap_or(placed.value);
    let why = if !subnet.contains(address.value) {
        format!("outside the subnet of `{}`", on.value)
    } else if address.value == subnet.address() {
        "the subnet's own address".to_owned()
    } else if address.value == subnet.gateway() {
        "the bridge has this address".to_owned()
    } else if is_broadcast(&subnet, address.value) {
        "the subnet's broadcast address".to_owned()
    } else {
        return;
    };
    reading.report(
        Problem::at(&address.place, format!("a container on `{}` cannot have the address {}", on.value, address.value))
            .label(why)
            .related(&placed.place, "the subnet"),
    );
}

fn no_subnet(on: &Placed<ResourceName>, address: &Placed<IpAddr>) -> Problem {
    let key = if address.is_ipv4() { "subnet" } else { "subnet6" };
    Problem::at(&address.place, "a fixed address needs a network with a declared subnet")
        .label(format!("the network `{}` has no `{key}`", on.value))
        .help(format!("add `{key}` to `[networks.{}]`", on.value))
}

fn is_broadcast(subnet: &Subnet, address: IpAddr) -> bool {
    match (subnet.address(), address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => {
            let free = 32 - u32::from(subnet.prefix());
            let last = u64::from(first.to_bits()) + (1u64 << free) - 1;
            u64::from(address.to_bits()) == last
        }
        _ => false,
    }
}
