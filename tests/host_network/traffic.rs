//! What packets get through, and what they look like on the other side.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use evenkeel::engine::network::host;
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_ipv6_multicast_hops;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::world::{Kind, Server, ask, eventually, ip, knock, nft, on_a_host};

#[test]
fn containers_reach_the_outside_with_the_address_of_the_host() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        world.set_firewall();
        let _server = world.outside(|| Server::start("[::]:80", "outside"));
        assert_eq!(world.inside(a, || ask("192.0.2.2:80")).as_deref(), Some("outside 192.0.2.1"));
        assert_eq!(world.inside(a, || ask("[2001:db8::2]:80")).as_deref(), Some("outside 2001:db8::1"));
    });
}

#[test]
fn ports_that_are_not_published_are_not_reached_from_outside() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let _server = world.serve(a, "[::]:80", "a");
        let outside = |at: &'static str| world.outside(|| ask(at));
        assert_eq!(outside("10.89.1.2:80").as_deref(), Some("a 192.0.2.2"), "the way is there without the firewall");
        assert_eq!(outside("[fd00:89:1::2]:80").as_deref(), Some("a 2001:db8::2"));
        world.set_firewall();
        for at in ["10.89.1.2:80", "[fd00:89:1::2]:80"] {
            assert_eq!(world.outside(|| knock(at)), None, "{at}");
        }
        assert_eq!(ask("10.89.1.2:80").as_deref(), Some("a 10.89.1.1"), "the host itself may");
    });
}

#[test]
fn a_port_on_every_address_is_reached_from_everywhere() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        world.network(2, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[2]));
        let c = world.container(4, &[1]);
        world.publish(a, "*:8080", 80);
        world.set_firewall();
        let _server = world.serve(a, "[::]:80", "a");
        assert_eq!(world.outside(|| ask("192.0.2.1:8080")).as_deref(), Some("a 192.0.2.2"));
        assert_eq!(world.outside(|| ask("[2001:db8::1]:8080")).as_deref(), Some("a 2001:db8::2"));
        assert_eq!(ask("127.0.0.1:8080").as_deref(), Some("a 10.89.1.1"));
        assert_eq!(ask("192.0.2.1:8080").as_deref(), Some("a 192.0.2.1"));
        assert_eq!(ask("[2001:db8::1]:8080").as_deref(), Some("a 2001:db8::1"));
        assert_eq!(knock("[::1]:8080"), None, "IPv6 has no route_localnet");
        for (from, name) in [(b, "another network"), (c, "the same network"), (a, "itself")] {
            for at in ["192.0.2.1:8080", "10.89.1.1:8080", "[2001:db8::1]:8080", "[fd00:89:1::1]:8080"] {
                assert!(world.inside(from, || ask(at)).is_some_and(|said| said.starts_with("a ")), "{name}, {at}");
            }
        }
    });
}

#[test]
fn a_port_on_loopback_is_reached_by_the_host_alone() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1]));
        world.publish(a, "127.0.0.1:8080", 80);
        world.set_firewall();
        let _server = world.serve(a, "[::]:80", "a");
        assert_eq!(ask("127.0.0.1:8080").as_deref(), Some("a 10.89.1.1"));
        assert_eq!(knock("192.0.2.1:8080"), None);
        assert_eq!(world.outside(|| knock("192.0.2.1:8080")), None);
        assert_eq!(world.inside(b, || knock("10.89.1.1:8080")), None);
        // Whoever opens the host's loopback to everybody does not open what we published there.
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        world.outside(|| send_loopback_to("192.0.2.1", "out0"));
        assert_eq!(world.outside(|| knock("127.0.0.1:8080")), None);
    });
}

/// CVE-2020-8558: `route_localnet` lets neighbours reach what the host keeps for itself.
#[test]
fn services_on_the_loopback_of_the_host_are_not_reached_from_containers() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let _private = Server::start("127.0.0.1:99", "private");
        world.inside(a, || send_loopback_to("10.89.1.1", "eth0"));
        assert_eq!(world.inside(a, || ask("127.0.0.1:99")).as_deref(), Some("private 10.89.1.2"));
        world.set_firewall();
        assert_eq!(world.inside(a, || knock("127.0.0.1:99")), None);
    });
}

