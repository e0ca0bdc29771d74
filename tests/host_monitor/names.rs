//! Name service inside a container's own network namespace.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use evenkeel::model::launch::Resolver;
use evenkeel::model::names::NameTable;
use evenkeel::model::status::Phase;
use evenkeel::model::units::Timespan;
use evenkeel::monitor::client::START_PATIENCE;

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

/// Starts a container whose monitor lives in `home`.
fn start_from(home: &Netns, container: &Container) {
    container.write_launch();
    let run = container.run_directory();
    let monitor = Path::new(env!("CARGO_BIN_EXE_evenkeel-monitor"));
    home.run(move || evenkeel::monitor::spawn(monitor, &run, None, START_PATIENCE)).join().unwrap().unwrap();
}

fn addresses<const N: usize>(addresses: [&str; N]) -> Vec<IpAddr> {
    addresses.map(|address| address.parse().unwrap()).to_vec()
}

#[test]
fn other_names_are_forwarded_from_the_monitors_own_network() {
    let home = Netns::new("home");
    let inside = Netns::new("inside");
    upstream(&home);
    // The first server is not there: the second one is asked.
    let servers = addresses(["127.0.0.54", "127.0.0.53"]);
    let container = container("nslookup example.org; nslookup web", &inside, servers);
    start_from(&home, &container);
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

/// Debian's dnsmasq in a network namespace, the process and its file of queries.
struct Dnsmasq {
    process: Child,
    directory: tempfile::TempDir,
}

impl Dnsmasq {
    fn serve(netns: &Netns, address: &str) -> Dnsmasq {
        let directory = tempfile::tempdir().unwrap();
        let numbers = (0..200).map(|n| format!("192.0.{}.{} big.example\n", 2 + n / 100, n % 100));
        std::fs::write(directory.path().join("hosts"), numbers.collect::<String>()).unwrap();
        let log = directory.path().join("log");
        let process = Command::new("nsenter")
            .arg(format!("--net={}", netns.path().display()))
            .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="])
            .args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--log-queries", "--edns-packet-max=4096"])
            .arg(format!("--listen-address={address}"))
            .arg(format!("--addn-hosts={}", directory.path().join("hosts").display()))
            .arg(format!("--log-facility={}", log.display()))
            .args(["--host-record=real.example,192.0.2.80,2001:db8::80", "--txt-record=word.example,calm"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the package dnsmasq-base is installed");
        let server = Dnsmasq { process, directory };
        // It says so after it opened its sockets.
        wait_for(|| server.log().contains("/hosts - 200").then_some(()), || server.log());
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a program of the host says inside a network namespace, with the container's resolv.conf over the host's.
fn inside(netns: &Netns, container: &Container, line: &str) -> String {
    let resolv_conf = container.root().join("etc/resolv.conf");
    let script = format!("mount --bind {} /etc/resolv.conf && {{ {line}; }} 2>&1", resolv_conf.display());
    let netns = format!("--net={}", netns.path().display());
    let output = Command::new("nsenter").args([&netns, "unshare", "--mount", "sh", "-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn real_clients_get_the_answers_of_a_real_resolver_on_the_hosts_loopback() {
    let home = Netns::new("stubhome");
    let netns = Netns::new("stub");
    let server = Dnsmasq::serve(&home, "127.0.0.53");
    let container = container("sleep 1000", &netns, addresses(["127.0.0.53"]));
    start_from(&home, &container);
    let ask = |line: &str| inside(&netns, &container, line);

    // glibc: both families at once, names of ours and of the outside, and the name of an address.
    for (name, expected) in [
        ("web", &["10.89.0.2", "10.89.0.3", "fd00::2"][..]),
        ("db", &["10.89.0.9"]),
        ("real.example", &["192.0.2.80", "2001:db8::80"]),
    ] {
        let found = ask(&format!("getent ahosts {name} | grep STREAM | cut -d' ' -f1 | sort"));
        assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    }
    assert!(ask("getent hosts 10.89.0.9").contains("db"));
    // An answer of 200 addresses comes over TCP in the end.
    assert_eq!(ask("getent ahosts big.example | grep -c STREAM").trim(), "200");
    assert_eq!(ask("busybox nslookup -type=txt word.example | grep -c calm").trim(), "1");

    // What does not fit is marked, also over UDP of a stated size, and is whole over TCP.
    let flags = ask("dig +ignore +noedns big.example");
    assert!(flags.contains(" tc"), "{flags}");
    assert!(ask("dig +ignore +bufsize=4096 big.example").contains("ANSWER: 200"));
    assert!(ask("dig +tcp big.example").contains("ANSWER: 200"));
    let nothing = ask("dig db AAAA");
    assert!(nothing.contains("status: NOERROR") && nothing.contains("ANSWER: 0"), "{nothing}");

    // Names that only this host could know do not leave it.
    for name in ["stopped", "web.7", "localhost"] {
        ask(&format!("dig {name}; dig {name} AAAA; dig {name} MX"));
    }
    let log = server.log();
    assert!(log.contains("query[A] real.example"), "{log}");
    for name in ["web", "db", "stopped", "web.7", "localhost"] {
        assert!(!log.contains(&format!("] {name} from")), "{name} in {log}");
    }
}

#[test]
fn a_server_that_is_down_delays_one_query_and_silent_names_delay_no_others() {
    let home = Netns::new("floodhome");
    let netns = Netns::new("flood");
    let _server = Dnsmasq::serve(&home, "127.0.0.53");
    // The first takes queries and never answers.
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let silent = home.run(move || {
        let _socket = UdpSocket::bind("127.0.0.54:53").unwrap();
        ready.send(()).unwrap();
        let _ = is_over.recv();
    });
    is_ready.recv().unwrap();
    let container = container("sleep 1000", &netns, addresses(["127.0.0.54", "127.0.0.53"]));
    start_from(&home, &container);
    let asked = netns.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let query = |id: u16, name: &str| {
            let mut packet = id.to_be_bytes().to_vec();
            packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            for label in name.split('.') {
                packet.push(label.len() as u8);
                packet.extend(label.as_bytes());
            }
            packet.extend([0, 0, 1, 0, 1]);
            packet
        };
        let hear = |id: u16| loop {
            let mut answer = [0; 1500];
            let count = socket.recv(&mut answer).unwrap();
            if answer[..2] == id.to_be_bytes() {
                return (answer[3] & 15, answer[count - 4..count].to_vec());
            }
        };
        let ask = |id: u16, name: &str| {
            let begun = std::time::Instant::now();
            socket.send_to(&query(id, name), "127.0.0.11:53").unwrap();
            (hear(id), begun.elapsed())
        };
        // 700 names that wait for the silent server, asked in turns that its sockets hold.
        for id in 1000..1700 {
            socket.send_to(&query(id, &format!("n{id}.example")), "127.0.0.11:53").unwrap();
            if id % 50 == 0 {
                ask(1, "db");
            }
        }
        let during = ask(2, "real.example");
        let after = ask(3, "real.example");
        (during, after)
    });
    let (during, after) = asked.join().unwrap();
    assert_eq!(during.0, (0, vec![192, 0, 2, 80]));
    assert_eq!(after.0, (0, vec![192, 0, 2, 80]));
    assert!(after.1 < std::time::Duration::from_secs(1), "the one that answers is asked first: {:?}", after.1);
    drop(over);
    silent.join().unwrap();
}
