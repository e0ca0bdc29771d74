//! Containers that run while something changes around them, on a real kernel: their network, their monitor.

mod support;

use std::net::UdpSocket;

use support::shell::Shell;
use support::run;

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
        declare(true);
        assert_eq!(WaysOut::of(shell, pid), closed);
        declare(false);
        assert_eq!(WaysOut::of(shell, pid), open);
        assert_eq!(shell.pid("web"), pid);
        shell.ok(&["down"]);
    });
}
