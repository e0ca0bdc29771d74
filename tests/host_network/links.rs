//! Bridges, attachments and namespaces: made, kept, repaired, removed.

use crate::world::{Kind, World, ask, ip, on_a_host};
use evenkeel::engine::network::netns;

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
