//! Bridges, attachments and namespaces: made, kept, repaired, removed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::world::{Kind, World, ask, ip, on_a_host};
use evenkeel::engine::network::observe::Outside;
use evenkeel::engine::network::{host, netns};
use evenkeel::model::network::bridge_name;

#[test]
fn two_containers_of_one_network_reach_each_other_in_both_families() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1]));
        let _server = world.serve(b, "[::]:80", "b");
        assert_eq!(world.inside(a, || ask("10.89.1.3:80")).as_deref(), Some("b 10.89.1.2"));
        assert_eq!(world.inside(a, || ask("[fd00:89:1::3]:80")).as_deref(), Some("b fd00:89:1::2"));
        assert_eq!(world.drift(), Vec::<String>::new());
    });
}

#[test]
fn ensuring_again_changes_nothing() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        // Names and flags only: states and timers change by themselves.
        let all = || ip("-o addr show scope global") + &ip("route") + &ip("-6 route show default");
        let state = |world: &World| (all(), ip("-br -o link show master ek7e57b00000001"), world.inside(a, all));
        let before = state(&world);
        let (tag, record) = (world.tag.clone(), world.networks[0].clone());
        world.links.ensure_bridge(&tag, &record).unwrap();
        netns::ensure(&world.namespace(a)).unwrap();
        world.connect(a);
        assert_eq!(state(&world), before);
    });
}

/// What somebody does, and what is then seen.
const HARM: &[(&str, &[&str])] = &[
    (
        "host: link del ek7e57b00000001",
        &[
            "bridge ek7e57b00000001: missing",
            "link ek7e57vd3f2d7dc: on no bridge",
            "hairpin mode of ek7e57vd3f2d7dc: off",
        ],
    ),
    ("host: addr del 10.89.1.1/24 dev ek7e57b00000001", &["address 10.89.1.1/24 of ek7e57b00000001: missing"]),
    ("host: addr del fd00:89:1::1/64 dev ek7e57b00000001", &["address fd00:89:1::1/64 of ek7e57b00000001: missing"]),
    (
        "host: link set ek7e57b00000001 down",
        &["bridge ek7e57b00000001: down", "address fd00:89:1::1/64 of ek7e57b00000001: missing"],
    ),
    ("host: link set ek7e57b00000001 mtu 1400", &["mtu of ek7e57b00000001: 1400"]),
    ("host: link del ek7e57vd3f2d7dc", &["link eth0 (ek7e57vd3f2d7dc): missing"]),
    (
        "host: link set ek7e57vd3f2d7dc nomaster",
        &["link ek7e57vd3f2d7dc: on no bridge", "hairpin mode of ek7e57vd3f2d7dc: off"],
    ),
    ("host: link set ek7e57vd3f2d7dc down", &["link ek7e57vd3f2d7dc: down"]),
    ("host: link set ek7e57vd3f2d7dc mtu 1400", &["mtu of ek7e57vd3f2d7dc: 1400"]),
    (
        "inside: addr del 10.89.1.2/24 dev eth0",
        &["address 10.89.1.2/24 of eth0: missing", "default route by 10.89.1.1 of eth0: missing"],
    ),
    ("inside: addr del fd00:89:1::2/64 dev eth0", &["address fd00:89:1::2/64 of eth0: missing"]),
    ("inside: route del default", &["default route by 10.89.1.1 of eth0: missing"]),
    ("inside: -6 route del default", &["default route by fd00:89:1::1 of eth0: missing"]),
    ("inside: link set eth0 address 02:00:00:00:00:01", &["mac address of eth0: 02:00:00:00:00:01"]),
    // Before Linux 6.2 only a link that is down takes another name.
    (
        "inside: link set eth0 down; link set eth0 name other; link set other up",
        &["link eth0 (ek7e57vd3f2d7dc): missing inside"],
    ),
    ("inside: link set lo down", &["link lo: down"]),
];

#[test]
fn whatever_somebody_breaks_is_seen_named_and_put_back() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1]));
        let _server = world.serve(a, "[::]:80", "a");
        let process = std::fs::read_link("/proc/self/ns/net").unwrap();
        for (harm, seen) in HARM {
            let (place, commands) = harm.split_once(": ").unwrap();
            for command in commands.split("; ") {
                match place {
                    "host" => ip(command),
                    _ => world.inside(a, || ip(command)),
                };
            }
            let drift: Vec<String> =
                world.drift().into_iter().filter(|drift| !drift.contains("ek7e57v8c16a74f")).collect();
            assert_eq!(drift, *seen, "{harm}");
            world.repair();
            assert_eq!(world.drift(), Vec::<String>::new(), "{harm}");
            assert_eq!(world.inside(b, || ask("10.89.1.2:80")).as_deref(), Some("a 10.89.1.3"), "{harm}");
            assert_eq!(world.inside(b, || ask("[fd00:89:1::2]:80")).as_deref(), Some("a fd00:89:1::3"), "{harm}");
        }
        assert_eq!(std::fs::read_link("/proc/self/ns/net").unwrap(), process);
    });
}

