//! Quantities, numbers of the kernel and addresses as words of the manifest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::manifest::read::{Bare, Word, word, word_schema};
use crate::manifest::suggest::{key_text, nearest};
use crate::model::extra_host::ExtraHost;
use crate::model::follow::Window;
use crate::model::network::Subnet;
use crate::model::port::{HostAddress, HostPort};
use crate::model::tmpfs::TmpfsOption;
use crate::model::units::{ByteSize, Cpus, FileMode, Signal, Timespan};

word!(Timespan, "a time span", Nothing, "^[0-9]+ *[A-Za-z]+( *[0-9]+ *[A-Za-z]+)*$");
word!(ByteSize, "a size", Integers, r"^[0-9]+(\.[0-9]+ *[kKmMgGtT]([iI]?[bB])?| *([kKmMgGtT]([iI]?[bB])?|[bB])?)$");
word!(Cpus, "a number of processors", Numbers, "^[0-9]+(\\.[0-9]{0,3})?$");
word!(FileMode, "a file mode", Nothing, "^[0-7]{1,5}$");
word!(Window, "a time of day", Nothing, "^([A-Za-z,-]+ +)?[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}( +UTC)?$");
word!(ExtraHost, "an address", Nothing, "^([0-9A-Fa-f.:]+|host-gateway)$");
word!(TmpfsOption, "an option of a tmpfs", Nothing, "^[a-z_]+(=.+)?$");
word!(Subnet, "a subnet", Nothing, "^[0-9A-Fa-f.:]+/[0-9]+$");

impl Word for Signal {
    const NOUN: &'static str = "a signal";
    const BARE: Bare = Bare::Integers;
    fn parse(text: &str) -> Result<Signal, String> {
        text.parse::<Signal>().map_err(|error| error.to_string())
    }
    fn meant(text: &str) -> Option<String> {
        let names: Vec<String> = (1..=31).filter_map(Signal::from_number).map(|signal| signal.to_string()).collect();
        let upper = text.to_ascii_uppercase();
        let whole = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        nearest(&whole, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"))
    }
}
word_schema!(Signal, "a signal", Integers, "^[A-Za-z0-9+]+$");

impl Word for HostPort {
    const NOUN: &'static str = "a port of the host";
    const BARE: Bare = Bare::Integers;
    fn parse(text: &str) -> Result<HostPort, String> {
        match text.parse::<HostPort>() {
            Ok(HostPort { address: HostAddress::One(IpAddr::V6(Ipv6Addr::LOCALHOST)), .. }) => {
                Err("nothing can be published there: the kernel lets no packet leave IPv6's loopback".to_owned())
            }
            other => other.map_err(|error| error.to_string()),
        }
    }
    /// Compose's `"127.0.0.1:8080:80/udp"`.
    fn entry_of(item: &str) -> Option<String> {
        let (rest, protocol) = match item.split_once('/') {
            Some((rest, protocol)) => (rest, format!("/{protocol}")),
            None => (item, String::new()),
        };
        let (host, container) = rest.rsplit_once(':').unwrap_or((rest, rest));
        let (host, container) = (host.replace("0.0.0.0:", "*:"), container.parse::<u16>().ok()?);
        Some(format!("{} = {container}", key_text(&format!("{host}{protocol}"))))
    }
    fn meant(text: &str) -> Option<String> {
        if let Some(port) = text.strip_prefix("localhost:").or(text.strip_prefix("[::1]:")) {
            return Some(format!("write {port}: a port without an address is on 127.0.0.1"));
        }
        let digit_at = |end: Option<char>| end.is_some_and(|c| c.is_ascii_digit());
        if text.split_once('-').is_some_and(|(a, b)| digit_at(a.chars().next_back()) && digit_at(b.chars().next())) {
            return Some("there are no ranges: write an entry for each port".to_owned());
        }
        text.contains(':').then(|| HostPort::entry_of(text)).flatten().map(|entry| format!("did you mean `{entry}`?"))
    }
}
word_schema!(HostPort, "a port of the host", Integers, "^(.*:)?[0-9]+(/(tcp|udp))?$");

macro_rules! address {
    ($type:ty, $noun:literal, $example:literal) => {
        impl Word for $type {
            const NOUN: &'static str = $noun;
            const BARE: Bare = Bare::Nothing;
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| concat!("expected ", $noun, " such as ", $example).to_owned())
            }
        }
    };
}
address!(IpAddr, "an address", "10.89.7.5 or fd00::5");
address!(Ipv4Addr, "an IPv4 address", "10.89.7.5");
address!(Ipv6Addr, "an IPv6 address", "fd00::5");
