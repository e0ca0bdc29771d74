//! Containers that run while something changes around them, on a real kernel: their network, their monitor.

mod support;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::shell::Shell;
use support::{eventually, run};

/// A DNS server on the host that answers every A question with 192.0.2.1, and others with nothing.
fn serve_names(at: &'static str) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut packet) {
            let mut answer = packet[..count].to_vec();
            let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            answer.truncate(end);
            answer[2] |= 0x80;
            answer[6..12].fill(0);
            if answer[end - 3] == 1 {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

/// Whether a container resolves a name of the outside, its default routes, and whether the host's packets from loopback
/// addresses may leave to it.
#[derive(Debug, PartialEq, Eq)]
struct WaysOut {
    resolves: bool,
    routes: [usize; 2],
    route_localnet: String,
}

impl WaysOut {
    fn of(shell: &Shell, pid: u64) -> WaysOut {
        let asked = shell.run(&["exec", "web", "nslookup", "example.org"]);
        let inside = ["nsenter", "--net", "--target", &pid.to_string(), "ip"];
        let routes = |family| run(&[&inside[..], &[family, "route", "show", "default"]].concat()).lines().count();
        let bridges = run(&["ip", "-br", "link", "show", "type", "bridge"]);
        let bridge = bridges.split_whitespace().next().unwrap();
        WaysOut {
            resolves: asked.stdout.contains("192.0.2.1"),
            routes: ["-4", "-6"].map(routes),
            route_localnet: run(&["cat", &format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet")])
                .trim()
                .to_owned(),
        }
    }
}

#[test]
fn a_network_that_becomes_internal_or_is_so_no_more_cuts_off_what_runs_on_it_or_lets_it_out() {
    Shell::with(|shell| {
        serve_names("127.0.0.53:53");
        let declare = |internal: bool| {
            shell.manifest(&format!(
                r#"
[networks.front]
internal = {internal}
subnet6 = "fd00:77::/64"
[containers.web]
image = "box"
command = ["sleep", "1000"]
networks = ["front"]
dns = ["127.0.0.53"]
stop_grace_period = "0s"
"#
            ));
            shell.ok(&["apply"]);
            assert!(shell.plan().contains("Nothing to do"), "{}", shell.plan());
        };
        let open = WaysOut { resolves: true, routes: [1, 1], route_localnet: "1".into() };
        let closed = WaysOut { resolves: false, routes: [0, 0], route_localnet: "0".into() };
        declare(false);
        let pid = shell.pid("web");
        assert_eq!(WaysOut::of(shell, pid), open);
        // What it made for itself by the same gateway (policy routing) is its own affair, and in nobody's way.
        let inside = |words: &[&str]| {
            run(&[&["nsenter", "--net", "--target", &pid.to_string(), "ip", "-4", "route"][..], words].concat())
        };
        let gateway = inside(&["show", "default"]).split_whitespace().nth(2).unwrap().to_owned();
        inside(&["add", "default", "via", &gateway, "table", "100"]);
        declare(true);
        assert_eq!(WaysOut::of(shell, pid), closed);
        declare(false);
        assert_eq!(WaysOut::of(shell, pid), open);
        assert_eq!(shell.pid("web"), pid);
        assert!(inside(&["show", "table", "100"]).contains(&gateway));
        shell.ok(&["down"]);
    });
}

fn monitor_of(pid: u64) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    Pid::from_raw(monitor).unwrap()
}

/// Links are the kernel's and ours: a monitor that hangs is no reason to leave its container cut off. What it has to be told
/// is not forgotten.
#[test]
fn links_are_put_back_though_the_monitor_hangs() {
    Shell::with(|shell| {
        shell.manifest(
            r#"
[networks.front]
[containers.web]
image = "box"
command = ["sleep", "1000"]
networks = ["front"]
stop_signal = "SIGKILL"
"#,
        );
        shell.ok(&["apply"]);
        let pid = shell.pid("web");
        let links = || run(&["ip", "-br", "link", "show", "type", "veth"]);
        let before = links();
        let link = before.split(['@', ' ']).next().unwrap();
        kill_process(monitor_of(pid), Signal::STOP).unwrap();
        run(&["ip", "link", "del", link]);
        let failed = shell.run(&["apply"]);
        assert_ne!(failed.code, 0, "{failed:#?}");
        let routes = run(&["nsenter", "--net", "--target", &pid.to_string(), "ip", "-4", "route"]);
        assert!(links().contains(link) && routes.contains("default via"), "{routes}");
        let plan = shell.plan();
        assert!(plan.contains("its hosts file and resolver"), "{plan}");

        kill_process(monitor_of(pid), Signal::CONT).unwrap();
        shell.ok(&["apply"]);
        assert!(shell.plan_is_empty(), "{}", shell.plan());
        assert_eq!(shell.pid("web"), pid);
        shell.ok(&["down"]);
    });
}

#[test]
fn who_shares_a_network_namespace_finds_the_host_by_the_way_that_leads_out() {
    Shell::with(|shell| {
        let declare = |internal: bool| {
            shell.manifest(&format!(
                r#"
[networks.a]
internal = {internal}
subnet = "10.93.1.0/24"
[networks.b]
subnet = "10.93.2.0/24"
[containers.lender]
image = "box"
command = ["sleep", "1000"]
networks = ["a", "b"]
stop_signal = "SIGKILL"
[containers.sharer]
image = "box"
command = ["sleep", "1000"]
network_mode = "container:lender"
extra_hosts = {{ host = "host-gateway" }}
stop_signal = "SIGKILL"
"#
            ));
            shell.ok(&["apply"]);
            assert!(shell.plan_is_empty(), "{}", shell.plan());
            let hosts = shell.ok(&["exec", "sharer", "cat", "/etc/hosts"]).stdout;
            let host = hosts.lines().find_map(|line| line.strip_suffix("\thost")).map(str::to_owned);
            (shell.pid("sharer"), host.unwrap_or(hosts))
        };
        let (pid, host) = declare(false);
        assert_eq!(host, "10.93.1.1");
        assert_eq!(declare(true), (pid, "10.93.2.1".to_owned()));
        assert_eq!(declare(false), (pid, "10.93.1.1".to_owned()));
        shell.ok(&["down"]);
    });
}

/// Kills the monitor of a running container.
fn lose_monitor(pid: u64) {
    let monitor = monitor_of(pid);
    kill_process(monitor, Signal::KILL).unwrap();
    let monitor = monitor.as_raw_nonzero();
    let state = || std::fs::read_to_string(format!("/proc/{monitor}/stat")).unwrap_or_default();
    eventually("the monitor has ended", || state().is_empty() || state().contains(") Z "));
}

#[test]
fn a_container_whose_monitor_is_gone_gets_its_stop_signal_and_its_grace_period() {
    Shell::with(|shell| {
        shell.manifest(
            r#"
[containers.db]
image = "box"
command = ["sh", "-c", "trap 'sleep 1; echo written > /state; exit' USR1; while :; do sleep 0.1; done"]
stop_signal = "SIGUSR1"
stop_grace_period = "20s"
[containers.deaf]
image = "box"
command = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
stop_grace_period = "2s"
"#,
        );
        shell.ok(&["apply"]);
        let [db, deaf] = ["db", "deaf"].map(|name| shell.inspect(name));
        let pids = [&db, &deaf].map(|found| found["pid"].as_u64().unwrap());
        pids.into_iter().for_each(lose_monitor);
        let begun = Instant::now();
        shell.ok(&["apply"]);
        let time = begun.elapsed();
        let state = shell.path("root/containers").join(db["id"].as_str().unwrap()).join("upper/state");
        assert_eq!(std::fs::read_to_string(state).unwrap(), "written\n");
        assert!(time >= Duration::from_secs(2), "the deaf one has its grace period: {time:?}");
        for (name, old) in ["db", "deaf"].into_iter().zip(pids) {
            assert_ne!(shell.pid(name), old, "{name} is stopped and started");
        }
        shell.ok(&["down"]);
    });
}