/// CVE-2020-13401: a bridge has IPv6 also where its network has none, and a host that listens to what a container says of
/// routers would send its packets there.
#[test]
fn no_container_is_a_router_to_the_host() {
    on_a_host(|mut world| {
        // As on a host that follows a router although it forwards: new links have it from here.
        std::fs::write("/proc/sys/net/ipv6/conf/default/accept_ra", "2").unwrap();
        world.declare(1, Kind::Open);
        world.networks[0].subnet6 = None;
        world.repair_bridges();
        let a = world.declare_container(2, &[1]);
        world.containers[a].addresses.values_mut().for_each(|addresses| addresses.v6 = None);
        world.connect(a);
        world.inside(a, || advertise("eth0", "fd00:bad:1::"));
        std::fs::write("/proc/sys/net/ipv6/conf/ek7e57b00000001/accept_ra", "2").unwrap();
        let host_has = |prefix: &str| ip("-6 addr show dev ek7e57b00000001").contains(prefix);
        eventually("a host that listens does as it is told", || {
            world.inside(a, || advertise("eth0", "fd00:bad:2::"));
            host_has("fd00:bad:2:")
        });
        assert!(!host_has("fd00:bad:1:"));
        assert_eq!(world.drift(), ["sysctl net.ipv6.conf.ek7e57b00000001.accept_ra: 2"]);
    });
}

/// Sends a router advertisement (RFC 4861, section 4.2) that gives this prefix to everybody on a link.
fn advertise(link: &str, prefix: &str) {
    let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    // Who hears one that came by a router does not believe it.
    set_ipv6_multicast_hops(&socket, 255).unwrap();
    let mut packet = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Prefix information: 64 bits, on this link and for addresses, for ten minutes.
    packet.extend([3, 4, 64, 0xc0, 0, 0, 2, 88, 0, 0, 2, 88, 0, 0, 0, 0]);
    packet.extend(prefix.parse::<Ipv6Addr>().unwrap().octets());
    let everybody = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, name_to_index(&socket, link).unwrap());
    sendto(&socket, &packet, SendFlags::empty(), &everybody).unwrap();
}

/// Sends what the calling thread's namespace has for 127.0.0.0/8 to a neighbour.
fn send_loopback_to(neighbour: &str, link: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1").unwrap();
    ip("addr del 127.0.0.1/8 dev lo");
    ip(&format!("route add 127.0.0.0/8 via {neighbour} dev {link}"));
}

#[test]
fn networks_do_not_reach_each_other() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        world.network(2, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[2]));
        let _server = world.serve(b, "[::]:80", "b");
        assert!(world.inside(a, || ask("10.89.2.3:80")).is_some(), "the way is there without the firewall");
        world.set_firewall();
        assert_eq!(world.inside(a, || knock("10.89.2.3:80")), None);
        assert_eq!(world.inside(a, || knock("[fd00:89:2::3]:80")), None);
    });
}

#[test]
fn an_internal_network_reaches_itself_and_nothing_else() {
    on_a_host(|mut world| {
        world.network(1, Kind::Internal);
        world.network(2, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1]));
        let c = world.container(4, &[2]);
        world.publish(c, "*:8080", 80);
        world.set_firewall();
        let _servers =
            [world.serve(b, "[::]:80", "b"), world.serve(c, "[::]:80", "c"), Server::start("[::]:70", "host")];
        let _outside = world.outside(|| Server::start("[::]:80", "outside"));
        assert_eq!(world.inside(a, || ask("10.89.1.3:80")).as_deref(), Some("b 10.89.1.2"));
        assert_eq!(world.inside(a, || ask("[fd00:89:1::3]:80")).as_deref(), Some("b fd00:89:1::2"));
        world.inside(a, || {
            // Even one that makes itself a way out.
            ip("route add default via 10.89.1.1");
            ip("-6 route add default via fd00:89:1::1");
        });
        for at in
            ["192.0.2.2:80", "[2001:db8::2]:80", "10.89.2.4:80", "10.89.1.1:70", "[fd00:89:1::1]:70", "192.0.2.1:8080"]
        {
            assert_eq!(world.inside(a, || knock(at)), None, "{at}");
        }
        assert_eq!(world.inside(c, || knock("10.89.1.3:80")), None);
        assert_eq!(ask("10.89.1.3:80").as_deref(), Some("b 10.89.1.1"), "the host itself may");
        world.inside(a, || ip_ping("10.89.1.1"));
    });
}

