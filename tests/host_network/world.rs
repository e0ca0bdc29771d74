//! A host in a namespace of its own, with an outside, networks and containers: what the tests play with.
//!
//! ```text
//!   outside 192.0.2.2/24 ══ up0 192.0.2.1/24 host ── bridges ── containers
//!           2001:db8::2/64      2001:db8::1/64
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::engine::network::attachment::Attachment;
use evenkeel::engine::network::firewall;
use evenkeel::engine::network::link::Links;
use evenkeel::engine::network::netns;
use evenkeel::engine::network::observe::{Connected, Inside, Observation, Outside, observe};
use evenkeel::model::container::ContainerSpec;
use evenkeel::model::firewall::Ruleset;
use evenkeel::model::id::RootTag;
use evenkeel::model::image::ImageSource;
use evenkeel::model::record::{Addresses, ContainerRecord, NetworkRecord};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

/// A thread's view of one host. Drop removes every pin; links and rules go with the namespaces.
pub struct World {
    pub tag: RootTag,
    pub links: Links,
    pub outside: OwnedFd,
    pub networks: Vec<NetworkRecord>,
    pub containers: Vec<ContainerRecord>,
    directory: tempfile::TempDir,
}

/// Runs a test as root of a host of its own.
pub fn on_a_host(test: impl FnOnce(World) + Send + 'static) {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
    let host = std::thread::spawn(move || {
        enter_new_namespace();
        test(World::new());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

impl World {
    fn new() -> World {
        let outside = std::thread::spawn(|| {
            enter_new_namespace();
            own_namespace()
        });
        let outside = outside.join().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), outside.as_raw_fd());
        ip(&format!("link add up0 type veth peer name out0 netns {path}"));
        ip("addr add 192.0.2.1/24 dev up0");
        ip("addr add 2001:db8::1/64 dev up0 nodad");
        ip("link set up0 up");
        let world = World {
            tag: "7e57".parse().unwrap(),
            links: Links::open().unwrap(),
            outside,
            networks: Vec::new(),
            containers: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        let is_up = |link: &str| ip(&format!("-br link show {link}")).contains(" UP ");
        world.outside(|| {
            ip("addr add 192.0.2.2/24 dev out0");
            ip("addr add 2001:db8::2/64 dev out0 nodad");
            ip("link set out0 up");
            eventually("the carrier outside", || is_up("out0"));
            // Whoever is outside may try to reach containers directly.
            ip("route add 10.0.0.0/8 via 192.0.2.1");
            ip("route add 127.0.0.0/8 via 192.0.2.1 table 7");
            ip("route add fd00::/8 via 2001:db8::1");
        });
        eventually("the carrier of the uplink", || is_up("up0"));
        world
    }

    /// Declares a network: number `n` is 10.89.n.0/24 and fd00:89:n::/64.
    pub fn declare(&mut self, n: u8, kind: Kind) -> NetworkRecord {
        let record = json!({
            "version": 1, "id": format!("0000000{n:x}"), "project": "test", "name": format!("net{n}"),
            "spec": { "internal": kind == Kind::Internal, "subnet": null, "subnet6": null, "mtu": null, "labels": {} },
            "subnet": format!("10.89.{n}.0/24"), "subnet6": format!("fd00:89:{n}::/64"),
        });
        let record: NetworkRecord = serde_json::from_value(record).unwrap();
        self.networks.push(record.clone());
        record
    }

    /// Declares a network and makes its bridge.
    pub fn network(&mut self, n: u8, kind: Kind) {
        let record = self.declare(n, kind);
        self.links.ensure_bridge(&self.tag, &record).unwrap();
    }

    /// Declares a container with address .`host` on each of these networks.
    pub fn declare_container(&mut self, host: u8, networks: &[u8]) -> usize {
        self.containers.push(container_record(&format!("0000000000{host:02x}")));
        let number = self.containers.len() - 1;
        networks.iter().for_each(|n| self.join(number, *n, host));
        number
    }

    /// Declares a container and connects it.
    pub fn container(&mut self, host: u8, networks: &[u8]) -> usize {
        let number = self.declare_container(host, networks);
        self.connect(number);
        number
    }

    /// Gives a container an address of each family on a network.
    pub fn join(&mut self, number: usize, n: u8, host: u8) {
        self.join_in(number, n, host, Some(format!("fd00:89:{n}::{host:x}").parse().unwrap()));
    }

    /// Gives a container an address on a network, and this one of version 6.
    pub fn join_in(&mut self, number: usize, n: u8, host: u8, v6: Option<Ipv6Addr>) {
        let addresses = Addresses { v4: format!("10.89.{n}.{host}").parse().unwrap(), v6 };
        self.containers[number].addresses.insert(format!("0000000{n:x}").parse().unwrap(), addresses);
    }

    pub fn leave(&mut self, number: usize, n: u8) {
        self.containers[number].addresses.remove(&format!("0000000{n:x}").parse().unwrap());
    }

    /// Makes everything as declared.
    pub fn repair(&self) {
        self.repair_bridges();
        (0..self.containers.len()).for_each(|number| self.connect(number));
    }

    pub fn repair_bridges(&self) {
        for record in &self.networks {
            self.links.ensure_bridge(&self.tag, record).unwrap();
        }
    }

    pub fn connect(&self, number: usize) {
        netns::ensure(&self.namespace(number)).unwrap();
        self.connect_only(number);
    }

    /// The namespace being there.
    pub fn connect_only(&self, number: usize) {
        for attachment in self.attachments(number) {
            self.links.ensure_attachment(&attachment, &self.namespace(number)).unwrap();
        }
    }

    pub fn disconnect(&self, number: usize) {
        for attachment in self.attachments(number) {
            self.links.remove(&attachment.link).unwrap();
        }
        netns::remove(&self.namespace(number)).unwrap();
    }

    /// Publishes `host` (`*:80`, `127.0.0.1:80`) as `port` of this container.
    pub fn publish(&mut self, number: usize, host: &str, port: u16) {
        self.containers[number].spec.ports.insert(host.parse().unwrap(), port);
    }

    /// The ruleset that the records ask for, and the kernel has afterwards.
    pub fn set_firewall(&self) -> Ruleset {
        let ruleset = Ruleset::of(&self.networks, &self.containers);
        firewall::set(&self.tag, &ruleset).unwrap();
        ruleset
    }

    pub fn namespace(&self, number: usize) -> PathBuf {
        self.directory.path().join("netns").join(self.containers[number].id.as_str())
    }

    pub fn attachments(&self, number: usize) -> Vec<Attachment> {
        Attachment::all_of(&self.tag, &self.containers[number], &self.networks)
    }

    pub fn observe(&self) -> Observation {
        let outside = Outside::look().unwrap();
        // A thread that looks stays where it looked.
        let look =
            || self.connected().into_iter().map(|one| (one.look().unwrap(), one)).map(|(inside, one)| (one, inside));
        let insides: Vec<(Connected, Inside)> =
            std::thread::scope(|scope| scope.spawn(|| look().collect()).join().unwrap());
        observe(&self.tag, &self.networks, &outside, &insides)
    }

    pub fn connected(&self) -> Vec<Connected> {
        (0..self.containers.len())
            .map(|number| Connected {
                container: self.containers[number].id.clone(),
                namespace: self.namespace(number),
                attachments: self.attachments(number),
            })
            .collect()
    }

    /// Everything that is not as it should be, as `object: found`.
    pub fn drift(&self) -> Vec<String> {
        let Observation { networks, containers } = self.observe();
        let drift = networks.into_values().flatten().chain(containers.into_values().flatten());
        drift.map(|drift| format!("{}: {}", drift.object, drift.found)).collect()
    }

    pub fn outside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::inside(&self.outside, work).unwrap()
    }

    pub fn inside<T: Send>(&self, number: usize, work: impl FnOnce() -> T + Send) -> T {
        netns::inside(&netns::open(&self.namespace(number)).unwrap(), work).unwrap()
    }

    /// A server in this container that answers every connection with its name and the address that it sees.
    pub fn serve(&self, number: usize, at: &str, name: &'static str) -> Server {
        self.inside(number, || Server::start(at, name))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for number in 0..self.containers.len() {
            netns::remove(&self.namespace(number)).unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Internal,
}

/// Answers `NAME SEEN-ADDRESS` until it is dropped.
pub struct Server {
    over: Arc<AtomicBool>,
    at: SocketAddr,
    namespace: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(at: &str, name: &'static str) -> Server {
        let listener = TcpListener::bind(at).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let at = listener.local_addr().unwrap();
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                let Ok((mut stream, peer)) = listener.accept() else { break };
                // The client may be gone already; that is its business.
                let _ = write!(stream, "{name} {}", peer.ip().to_canonical());
            }
        });
        Server { over, at, namespace: own_namespace(), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let at = self.at;
        let loopback: IpAddr = if at.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
        let at = if at.ip().is_unspecified() { SocketAddr::new(loopback, at.port()) } else { at };
        netns::inside(&self.namespace, || TcpStream::connect(at).is_ok()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// What a server at `at` says to the calling thread's namespace. `None` where it cannot be reached.
pub fn ask(at: &str) -> Option<String> {
    ask_within(at, Duration::from_secs(5))
}

/// The same where no answer is expected.
pub fn knock(at: &str) -> Option<String> {
    ask_within(at, Duration::from_millis(400))
}

fn ask_within(at: &str, patience: Duration) -> Option<String> {
    let at = at.to_socket_addrs().unwrap().next().unwrap();
    let mut stream = TcpStream::connect_timeout(&at, patience).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

/// Waits for a condition; the kernel needs a moment for some things.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::yield_now();
    }
}

/// Runs iproute2 in the namespace of the calling thread: a child inherits it.
pub fn ip(arguments: &str) -> String {
    command("ip", arguments)
}

pub fn nft(arguments: &str) -> String {
    command("nft", arguments)
}

fn command(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments}: {err}");
    out.into_owned()
}

fn container_record(id: &str) -> ContainerRecord {
    ContainerRecord {
        version: 1,
        id: id.parse().unwrap(),
        project: "test".parse().unwrap(),
        instance: "web".parse().unwrap(),
        spec: ContainerSpec::of(ImageSource::Rootfs("/".into())),
        image: None,
        addresses: BTreeMap::new(),
        network_of: None,
        users: None,
        way_out: Default::default(),
        after_end: Default::default(),
        refused: None,
        before: None,
    }
}

fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
    // A host that has run for a while has its link-local addresses.
    std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap();
}

fn own_namespace() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}
