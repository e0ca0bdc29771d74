//! Networks: bridges, subnets, and how a container takes part in them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::id::{ContainerId, NetworkId, ResourceName, RootTag};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubnetError {
    #[error("expected a subnet such as \"10.89.7.0/24\"")]
    Form,
    #[error("the prefix of `{0}` is longer than the address")]
    Prefix(String),
    #[error("`{0}` has bits behind its prefix; the subnet is `{1}`")]
    HostBits(String, String),
}

/// An address and the length of its prefix, host bits zero: `10.89.7.0/24`, `fd00:89:7::/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of this prefix length that holds `address`. `None` when the prefix is too long.
    pub fn holding(address: IpAddr, prefix: u8) -> Option<Subnet> {
        let width = width(address);
        (u32::from(prefix) <= width).then(|| {
            let bits = to_bits(address) & mask(width, prefix);
            Subnet { address: from_bits(bits, address), prefix }
        })
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4()
            && to_bits(address) & mask(width(address), self.prefix) == to_bits(self.address)
    }

    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The `n`-th address: 0 is the network itself, 1 the gateway. `None` behind the end, and for IPv4's
    /// broadcast address.
    pub fn host(&self, n: u64) -> Option<IpAddr> {
        let free = width(self.address) - u32::from(self.prefix);
        let size: u128 = if free >= 128 { u128::MAX } else { 1u128 << free };
        let last = if self.is_ipv4() && free > 1 { size - 1 } else { size };
        (u128::from(n) < last).then(|| from_bits(to_bits(self.address) + u128::from(n), self.address))
    }

    /// The host's own address on the bridge.
    pub fn gateway(&self) -> IpAddr {
        self.host(1).unwrap_or(self.address)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(width: u32, prefix: u8) -> u128 {
    let free = width - u32::from(prefix);
    let all = if width == 128 { u128::MAX } else { (1u128 << width) - 1 };
    if free == 128 { 0 } else { all >> free << free }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;
    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix) = text.split_once('/').ok_or(SubnetError::Form)?;
        let address: IpAddr = address.parse().map_err(|_| SubnetError::Form)?;
        let prefix: u8 = prefix.parse().map_err(|_| SubnetError::Form)?;
        let subnet = Subnet::holding(address, prefix).ok_or_else(|| SubnetError::Prefix(text.to_owned()))?;
        match subnet.address == address {
            true => Ok(subnet),
            false => Err(SubnetError::HostBits(text.to_owned(), subnet.to_string())),
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;
    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(value: Subnet) -> String {
        value.to_string()
    }
}

/// The network of containers that name none.
pub const DEFAULT: &str = "default";

/// A network as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// No way out of the host and none in: no masquerade, no published ports, no default route.
    pub internal: bool,
    /// Chosen from a pool, away from the host's routes, when absent.
    pub subnet: Option<Subnet>,
    /// IPv6 is given where this is set.
    pub subnet6: Option<Subnet>,
    /// The MTU of bridge and links; the kernel's 1500 when absent.
    pub mtu: Option<u32>,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// How a container takes part in one network, as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// Further names by which the others on this network find it.
    pub aliases: std::collections::BTreeSet<String>,
    /// A fixed address; chosen and then kept when absent.
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
}

/// Where a container's network comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// A namespace of its own on these networks. A container that names none is on the project's network
    /// `default`.
    Networks(std::collections::BTreeMap<ResourceName, Attachment>),
    /// A namespace of its own with loopback only.
    None,
    /// The host's namespace.
    Host,
    /// The namespace of another container of the project.
    Container(ResourceName),
}

/// A hardware address: `02:xx:xx:xx:xx:xx`, derived from the IPv4 address, so that a container that keeps its
/// address keeps its neighbours' ARP entries too.
pub fn mac_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// `ek<tag>`: how every link of one state root begins.
pub fn link_prefix(tag: &RootTag) -> String {
    format!("ek{tag}")
}

/// `ek<tag>b<network>`: the bridge. Link names have at most 15 bytes (IFNAMSIZ, netdevice(7)).
pub fn bridge_name(tag: &RootTag, network: &NetworkId) -> String {
    format!("ek{tag}b{network}")
}

/// `ek<tag>v<8 digits>`: the host's end of the pair that joins a container to a network. The digits are
/// [`veth_number`].
pub fn veth_name(tag: &RootTag, container: &ContainerId, network: &NetworkId) -> String {
    format!("ek{tag}v{:08x}", veth_number(container, network))
}

/// A 32-bit FNV-1a of both identifiers: with 1,000 pairs two have the same in one host of 8,000, so whoever chooses an
/// identifier looks whether it is free.
pub fn veth_number(container: &ContainerId, network: &NetworkId) -> u32 {
    let bytes = container.as_str().bytes().chain(network.as_str().bytes());
    bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The table of nftables that holds all rules of one state root (family `inet`).
pub fn table_name(tag: &RootTag) -> String {
    format!("evenkeel-{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_refused_with_the_subnet_that_was_meant() {
        let error = "10.89.7.1/24".parse::<Subnet>().unwrap_err();
        assert_eq!(error, SubnetError::HostBits("10.89.7.1/24".into(), "10.89.7.0/24".into()));
        assert_eq!("10.0.0.0/33".parse::<Subnet>(), Err(SubnetError::Prefix("10.0.0.0/33".into())));
    }

    #[test]
    fn hosts_are_counted_from_the_network_and_end_before_broadcast() {
        assert_eq!(subnet("10.89.7.0/24").host(254), Some("10.89.7.254".parse().unwrap()));
        assert_eq!(subnet("10.89.7.0/24").host(255), None);
        assert_eq!(subnet("fd00::/64").gateway(), "fd00::1".parse::<IpAddr>().unwrap());
        assert_eq!(subnet("0.0.0.0/0").host(1), Some("0.0.0.1".parse().unwrap()));
        assert_eq!(subnet("::/0").host(1), Some("::1".parse().unwrap()));
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        assert!(subnet("10.0.0.0/8").overlaps(&subnet("10.89.7.0/24")));
        assert!(!subnet("10.89.6.0/24").overlaps(&subnet("10.89.7.0/24")));
        assert!(!subnet("10.0.0.0/8").overlaps(&subnet("fd00::/64")));
    }

    #[test]
    fn link_names_fit_the_kernel() {
        let (tag, network, container) =
            ("ab12".parse().unwrap(), "01234567".parse().unwrap(), "0123456789ab".parse().unwrap());
        assert_eq!(bridge_name(&tag, &network).len(), 15);
        assert_eq!(veth_name(&tag, &container, &network).len(), 15);
    }
}