fn ip_ping(address: &str) {
    // The neighbour's hardware address is enough of an answer, and needs no ping program.
    knock(&format!("{address}:9"));
    assert!(ip(&format!("neigh show {address}")).contains("lladdr"), "{}", ip("neigh"));
}

#[test]
fn several_targets_of_a_port_share_its_connections() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let numbers = [world.container(2, &[1]), world.container(3, &[1]), world.container(4, &[1])];
        for number in numbers {
            world.publish(number, "*:8080", 80);
        }
        world.set_firewall();
        let _servers = [
            world.serve(numbers[0], "[::]:80", "a"),
            world.serve(numbers[1], "[::]:80", "b"),
            world.serve(numbers[2], "[::]:80", "c"),
        ];
        for at in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            let said: BTreeSet<_> =
                (0..60).map(|_| world.outside(|| ask(at)).unwrap().split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(said.len(), 3, "{at}: {said:?}");
        }
    });
}

#[test]
fn udp_ports_are_published_too() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        world.publish(a, "*:53/udp", 5353);
        world.set_firewall();
        let socket = world.inside(a, || UdpSocket::bind("0.0.0.0:5353").unwrap());
        let asker = world.outside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        for socket in [&socket, &asker] {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        asker.send_to(b"who", "192.0.2.1:53").unwrap();
        let mut buffer = [0; 8];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip().to_string().as_str()), (&b"who"[..], "192.0.2.2"));
        socket.send_to(b"me", from).unwrap();
        let (length, from) = asker.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"me"[..], "192.0.2.1:53"));
    });
}

/// The kernel remembers where a conversation goes for as long as the client does not pause.
#[test]
fn a_udp_client_that_does_not_pause_follows_its_port_to_another_container() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1]));
        let socket = |world: &crate::world::World, number| {
            let socket = world.inside(number, || UdpSocket::bind("0.0.0.0:5353").unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let (at_a, at_b) = (socket(&world, a), socket(&world, b));
        let client = world.outside(|| UdpSocket::bind("0.0.0.0:4000").unwrap());
        let send = || assert_eq!(client.send_to(b"hello", "192.0.2.1:53").unwrap(), 5);
        let mut buffer = [0; 8];
        // Nothing is published yet, and the firewall knows of the conversation by its other rules.
        world.publish(a, "*:54", 5353);
        world.set_firewall();
        send();
        world.publish(a, "*:53/udp", 5353);
        world.set_firewall();
        send();
        at_a.recv(&mut buffer).unwrap();
        world.containers[a].spec.ports.clear();
        world.publish(b, "*:53/udp", 5353);
        world.set_firewall();
        send();
        at_b.recv(&mut buffer).unwrap();
    });
}

#[test]
fn other_tables_keep_their_say() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        world.publish(a, "*:8080", 80);
        world.set_firewall();
        let _server = world.serve(a, "[::]:80", "a");
        assert!(world.outside(|| ask("192.0.2.1:8080")).is_some());
        nft("add table inet other");
        nft("add chain inet other input { type filter hook input priority 10; policy accept; }");
        assert!(host::forward_drops().unwrap().is_empty());
        nft("add chain inet other forward { type filter hook forward priority 10; policy drop; }");
        assert_eq!(host::forward_drops().unwrap().into_iter().collect::<Vec<_>>(), ["inet other forward"]);
        assert_eq!(world.outside(|| knock("192.0.2.1:8080")), None);
    });
}
