//! Which subnet a network gets, and which address a container, where the manifest leaves it open.
//!
//! Pure choices for the planner. What is taken is an argument; the lowest free one is the answer, so the same
//! world gives the same plan. Keeping what an object already has is the caller's business: it asks only for what
//! is new.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::Subnet;

/// A range of addresses that is handed out in subnets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    pub range: Subnet,
    /// The prefix length of each subnet; not shorter than that of `range`.
    pub prefix: u8,
}

impl Pool {
    /// The pools of Evenkeel, in the order in which they are used up: 10.89.0.0/16, then 172.16.0.0/12, each in
    /// /24s (RFC 1918). The first is rarely routed in offices and clouds and has room for 256 networks.
    pub fn defaults() -> [Pool; 2] {
        [(Ipv4Addr::new(10, 89, 0, 0), 16), (Ipv4Addr::new(172, 16, 0, 0), 12)].map(|(address, prefix)| Pool {
            range: Subnet::holding(address.into(), prefix).expect("the prefix is at most 32"),
            prefix: 24,
        })
    }

    fn subnets(self) -> impl Iterator<Item = Subnet> {
        let (width, base) = match self.range.address() {
            IpAddr::V4(v4) => (32, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (128, v6.to_bits()),
        };
        let step = u32::from(width - self.prefix.min(width));
        let count = 1u128.checked_shl(u32::from(self.prefix.saturating_sub(self.range.prefix()))).unwrap_or(u128::MAX);
        (0..count).filter_map(move |n| {
            let bits = base.checked_add(n.checked_shl(step)?)?;
            let address = match self.range.is_ipv4() {
                true => Ipv4Addr::from_bits(u32::try_from(bits).ok()?).into(),
                false => Ipv6Addr::from_bits(bits).into(),
            };
            Subnet::holding(address, self.prefix)
        })
    }
}

/// The first subnet of `pools` that overlaps none of `used`: the host's routes and every network that there is or
/// will be.
pub fn choose(pools: &[Pool], used: impl IntoIterator<Item = Subnet>) -> Option<Subnet> {
    // A default route covers everything and says nothing about what is in use.
    let used: Vec<Subnet> = used.into_iter().filter(|subnet| subnet.prefix() > 0).collect();
    pools.iter().flat_map(|pool| pool.subnets()).find(|subnet| !used.iter().any(|other| other.overlaps(subnet)))
}

/// The lowest address of `subnet` behind the gateway that is not in `used`. `None` when the subnet is full or not
/// of IPv4.
pub fn choose_address(subnet: Subnet, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    hosts(subnet).find_map(|address| match address {
        IpAddr::V4(v4) if !used.contains(&v4) => Some(v4),
        _ => None,
    })
}

/// The same for a subnet of IPv6.
pub fn choose_address6(subnet: Subnet, used: &BTreeSet<Ipv6Addr>) -> Option<Ipv6Addr> {
    hosts(subnet).find_map(|address| match address {
        IpAddr::V6(v6) if !used.contains(&v6) => Some(v6),
        _ => None,
    })
}

/// Every address behind the gateway. A bridge has at most 1024 ports (BR_MAX_PORTS of the kernel), so looking
/// further than 65536 addresses would find nothing that could be used.
fn hosts(subnet: Subnet) -> impl Iterator<Item = IpAddr> {
    (2..65_536).map_while(move |n| subnet.host(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(text: &str) -> Vec<Subnet> {
        text.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    fn chosen(used: &str) -> Option<String> {
        choose(&Pool::defaults(), subnets(used)).map(|subnet| subnet.to_string())
    }

    #[test]
    fn the_lowest_free_subnet_is_chosen() {
        assert_eq!(chosen("").as_deref(), Some("10.89.0.0/24"));
        assert_eq!(chosen("10.89.0.0/24 10.89.2.0/24").as_deref(), Some("10.89.1.0/24"));
    }

    #[test]
    fn routes_of_the_host_are_avoided_and_its_default_route_is_not() {
        assert_eq!(chosen("0.0.0.0/0 10.89.0.0/20 192.168.0.0/16").as_deref(), Some("10.89.16.0/24"));
        assert_eq!(chosen("10.89.0.128/25").as_deref(), Some("10.89.1.0/24"));
    }

    #[test]
    fn a_host_that_routes_all_of_ten_gets_the_second_pool() {
        assert_eq!(chosen("10.0.0.0/8 172.16.0.0/16").as_deref(), Some("172.17.0.0/24"));
        assert_eq!(chosen("10.0.0.0/8 172.16.0.0/12"), None);
    }

    #[test]
    fn addresses_begin_behind_the_gateway_and_end_before_broadcast() {
        let subnet = subnets("10.89.7.0/30")[0];
        assert_eq!(choose_address(subnet, &BTreeSet::new()), Some(Ipv4Addr::new(10, 89, 7, 2)));
        assert_eq!(choose_address(subnet, &BTreeSet::from([Ipv4Addr::new(10, 89, 7, 2)])), None);
        let subnet = subnets("fd00:89::/64")[0];
        assert_eq!(choose_address6(subnet, &BTreeSet::new()), Some("fd00:89::2".parse().unwrap()));
        assert_eq!(choose_address(subnet, &BTreeSet::new()), None);
    }
}
