//! Name service inside a container's own network namespace.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::model::launch::Resolver;
use evenkeel::model::names::NameTable;
use evenkeel::model::status::Phase;
use evenkeel::model::units::Timespan;

use crate::fixture::{Container, wait_for};

/// A network namespace of the test's own with its loopback up, pinned by iproute2.
pub struct Netns {
    name: String,
}

impl Netns {
    pub fn new(what: &str) -> Netns {
        let name = format!("ekm-{what}-{}", std::process::id());
        let netns = Netns { name };
        netns.ip(&["netns", "add", &netns.name]);
        netns.ip(&["-n", &netns.name, "link", "set", "lo", "up"]);
        netns
    }

    fn ip(&self, arguments: &[&str]) {
        assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` on a thread inside.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = std::fs::File::open(self.path()).unwrap();
        std::thread::spawn(move || {
            evenkeel::sys::namespace::setns(file.as_fd(), libc::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn write_table(path: &Path, names: &[(&str, &str)]) {
    let mut table = NameTable::default();
    for (name, address) in names {
        table.names.entry((*name).to_owned()).or_default().insert(address.parse::<IpAddr>().unwrap());
    }
    let aside = path.with_extension("new");
    std::fs::write(&aside, serde_json::to_vec(&table).unwrap()).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// A container that runs this line in `netns`, with a table `front.names`.
fn container(line: &str, netns: &Netns, upstreams: Vec<IpAddr>) -> Container {
    let mut container = Container::of(line);
    container.launch.netns = Some(netns.path());
    let path = netns.path().to_string_lossy().into_owned();
    let namespaces = container.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(serde_json::json!({ "type": "network", "path": path }));
    let table = container.directory.path().join("front.names");
    write_table(&table, &[("web", "10.89.0.2"), ("web", "10.89.0.3"), ("web", "fd00::2"), ("db", "10.89.0.9")]);
    container.launch.resolver = Some(Resolver { tables: vec![table], upstreams });
    container
}

#[test]
fn names_of_its_networks_resolve_inside() {
    let netns = Netns::new("names");
    let line = "nslookup web; nslookup DB; nslookup 10.89.0.9; nslookup nowhere || echo none";
    let container = container(line, &netns, Vec::new());
    container.start();
    container.await_phase(Phase::Exited);
    let log = container.log().concat();
    for expected in ["10.89.0.2", "10.89.0.3", "fd00::2", "10.89.0.9", "name = db", "NXDOMAIN", "none"] {
        assert!(log.contains(expected), "{expected} in {log}");
    }
}

#[test]
fn a_changed_table_counts_at_once() {
    let netns = Netns::new("table");
    let container = container("while :; do nslookup late; sleep 0.05; done", &netns, Vec::new());
    container.start();
    wait_for(|| container.log().concat().contains("NXDOMAIN").then_some(()), || container.log().concat());
    write_table(&container.directory.path().join("front.names"), &[("late", "10.89.0.77")]);
    wait_for(|| container.log().concat().contains("10.89.0.77").then_some(()), || container.log().concat());
}

/// A DNS server in `netns` that answers every A question with 192.0.2.1, and others with nothing.
fn upstream(netns: &Netns) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    netns.run(move || {
        let socket = UdpSocket::bind("127.0.0.53:53").unwrap();
        ready.send(()).unwrap();
        let mut packet = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut packet) {
            let mut answer = packet[..count].to_vec();
            answer[2] |= 0x80;
            let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            answer.truncate(end);
            answer[6..12].fill(0);
            if answer[end - 3] == 1 {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    is_ready.recv().unwrap();
}

#[test]
fn other_names_are_forwarded_from_the_monitors_own_network() {
    let home = Netns::new("home");
    let inside = Netns::new("inside");
    upstream(&home);
    // The first server is not there: the second one is asked.
    let servers = ["127.0.0.54", "127.0.0.53"].map(|address| address.parse().unwrap()).to_vec();
    let container = container("nslookup example.org; nslookup web", &inside, servers);
    container.write_launch();
    let run = container.run_directory();
    let monitor = Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor"));
    home.run(move || evenkeel::monitor::spawn(monitor, &run, None)).join().unwrap().unwrap();
    container.await_phase(Phase::Exited);
    let log = container.log().concat();
    assert!(log.contains("192.0.2.1") && log.contains("10.89.0.2"), "{log}");
}

#[test]
fn tcp_is_served_too_and_rubbish_does_no_harm() {
    let netns = Netns::new("tcp");
    let container = container("sleep 1000", &netns, Vec::new());
    container.start();
    let answer = netns.run(|| {
        use std::io::{Read, Write};
        let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
        for rubbish in [&[][..], &[0; 5], &[0xff; 300], &[0; 12]] {
            datagram.send_to(rubbish, "127.0.0.11:53").unwrap();
        }
        let mut liar = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
        liar.write_all(&[0xff; 4000]).unwrap();
        let mut stream = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
        let query = b"\0\x14\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02db\0\0\x01\0\x01";
        for _ in 0..2 {
            stream.write_all(query).unwrap();
        }
        let mut answers = [0; 2 * 38];
        stream.read_exact(&mut answers).unwrap();
        answers
    });
    let answers = answer.join().unwrap();
    for answer in answers.chunks(38) {
        assert_eq!(answer[..2], [0, 36]);
        assert_eq!(answer[34..], [10, 89, 0, 9]);
    }
    assert_eq!(container.client().status().unwrap().phase, Phase::Running);
}

#[test]
fn containers_that_share_a_network_have_one_name_service() {
    let netns = Netns::new("shared");
    let owner = container("sleep 1000", &netns, Vec::new());
    owner.start();
    let sharer = container("while :; do echo asking; nslookup db; sleep 0.1; done", &netns, Vec::new());
    sharer.start();
    let answers = || sharer.log().iter().filter(|line| line.contains("10.89.0.9")).count();
    wait_for(|| (answers() > 0).then_some(()), || sharer.log().concat());
    owner.client().stop(None, Some(Timespan::ZERO)).unwrap();
    let before = answers();
    wait_for(|| (answers() > before + 5).then_some(()), || sharer.log().concat());
}
