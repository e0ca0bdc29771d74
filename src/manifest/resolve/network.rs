//! Networks, and how a container takes part in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::id::ResourceName;
use crate::model::network::{Attachment, DEFAULT, NetworkMode, NetworkSpec, Subnet};

use super::declared::{self, Declared, Kind};
use super::{entries, value_of};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::manifest::shape::container::{self as shape, Container};
use crate::manifest::shape::form::NetworkWord;
use crate::manifest::shape::project::Network;

/// The network of containers that name none.
pub(super) fn default_name() -> ResourceName {
    DEFAULT.parse().expect("`default` is a name: lower-case letters only")
}

pub(super) fn relies_on_default(mode: &NetworkMode) -> bool {
    matches!(mode, NetworkMode::Networks(networks) if networks.contains_key(&default_name()))
}

/// The smallest subnet with an address for the bridge and one for a container.
const PREFIX_MAX: u8 = 30;
const PREFIX6_MAX: u8 = 126;
/// Larger ones would swallow the host's own routes.
const PREFIX_MIN: u8 = 8;
/// The smallest MTU that IPv6 works with (RFC 8200, section 5).
const MTU6_MIN: i64 = 1280;

/// A network as declared.
pub(super) fn declared(written: &Network, reading: &mut Reading<'_>) -> NetworkSpec {
    if let Some(subnet) = &written.subnet {
        check_subnet(subnet, Family::V4, reading);
    }
    if let Some(subnet) = &written.subnet6 {
        check_subnet(subnet, Family::V6, reading);
    }
    if let (Some(mtu), Some(subnet)) = (&written.mtu, &written.subnet6)
        && mtu.0 < MTU6_MIN
    {
        reading.report(
            Problem::at(&mtu.place, format!("IPv6 needs an MTU of {MTU6_MIN} or more"))
                .related(&subnet.place, "the network has IPv6"),
        );
    }
    NetworkSpec {
        internal: value_of(&written.internal).unwrap_or_default(),
        subnet: value_of(&written.subnet),
        subnet6: value_of(&written.subnet6),
        mtu: written.mtu.as_ref().map(|mtu| mtu.0 as u32),
        labels: declared::labels(&written.labels),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn check_subnet(subnet: &Placed<Subnet>, family: Family, reading: &mut Reading<'_>) {
    let problem = |why: &str| {
        Problem::at(&subnet.place, format!("`{}` cannot be the subnet of a network", subnet.value)).label(why)
    };
    let prefix = subnet.prefix();
    let problem = match (subnet.address(), family) {
        (IpAddr::V6(_), Family::V4) => problem("expected an IPv4 subnet").help("write `subnet6` for IPv6"),
        (IpAddr::V4(_), Family::V6) => problem("expected an IPv6 subnet").help("write `subnet` for IPv4"),
        (IpAddr::V4(_), _) if prefix > PREFIX_MAX => problem("it has no room for a bridge and a container"),
        (IpAddr::V6(_), _) if prefix > PREFIX6_MAX => problem("it has no room for a bridge and a container"),
        (_, _) if prefix < PREFIX_MIN => problem("it is too large"),
        (IpAddr::V4(v4), _)
            if v4.is_loopback() || v4.is_multicast() || v4.octets()[0] == 0 || v4.octets()[0] >= 240 =>
        {
            problem("the addresses are reserved").help("use a private subnet such as 10.89.7.0/24 (RFC 1918)")
        }
        (IpAddr::V6(v6), _) if v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local() => {
            problem("the addresses are reserved").help("use a private subnet such as fd00:89:7::/64 (RFC 4193)")
        }
        _ => return,
    };
    reading.report(problem);
}

/// Where a container's network comes from.
pub(super) fn of_container(
    name: &Placed<ResourceName>,
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> NetworkMode {
    if let (Some(mode), Some(networks)) = (&written.network_mode, &written.networks) {
        reading.report(
            Problem::at(&mode.place, format!("`{}` has both a network mode and networks", name.value))
                .label("`network_mode` excludes `networks`")
                .related(&networks.place, "the networks"),
        );
    }
    match written.network_mode.as_ref().map(|mode| &mode.value) {
        Some(NetworkWord::None) => NetworkMode::None,
        Some(NetworkWord::Host) => NetworkMode::Host,
        Some(NetworkWord::Container(target)) => NetworkMode::Container(target.clone()),
        None => NetworkMode::Networks(attachments(written, declared, reading)),
    }
}

fn attachments(
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> BTreeMap<ResourceName, Attachment> {
    let mut attachments = BTreeMap::new();
    if let Some(empty) = written.networks.as_ref().filter(|networks| networks.0.0.is_empty()) {
        let problem = Problem::at(&empty.place, "a list of networks without a network");
        reading.report(problem.help("write `network_mode = \"none\"` for a container without a network"));
    }
    for (network, attachment) in written.networks.iter().flat_map(|networks| networks.0.whole()) {
        if network.value != default_name() {
            declared.check_name(network, Kind::Network, reading);
        }
        attachments.insert(network.value.clone(), self::attachment(attachment));
    }
    if written.networks.is_none() && !written.unread.contains(&"networks") {
        attachments.insert(default_name(), Attachment::default());
    }
    attachments
}

fn attachment(written: &shape::Attachment) -> Attachment {
    Attachment {
        aliases: written.aliases.iter().flat_map(|list| &list.value).map(|alias| alias.0.clone()).collect(),
        address: value_of(&written.address),
        address6: value_of(&written.address6),
    }
}

/// Ports that could never be reached.
pub(super) fn check_ports(
    name: &Placed<ResourceName>,
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) {
    let Some(ports) = written.ports.as_ref().filter(|ports| !ports.0.is_empty()) else { return };
    if let Some(mode) = &written.network_mode {
        let help = match &mode.value {
            NetworkWord::None => "the container has no network that a port could lead to".to_owned(),
            NetworkWord::Host => "the container listens on the host's own ports".to_owned(),
            NetworkWord::Container(target) => format!("write the ports at `{target}`, whose network it is"),
        };
        reading.report(
            Problem::at(&ports.place, format!("`{}` has no network of its own to publish ports of", name.value))
                .related(&mode.place, "the network comes from here")
                .help(help),
        );
        return;
    }
    let networks: Vec<&Placed<ResourceName>> =
        written.networks.iter().flat_map(|networks| networks.0.0.iter().map(|(network, _)| network)).collect();
    let is_internal = |network: &&Placed<ResourceName>| matches!(declared.networks.get(&network.value), Some(Some(spec)) if spec.internal);
    if let ([first, ..], true) = (networks.as_slice(), networks.iter().all(is_internal)) {
        reading.report(
            Problem::at(&ports.place, format!("`{}` is on internal networks only: its ports lead nowhere", name.value))
                .related(&first.place, "an internal network")
                .help("put it on a network that is not internal as well"),
        );
    }
}

/// The containers' fixed addresses, for checks across containers.
pub(super) fn fixed_addresses(written: &Container) -> Vec<(&Placed<ResourceName>, Placed<IpAddr>)> {
    let mut addresses = Vec::new();
    for (network, attachment) in written.networks.iter().flat_map(|networks| networks.0.whole()) {
        if let Some(address) = &attachment.address {
            addresses.push((network, Placed { value: IpAddr::V4(address.value), place: address.place.clone() }));
        }
        if let Some(address) = &attachment.address6 {
            addresses.push((network, Placed { value: IpAddr::V6(address.value), place: address.place.clone() }));
        }
    }
    addresses
}

/// The declared networks with their subnets.
pub(super) fn subnets(networks: &Network) -> impl Iterator<Item = &Placed<Subnet>> {
    [&networks.subnet, &networks.subnet6].into_iter().flatten()
}

/// The declared network of this name.
pub(super) fn find<'m>(manifest: &'m crate::manifest::Manifest, name: &ResourceName) -> Option<&'m Network> {
    entries(&manifest.networks).find(|(known, _)| known.value == *name).map(|(_, network)| network)
}
