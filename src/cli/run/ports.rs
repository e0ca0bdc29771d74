//! `--publish`, `--expose` and `--publish-all` as ports of the manifest, and which ports of the host are free for them.
//!
//! # Decisions
//! What containers publish has no socket that listens, so a port is free that neither the kernel's sockets nor anybody's
//! record nor the firewall has. Only where any port will do is a socket bound: the kernel chooses, and chooses again while
//! it is one of those.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use toml::{Table, Value};

use super::declaration::malformed;
use crate::cli::failure::Failure;
use crate::model::actual::Actual;
use crate::model::container::RunState;
use crate::model::id::Whose;
use crate::model::port::{HostAddress, HostPort, Protocol};

/// So many choices of the kernel's may be taken.
const MOST_CHOICES: usize = 256;

/// What cannot be published any more.
#[derive(Debug, Default)]
pub struct Taken(Vec<HostPort>);

impl Taken {
    pub fn of(actual: &Actual) -> Taken {
        let may_serve = actual.containers.values().filter(|container| {
            container.record.spec.state == RunState::Running
                && (container.record.project != Whose::Nobody || container.liveness.is_up())
        });
        let recorded = may_serve.flat_map(|container| container.record.spec.ports.keys());
        let in_force = actual.firewall.iter().flat_map(|rules| rules.ports.keys());
        Taken(recorded.chain(in_force).chain(&actual.host.listening).copied().collect())
    }

    fn has(&self, port: &HostPort) -> bool {
        self.0.iter().any(|taken| taken.conflicts(port))
    }

    /// A free port for the address and the protocol of `like`.
    fn any(&self, like: HostPort) -> Result<u16, Failure> {
        // Held until the last is chosen, so that none comes twice.
        let mut refused = Vec::new();
        while refused.len() < MOST_CHOICES {
            let (socket, port) = bind(like)?;
            if !self.has(&HostPort { port, ..like }) {
                return Ok(port);
            }
            refused.push(socket);
        }
        Err(Failure::new(format!("the host's {} ports are taken", like.protocol)).hint("name a free one: HOST:PORT"))
    }
}

/// A socket at a port of the kernel's choice, on every address: who listens on one of them is in its way.
fn bind(like: HostPort) -> io::Result<(Socket, u16)> {
    let bind = |address: IpAddr| -> io::Result<(Socket, u16)> {
        let address = SocketAddr::new(address, 0);
        Ok(match like.protocol {
            Protocol::Tcp => {
                let socket = TcpListener::bind(address)?;
                let port = socket.local_addr()?.port();
                (Socket::Tcp { _held: socket }, port)
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address)?;
                let port = socket.local_addr()?.port();
                (Socket::Udp { _held: socket }, port)
            }
        })
    };
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    match like.address {
        HostAddress::One(IpAddr::V4(_)) => bind(v4),
        HostAddress::One(IpAddr::V6(_)) => bind(v6),
        // IPv4 with it (ipv6(7), IPV6_V6ONLY); a host may have no IPv6 at all.
        HostAddress::Any => bind(v6).or_else(|_| bind(v4)),
    }
}

enum Socket {
    Tcp { _held: TcpListener },
    Udp { _held: UdpSocket },
}

/// The `ports` of all that `--publish` says. What is said twice is once.
pub fn table(written: &[String], taken: &mut Taken) -> Result<Table, Failure> {
    let mut entries = Table::new();
    let mut known: Vec<(HostPort, Value)> = Vec::new();
    for written in written {
        for (key, inside) in published(written, taken)? {
            // What is wrong with a key, the manifest says.
            if let Ok(host) = key.parse::<HostPort>() {
                match known.iter().find(|(other, _)| *other == host) {
                    None => known.push((host, inside.clone())),
                    Some((_, other)) if *other == inside => continue,
                    Some((_, other)) => {
                        return Err(Failure::usage(format!(
                            "`--publish {written}`: port {host} of the host is for port {other} of the container already"
                        ))
                        .hint("one port of the host leads to one of the container's: choose another for this"));
                    }
                }
            }
            entries.insert(key, inside);
        }
    }
    Ok(entries)
}