#[test]
fn of_a_container_without_version_6_what_it_has_is_looked_at() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.declare_container(2, &[]);
        world.join_in(a, 1, 2, None);
        world.connect(a);
        assert_eq!(world.drift(), Vec::<String>::new());
        for command in ["link set lo down", "route del default"] {
            world.inside(a, || ip(command));
        }
        assert_eq!(world.drift(), ["link lo: down", "default route by 10.89.1.1 of eth0: missing"]);
        world.repair();
        assert_eq!(world.drift(), Vec::<String>::new());
        // As soon as it is to have one, that is looked at too.
        world.join(a, 1, 2);
        assert_eq!(world.drift().first().map(String::as_str), Some("address fd00:89:1::2/64 of eth0: missing"));
        world.repair();
        assert_eq!(world.drift(), Vec::<String>::new());
    });
}

#[test]
fn settings_of_the_host_that_packets_need_are_seen_and_put_back() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/ek7e57b00000001/route_localnet"] {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, "0").unwrap();
            assert!(world.drift().iter().any(|drift| *drift == format!("sysctl net.{}: 0", key.replace('/', "."))));
            world.repair();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
            assert_eq!(world.drift(), Vec::<String>::new());
        }
        // A router that others follow keeps following its own: see accept_ra in ip-sysctl.rst.
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/up0/accept_ra").unwrap(), "2\n");
    });
}

#[test]
fn whoever_a_container_runs_as_may_ping_and_bind_low_ports() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let read = |key: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{key}")).unwrap();
        world.inside(a, || {
            assert_eq!(read("ip_unprivileged_port_start"), "0\n");
            assert_eq!(read("ping_group_range"), "0\t2147483647\n");
        });
        assert_ne!(read("ip_unprivileged_port_start"), "0\n", "the host's own stay as they are");
    });
}

#[test]
fn a_connection_outlives_repairs_of_what_it_does_not_need() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let listener = world.inside(a, || TcpListener::bind("10.89.1.2:80").unwrap());
        let mut here = TcpStream::connect("10.89.1.2:80").unwrap();
        let (mut there, _) = listener.accept().unwrap();
        world.inside(a, || ip("addr del 10.89.1.2/24 dev eth0"));
        world.repair();
        here.write_all(b"still here").unwrap();
        let mut buffer = [0; 10];
        there.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        there.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"still here");
    });
}

#[test]
fn a_foreign_link_of_our_name_is_an_error_that_names_it() {
    on_a_host(|mut world| {
        ip("link add ek7e57b00000001 type veth peer name other");
        let record = world.declare(1, Kind::Open);
        let error = world.links.ensure_bridge(&world.tag, &record).unwrap_err();
        assert_eq!(error.to_string(), "`ek7e57b00000001` is a link of kind `veth` that Evenkeel did not make");
    });
}

#[test]
fn an_attachment_without_its_bridge_is_an_error_that_names_both() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        ip("link del ek7e57b00000001");
        let attachment = &world.attachments(a)[0];
        let error = world.links.ensure_attachment(attachment, &world.namespace(a)).unwrap_err();
        let expected = "cannot attach `ek7e57vd3f2d7dc`: its bridge `ek7e57b00000001` is not there";
        assert_eq!(error.to_string(), expected);
    });
}

#[test]
fn a_network_that_comes_or_goes_moves_the_interfaces_behind_it() {
    on_a_host(|mut world| {
        for n in [1, 2, 3] {
            world.network(n, Kind::Open);
        }
        let a = world.container(2, &[1, 3]);
        let interfaces = |world: &World| world.inside(a, || ip("-o -4 addr show scope global"));
        let on = |text: &str, link: &str, address: &str| text.lines().any(|l| l.contains(link) && l.contains(address));
        assert!(on(&interfaces(&world), "eth1", "10.89.3.2/24"));
        world.join(a, 2, 2);
        world.repair();
        let found = interfaces(&world);
        assert!(on(&found, "eth1", "10.89.2.2/24") && on(&found, "eth2", "10.89.3.2/24"), "{found}");
        let left = world.attachments(a).remove(0);
        world.links.remove(&left.link).unwrap();
        world.leave(a, 1);
        world.repair();
        let found = interfaces(&world);
        assert!(on(&found, "eth0", "10.89.2.2/24") && on(&found, "eth1", "10.89.3.2/24"), "{found}");
        assert_eq!(world.drift(), Vec::<String>::new());
    });
}

