//! Published ports: the host's side and the container's side.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortError {
    #[error("expected a port from 1 to 65535, found `{0}`")]
    Port(String),
    #[error("expected an IP address, `*` or nothing before the port, found `{0}`")]
    Address(String),
    #[error("expected `tcp` or `udp` after the slash, found `{0}`")]
    Protocol(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// Which addresses of the host a published port binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostAddress {
    /// Every address of the host, IPv4 and IPv6.
    Any,
    One(IpAddr),
}

impl HostAddress {
    pub const LOOPBACK: HostAddress = HostAddress::One(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// Whether one packet could be meant for both.
    pub fn overlaps(self, other: HostAddress) -> bool {
        match (self, other) {
            (HostAddress::Any, _) | (_, HostAddress::Any) => true,
            (HostAddress::One(a), HostAddress::One(b)) => {
                a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
            }
        }
    }
}

/// The host's side of a published port: `8080` (loopback), `*:443`, `127.0.0.1:5353/udp`, `[2001:db8::1]:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostPort {
    pub address: HostAddress,
    pub port: u16,
    pub protocol: Protocol,
}

impl HostPort {
    /// Whether both cannot be published at once.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port && self.protocol == other.protocol && self.address.overlaps(other.address)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            HostAddress::Any => write!(f, "*:{}", self.port)?,
            HostAddress::One(ip) => write!(f, "{}", SocketAddr::new(ip, self.port))?,
        }
        match self.protocol {
            Protocol::Tcp => Ok(()),
            Protocol::Udp => f.write_str("/udp"),
        }
    }
}

impl FromStr for HostPort {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (rest, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, other)) => return Err(PortError::Protocol(other.to_owned())),
        };
        let (address, port) = match rest.rsplit_once(':') {
            None => (HostAddress::LOOPBACK, rest),
            Some(("*", port)) => (HostAddress::Any, port),
            Some((ip, port)) => {
                let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
                let ip = bare.parse().map_err(|_| PortError::Address(ip.to_owned()))?;
                (HostAddress::One(ip), port)
            }
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(HostPort { address, port, protocol }),
            _ => Err(PortError::Port(port.to_owned())),
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = PortError;
    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(value: HostPort) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_read_back_what_they_print() {
        for text in ["127.0.0.1:8080", "*:443", "127.0.0.1:5353/udp", "[2001:db8::1]:80"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        assert_eq!("8080".parse::<HostPort>().unwrap().to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_port_on_every_address_conflicts_with_one_on_one() {
        let conflict = |a: &str, b: &str| a.parse::<HostPort>().unwrap().conflicts(&b.parse().unwrap());
        assert!(conflict("*:80", "127.0.0.1:80"));
        assert!(conflict("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!conflict("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!conflict("*:80", "*:80/udp"));
    }
}