/// `[[ADDRESS:]HOST:]PORT[/PROTOCOL]` as entries of `ports`: the host's side, the container's. They are taken then.
pub fn published(written: &str, taken: &mut Taken) -> Result<Vec<(String, Value)>, Failure> {
    let expected = || malformed("--publish", written, "[[ADDRESS:]HOST:]PORT[/tcp or /udp], or ranges of equal length");
    let (sides, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let (host, inside) = match sides.rsplit_once(':') {
        None => (None, sides),
        Some((host, inside)) => (Some(host), inside),
    };
    let (address, host) = match host {
        None => (None, None),
        // An address alone: `127.0.0.1::80`, and every IPv6 address is in brackets.
        Some(host) => match host.rsplit_once(':') {
            Some((address, host)) => (Some(address), Some(host).filter(|host| !host.is_empty())),
            None => (None, Some(host)),
        },
    };
    let key = |port: u16| match address {
        Some(address) => format!("{address}:{port}/{protocol}"),
        None => format!("{port}/{protocol}"),
    };
    let inside = range(inside).ok_or_else(expected)?;
    let wanted = match host {
        None | Some("0") => None,
        Some(host) => Some(range(host).ok_or_else(expected)?),
    };
    let mut ports = Vec::new();
    for (at, port) in inside.iter().enumerate() {
        let parsed = |host: u16| key(host).parse::<HostPort>();
        let host = match &wanted {
            // What is wrong with an address or a protocol, the manifest says.
            None => parsed(1).map_or(Ok(1), |like| taken.any(like))?,
            // The planner says what is wrong with one that is taken.
            Some(hosts) if inside.len() == 1 => {
                let free = hosts.iter().find(|host| parsed(**host).is_ok_and(|host| !taken.has(&host)));
                *free.or(hosts.first()).ok_or_else(expected)?
            }
            Some(hosts) if hosts.len() == inside.len() => hosts[at],
            Some(_) => return Err(expected()),
        };
        taken.0.extend(parsed(host));
        ports.push((key(host), Value::Integer(i64::from(*port))));
    }
    Ok(ports)
}

/// `80`, `80/udp` or `8000-8002/tcp` as ports of free ones on the host, each as [`published`] would read it.
pub fn exposed(written: &str, taken: &mut Taken) -> Result<Vec<(HostPort, u16)>, Failure> {
    let ports = published(written, taken)?;
    let pair = |(host, inside): (String, Value)| {
        let host = host.parse::<HostPort>().map_err(|_| malformed("--expose", written, "PORT[-PORT][/tcp or /udp]"))?;
        let inside = inside.as_integer().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        Ok((host, inside))
    };
    ports.into_iter().map(pair).collect()
}

fn range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then(|| (first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(written: &str, taken: &[&str]) -> Option<String> {
        let mut taken = Taken(taken.iter().map(|port| port.parse().unwrap()).collect());
        let ports = published(written, &mut taken).ok()?;
        Some(ports.iter().map(|(host, inside)| format!("{host}={inside}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn ports_are_published_on_loopback_unless_said_otherwise() {
        let ports = |written: &str| ports(written, &[]);
        assert_eq!(ports("8080:80").as_deref(), Some("8080/tcp=80"));
        assert_eq!(ports("*:5353:53/udp").as_deref(), Some("*:5353/udp=53"));
        assert_eq!(ports("[::1]:8080:80").as_deref(), Some("[::1]:8080/tcp=80"));
        assert_eq!(ports("8000-8001:80-81").as_deref(), Some("8000/tcp=80 8001/tcp=81"));
        assert!(ports("127.0.0.1::80").unwrap().ends_with("/tcp=80"));
        for free in ["80", "0:80", "127.0.0.1:0:80"] {
            let found = ports(free).unwrap();
            assert!(found.ends_with("/tcp=80") && !found.starts_with("0/"), "{found}");
        }
        for wrong in ["", "x", "80:", "8000-8001:80-82", "0", "8080:0", "70000:80"] {
            assert_eq!(ports(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_port_of_the_host_leads_to_one_of_the_container() {
        let table = |written: &[&str]| {
            let written: Vec<String> = written.iter().copied().map(str::to_owned).collect();
            table(&written, &mut Taken::default()).ok().map(|entries| entries.len())
        };
        assert_eq!(table(&["8080:80", "8080:80"]), Some(1));
        assert_eq!(table(&["8080:80", "127.0.0.1:8080:80"]), Some(1));
        assert_eq!(table(&["8080:80", "8080:80/udp", "8081:80"]), Some(3));
        assert_eq!(table(&["8080:80", "8080:81"]), None);
        assert_eq!(table(&["8080:80", "127.0.0.1:8080:81"]), None);
        assert_eq!(table(&["8000-8001:80-81", "8001:82"]), None);
    }

    #[test]
    fn of_a_range_the_first_free_port_is_chosen() {
        for (written, taken, chosen) in [
            ("8000-8009:80", &["*:8000", "127.0.0.1:8001"][..], "8002/tcp=80"),
            ("8000-8009:80", &["192.0.2.1:8000", "8000/udp"], "8000/tcp=80"),
            ("8000-8009:80/udp", &["8000/udp"], "8001/udp=80"),
            ("192.0.2.1:8000-8009:80", &["*:8000", "8001"], "192.0.2.1:8001/tcp=80"),
            // None is free: the planner says by whom it is taken.
            ("8000-8001:80", &["8000", "8001"], "8000/tcp=80"),
        ] {
            assert_eq!(ports(written, taken).as_deref(), Some(chosen), "{written} {taken:?}");
        }
        let mut taken = Taken::default();
        let both = [published("8000-8009:80", &mut taken).unwrap(), published("8000-8009:81", &mut taken).unwrap()];
        assert_eq!(both.map(|ports| ports[0].0.clone()), ["8000/tcp", "8001/tcp"]);
    }

    #[test]
    fn what_the_kernel_chooses_may_be_taken_by_a_container() {
        let like: HostPort = "127.0.0.1:1/udp".parse().unwrap();
        let but = bind(like).unwrap().1;
        let all = (1..=u16::MAX).filter(|port| *port != but);
        let taken = Taken(all.map(|port| HostPort { port, ..like }).collect());
        assert!(taken.any(like).is_err() || taken.any(like).is_ok_and(|port| port == but));
        let other = HostPort { protocol: Protocol::Tcp, ..like };
        assert!(taken.any(other).is_ok());
    }
}