#[test]
fn the_default_route_leads_through_the_first_network_that_is_not_internal() {
    on_a_host(|mut world| {
        world.network(1, Kind::Internal);
        world.network(2, Kind::Open);
        world.network(3, Kind::Open);
        let a = world.container(2, &[1, 2, 3]);
        let routes = world.inside(a, || ip("route show default") + &ip("-6 route show default"));
        assert_eq!(routes.lines().count(), 2, "{routes}");
        assert!(routes.contains("via 10.89.2.1 dev eth1") && routes.contains("via fd00:89:2::1 dev eth1"), "{routes}");
    });
}

#[test]
fn what_is_removed_is_gone_and_removing_it_again_is_fine() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let attachment = world.attachments(a).remove(0);
        for _ in 0..2 {
            world.links.remove(&attachment.link).unwrap();
            netns::remove(&world.namespace(a)).unwrap();
            world.links.remove(&bridge_name(&world.tag, &world.networks[0].id)).unwrap();
        }
        assert_eq!(ip("-br link").lines().count(), 2, "lo and the uplink");
        assert!(!world.namespace(a).exists());
        let drift = world.drift();
        assert!(drift.iter().any(|drift| drift.starts_with("network namespace ")), "{drift:?}");
    });
}

#[test]
fn an_unfinished_pin_is_repaired() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        let path = world.namespace(a);
        netns::remove(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(world.drift()[0].starts_with("network namespace "), "{:?}", world.drift());
        world.repair();
        assert_eq!(world.drift(), Vec::<String>::new());
    });
}

/// A service of systemd may have a mount namespace of its own; pins must be seen by the shell outside of it. Here a
/// second run of this program is process 1 of its own process namespace.
#[test]
fn a_pin_that_is_made_in_another_mount_namespace_is_seen_in_the_first() {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--mount-proc"])
        .arg(program)
        .args(["--exact", "links::as_process_1", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(LAST_WORDS), "{said}");
}

/// Without them the test above would pass when nothing was run.
const LAST_WORDS: &str = "the pin is gone from both namespaces";

/// What the test above runs; nothing when it is run otherwise.
#[test]
fn as_process_1() {
    if std::process::id() != 1 {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pin");
    let made = path.clone();
    let service = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        netns::ensure(&made).unwrap();
        netns::open(&made).unwrap();
        // The service is started again: a mount namespace that never knew of the pin.
        let again = made.clone();
        move || netns::remove(&again).unwrap()
    });
    let remove = service.join().unwrap();
    netns::open(&path).unwrap();
    remove();
    assert!(!path.exists());
    println!("{LAST_WORDS}");
}

#[test]
fn routes_and_listeners_of_others_are_known() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        ip("route add 198.51.100.0/24 via 192.0.2.2");
        ip("route add default via 192.0.2.2");
        let routes = Outside::look().unwrap().foreign_routes(&world.tag);
        let routes: Vec<String> = routes.iter().map(|subnet| subnet.to_string()).collect();
        assert_eq!(routes, ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"]);
        let _sockets = (
            TcpListener::bind("127.0.0.1:1001").unwrap(),
            TcpListener::bind("[::]:1002").unwrap(),
            TcpListener::bind("0.0.0.0:1003").unwrap(),
            UdpSocket::bind("192.0.2.1:1004").unwrap(),
            TcpListener::bind("[::1]:1005").unwrap(),
        );
        let ports: Vec<String> = host::listening_ports().unwrap().iter().map(|port| port.to_string()).collect();
        assert_eq!(ports, ["*:1002", "0.0.0.0:1003", "127.0.0.1:1001", "192.0.2.1:1004/udp", "[::1]:1005"]);
    });
}

#[test]
fn several_threads_connect_and_disconnect_at_once() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        for n in 2..18 {
            world.declare_container(n, &[1]);
        }
        let world = &world;
        let at_once = |work: fn(&World, usize)| {
            std::thread::scope(|scope| {
                for first in 0..4 {
                    scope.spawn(move || (first..16).step_by(4).for_each(|number| work(world, number)));
                }
            });
        };
        at_once(|world, number| world.connect(number));
        assert_eq!(world.drift(), Vec::<String>::new());
        at_once(|world, number| world.disconnect(number));
        assert_eq!(ip("-br link").lines().count(), 3, "lo, the uplink and the bridge: {}", ip("-br link"));
    });
}
