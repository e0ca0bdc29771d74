//! What networks cost: `cargo bench --bench network`. As root; in network namespaces of its own.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/host_network/world.rs"]
mod world;

use std::time::{Duration, Instant};

use evenkeel::engine::network::observe::Outside;
use evenkeel::engine::network::{firewall, host, netns};
use nix::sys::resource::{UsageWho, getrusage};

use crate::world::{Kind, on_a_host};

fn main() {
    on_a_host(|mut world| {
        timed("ensure_bridge, new", 1, |_| world.network(1, Kind::Open));
        for n in 2..102 {
            world.declare_container(n, &[1]);
        }
        timed("netns::ensure, new, each of 100", 100, |n| netns::ensure(&world.namespace(n)).unwrap());
        timed("ensure_attachment, new, each of 100", 100, |n| world.connect_only(n));
        timed("ensure_attachment again, each of 100", 100, |n| world.connect_only(n));
        timed("ensure_bridge again", 20, |_| world.repair_bridges());
        timed("observe 1 network, 100 attachments", 20, |_| assert!(world.drift().is_empty()));
        timed("look at the host", 20, |_| drop(Outside::look().unwrap()));
        timed("listening_ports", 20, |_| drop(host::listening_ports().unwrap()));
        for ports in [3, 100, 300] {
            (0..ports).for_each(|port| world.publish(port % 100, &format!("*:{}", 1000 + port), 80));
            timed(&format!("firewall::set, {ports} ports"), 20, |_| drop(world.set_firewall()));
            timed(&format!("firewall::observe, {ports} ports"), 20, |_| {
                assert!(firewall::observe(&world.tag).unwrap().is_some());
            });
        }
        timed("Links::remove and netns::remove, each of 20", 20, |n| world.disconnect(n));
        let world = &world;
        timed("the same of 80, four at once", 1, |_| {
            std::thread::scope(|scope| {
                for first in 20..24 {
                    scope.spawn(move || (first..100).step_by(4).for_each(|n| world.disconnect(n)));
                }
            });
        });
    });
}

fn timed(what: &str, times: usize, mut work: impl FnMut(usize)) {
    let cpu = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        let of = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
        (of(usage.user_time()), of(usage.system_time()))
    };
    let (begin, before) = (Instant::now(), cpu());
    let mut each: Vec<Duration> = (0..times)
        .map(|n| {
            let begin = Instant::now();
            work(n);
            begin.elapsed()
        })
        .collect();
    each.sort();
    let ((user, system), after) = (before, cpu());
    let n = u32::try_from(times).unwrap();
    println!(
        "{what:50} median {:>9.3?}  mean {:>9.3?}  user {:>9.3?}  system {:>9.3?}",
        each[times / 2],
        begin.elapsed() / n,
        (after.0 - user) / n,
        (after.1 - system) / n,
    );
}
