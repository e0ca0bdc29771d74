//! The table: what is seen of others' changes.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{Kind, World, nft, on_a_host};
use evenkeel::engine::network::firewall;

/// Two networks, one of them internal, and ports of every kind.
fn published() -> impl FnOnce(World) -> World {
    |mut world| {
        world.network(1, Kind::Open);
        world.network(2, Kind::Internal);
        let (a, b) = (world.container(2, &[1]), world.container(3, &[1, 2]));
        for (number, host) in [(a, "*:80"), (b, "*:80"), (a, "127.0.0.1:81"), (b, "192.0.2.1:82/udp")] {
            world.publish(number, host, 8080);
        }
        world
    }
}

#[test]
fn what_was_set_is_what_is_observed_and_an_empty_ruleset_leaves_no_table() {
    on_a_host(|world| {
        let world = published()(world);
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(Default::default()));
        let ruleset = world.set_firewall();
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(ruleset));
        firewall::set(&world.tag, &Default::default()).unwrap();
        assert_eq!(nft("list tables"), "");
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(Default::default()));
    });
}

/// Another engine that starts a hundred containers, or one that programs a rule every few milliseconds.
#[test]
fn who_changes_other_tables_all_the_time_keeps_nobody_from_looking_or_from_setting() {
    on_a_host(|world| {
        let world = published()(world);
        let ruleset = world.set_firewall();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let others = ["0001", "0002"].map(|tag| {
                let (ruleset, is_over) = (&ruleset, &is_over);
                threads.spawn(move || {
                    let tag = tag.parse().unwrap();
                    while !is_over.load(Ordering::Relaxed) {
                        for rules in [ruleset, &Default::default()] {
                            // They are in each other's way, too.
                            let _ = firewall::set(&tag, rules);
                        }
                    }
                })
            });
            for _ in 0..200 {
                assert_eq!(firewall::observe(&world.tag).unwrap(), Some(ruleset.clone()));
            }
            for _ in 0..20 {
                firewall::set(&world.tag, &Default::default()).unwrap();
                firewall::set(&world.tag, &ruleset).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    });
}

#[test]
fn any_change_by_others_is_seen_and_taken_back() {
    const TABLE: &str = "inet evenkeel-7e57";
    on_a_host(|world| {
        let world = published()(world);
        let ruleset = world.set_firewall();
        let original = nft(&format!("-s list table {TABLE}"));
        let changes = [
            format!("add rule {TABLE} input iifname lo accept"),
            format!("insert rule {TABLE} forward accept"),
            format!("flush chain {TABLE} postrouting"),
            format!("replace rule {TABLE} guard handle 12 counter"),
            format!("delete element {TABLE} bridges {{ ek7e57b00000002 }}"),
            format!("add element {TABLE} internal {{ other }}"),
            format!("delete element {TABLE} published4_by_address_1 {{ 127.0.0.1 . tcp . 81 }}"),
            format!("delete element {TABLE} record {{ 0x00000000 }}"),
            format!("flush set {TABLE} digest"),
            format!("add chain {TABLE} more"),
            format!("add set {TABLE} more {{ type ipv4_addr; }}"),
            format!("add counter {TABLE} more"),
            format!("add chain {TABLE} forward {{ policy drop; }}"),
            format!("add table {TABLE} {{ flags dormant; }}"),
        ];
        for change in changes {
            // The one change that needs to know its victim's number.
            let change = match nft(&format!("-a list chain {TABLE} guard")).split_once("drop # handle ") {
                Some((_, rest)) => change.replace("handle 12", &format!("handle {}", rest.lines().next().unwrap())),
                None => change,
            };
            nft(&change);
            assert_eq!(firewall::observe(&world.tag).unwrap(), None, "{change}");
            firewall::set(&world.tag, &ruleset).unwrap();
            assert_eq!(firewall::observe(&world.tag).unwrap(), Some(ruleset.clone()), "{change}");
            assert_eq!(nft(&format!("-s list table {TABLE}")), original, "{change}");
        }
        nft(&format!("delete table {TABLE}"));
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(Default::default()));
    });
}

#[test]
fn what_others_do_with_their_own_tables_is_no_change() {
    on_a_host(|world| {
        let world = published()(world);
        nft("add table inet other");
        let ruleset = world.set_firewall();
        nft("add chain inet other forward");
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(ruleset));
        assert_eq!(firewall::observe(&"0000".parse().unwrap()).unwrap(), Some(Default::default()));
        firewall::set(&world.tag, &Default::default()).unwrap();
        assert!(nft("list tables").contains("inet other"));
    });
}

#[test]
fn hundreds_of_ports_fit_into_one_transaction() {
    on_a_host(|mut world| {
        world.network(1, Kind::Open);
        let a = world.container(2, &[1]);
        for port in 1000..2000 {
            world.publish(a, &format!("*:{port}"), port);
        }
        let ruleset = world.set_firewall();
        assert_eq!(firewall::observe(&world.tag).unwrap(), Some(ruleset));
    });
}
