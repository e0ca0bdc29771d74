//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container.
//!
//! They are files in the container's own directory, mounted over the image's. They are written in place, so
//! that a mount made earlier shows the new content, and so that whoever reads one meanwhile finds something whole.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::engine::error::{At, EngineError};
use crate::engine::files::{create_directories, write_shared};
use crate::engine::records;
use crate::model::extra_host::ExtraHost;
use crate::model::network::NetworkMode;
use crate::model::paths::Paths;
use crate::model::record::ContainerRecord;
use crate::model::way_out::WayOut;

/// Where the monitor answers inside a network namespace. Docker's address, so that software which knows it
/// (nginx's `resolver 127.0.0.11`) works unchanged.
pub const RESOLVER_ADDRESS: &str = "127.0.0.11";

/// The files, by the place at which they are mounted.
pub const MOUNTED: [(&str, &str); 3] =
    [("/etc/hosts", "hosts"), ("/etc/hostname", "hostname"), ("/etc/resolv.conf", "resolv.conf")];

/// The directory of the files inside a container's directory.
pub fn directory(container: &Path) -> PathBuf {
    container.join("files")
}

/// Writes the three files for `record` into `container`, its directory.
pub fn write(container: &Path, record: &ContainerRecord, paths: &Paths) -> Result<(), EngineError> {
    let directory = directory(container);
    create_directories(&directory)?;
    let hostname = hostname(record);
    let contents = [
        ("hosts", hosts(record, &hostname, &gateways(record, paths)?)),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf(record, &host_resolv_conf())),
    ];
    for (name, content) in contents {
        let path = directory.join(name);
        rewrite(&path, &content)?;
    }
    Ok(())
}

/// The file is there and holds this text. One that holds it is left alone. Of another the old text is never cut off before
/// the new one is there: a program that finds resolv.conf empty asks the local machine (resolv.conf(5)), and on a full disk
/// it would stay so. What the new text is shorter by are empty lines until the file is cut.
///
/// The container may write to it, so its length says nothing of what it takes to read it, and a lease on it or a program
/// in it must not hold us up (fcntl(2), F_SETLEASE; open(2), ETXTBSY). Then a new file takes its place at the next start.
fn rewrite(path: &Path, text: &str) -> Result<(), EngineError> {
    const MOST_PADDING: usize = 64 << 10;
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EWOULDBLOCK | libc::ETXTBSY)) => {
            return write_shared(path, text.as_bytes());
        }
        opened => opened.at("open", path)?,
    };
    let found = file.metadata().at("look at", path)?.len();
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    let mut bytes = vec![0; text.len()];
    if found == text.len() && file.read_exact_at(&mut bytes, 0).is_ok() && bytes == text.as_bytes() {
        return Ok(());
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(text.len().max(found.min(MOST_PADDING)), b'\n');
    file.write_all_at(&bytes, 0).and_then(|()| file.set_len(text.len() as u64)).at("write", path)
}

/// The host, as the container reaches it.
fn gateways(record: &ContainerRecord, paths: &Paths) -> Result<Vec<IpAddr>, EngineError> {
    let lender = record.network_of.as_ref().map(|id| records::container(paths, id)).transpose()?.flatten();
    let record = lender.as_ref().unwrap_or(record);
    if record.spec.network == NetworkMode::Host {
        return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
    }
    let networks = records::networks_of(paths, record)?;
    // Of internal networks one is enough: nobody knows whether the host is to be seen there.
    let way_out = WayOut::of(record, &networks);
    let first = || networks.iter().min_by_key(|network| &network.name);
    let v4 = way_out.v4.or_else(first);
    let v6 = way_out.v6.or(v4);
    let subnets = [v4.map(|network| network.subnet), v6.and_then(|network| network.subnet6)];
    Ok(subnets.into_iter().flatten().map(|subnet| subnet.gateway()).collect())
}

/// The declared hostname, else the instance's name with the dot made a hyphen.
pub fn hostname(record: &ContainerRecord) -> String {
    record.spec.hostname.clone().unwrap_or_else(|| record.instance.to_string().replace('.', "-"))
}

/// The host's resolvers, for names that are not ours.
pub fn upstreams(record: &ContainerRecord) -> Vec<IpAddr> {
    match record.spec.dns.is_empty() {
        true => name_servers(&host_resolv_conf()),
        false => record.spec.dns.clone(),
    }
}

fn host_resolv_conf() -> String {
    // A host without the file has no resolvers (resolv.conf(5) then means the local machine).
    fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    values(resolv_conf, &["nameserver"]).filter_map(|words| words.first()?.parse().ok()).collect()
}

/// What follows each of these keywords of resolv.conf(5), in words.
fn values<'a>(resolv_conf: &'a str, keywords: &[&str]) -> impl Iterator<Item = Vec<&'a str>> {
    resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        keywords.contains(&words.next()?).then(|| words.collect())
    })
}

fn hosts(record: &ContainerRecord, hostname: &str, gateways: &[IpAddr]) -> String {
    let mut lines = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let own = record.addresses.values().flat_map(|a| [Some(IpAddr::from(a.v4)), a.v6.map(IpAddr::from)]);
    let own: Vec<IpAddr> = own.flatten().collect();
    let none: [IpAddr; 1] = [IpAddr::from([127, 0, 1, 1])];
    for address in if own.is_empty() { none.as_slice() } else { &own } {
        push(&mut lines, address, hostname);
    }
    for (name, host) in &record.spec.extra_hosts {
        match host {
            ExtraHost::Address(address) => push(&mut lines, address, name),
            ExtraHost::HostGateway => gateways.iter().for_each(|address| push(&mut lines, address, name)),
        }
    }
    lines
}

fn push(lines: &mut String, address: &IpAddr, name: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(lines, "{address}\t{name}");
}

fn resolv_conf(record: &ContainerRecord, host: &str) -> String {
    let mut lines = String::new();
    let shared = matches!(record.spec.network, NetworkMode::Networks(_) | NetworkMode::Container(_));
    let servers = match (shared, record.spec.dns.is_empty()) {
        (true, _) => vec![RESOLVER_ADDRESS.to_owned()],
        (false, false) => record.spec.dns.iter().map(IpAddr::to_string).collect(),
        (false, true) => name_servers(host).iter().map(IpAddr::to_string).collect(),
    };
    for server in servers {
        lines.push_str(&format!("nameserver {server}\n"));
    }
    match record.spec.dns_search.is_empty() {
        false => lines.push_str(&format!("search {}\n", record.spec.dns_search.join(" "))),
        // `domain` is the older word for one; the last of both counts.
        true => lines
            .extend(values(host, &["search", "domain"]).last().map(|words| format!("search {}\n", words.join(" ")))),
    }
    if shared {
        // A name without a dot is one of ours; asking the upstreams first would leak it.
        lines.push_str("options ndots:0\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::{AfterEnd, ContainerSpec};
    use crate::model::id::Ids;
    use crate::model::image::ImageSource;
    use crate::model::record::Addresses;

    fn record(network: NetworkMode) -> ContainerRecord {
        let mut ids = Ids::from_seed(1);
        let spec = ContainerSpec { network, ..ContainerSpec::of(ImageSource::Reference("x".into())) };
        ContainerRecord {
            version: 1,
            id: ids.container(),
            project: "shop".parse().unwrap(),
            instance: "web.2".parse().unwrap(),
            spec,
            image: None,
            addresses: [(ids.network(), Addresses { v4: [10, 89, 0, 2].into(), v6: None })].into(),
            network_of: None,
            users: None,
            way_out: Default::default(),
            after_end: AfterEnd::Keep,
            refused: None,
            before: None,
        }
    }

    #[test]
    fn a_container_finds_itself_and_its_declared_hosts() {
        let mut record = record(NetworkMode::Networks([].into()));
        record.spec.extra_hosts.insert("db.example".into(), ExtraHost::Address([192, 0, 2, 1].into()));
        record.spec.extra_hosts.insert("host.internal".into(), ExtraHost::HostGateway);
        let gateways = ["10.89.0.1", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let hosts = hosts(&record, &hostname(&record), &gateways);
        assert!(hosts.ends_with("10.89.0.1\thost.internal\nfd00::1\thost.internal\n"), "{hosts}");
        assert!(hosts.contains("10.89.0.2\tweb-2\n"), "{hosts}");
        assert!(hosts.contains("192.0.2.1\tdb.example\n"), "{hosts}");
    }

    #[test]
    fn a_file_that_is_read_while_it_is_rewritten_is_never_found_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let texts = ["nameserver 127.0.0.11\n", "nameserver 192.0.2.53\nsearch example.org\n"];
        rewrite(&path, texts[0]).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (0..4000).for_each(|turn| rewrite(&path, texts[turn % 2]).unwrap());
            });
            while !writer.is_finished() {
                let found = fs::read_to_string(&path).unwrap();
                assert!(found.contains("nameserver "), "{found:?}");
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), texts[1]);
    }

    #[test]
    fn a_file_that_is_as_it_should_be_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        rewrite(&path, "127.0.0.1\tlocalhost\n").unwrap();
        File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        rewrite(&path, "127.0.0.1\tlocalhost\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), std::time::SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_file_is_made_even_where_it_has_no_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        rewrite(&path, "").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_longer_than_memory_is_written_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        // As a container can make it: without a byte behind its length.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        rewrite(&path, "127.0.0.1\tlocalhost\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1\tlocalhost\n");
    }

    #[test]
    fn only_a_namespace_of_ours_uses_our_resolver() {
        let host = "search example.org\nnameserver 192.0.2.53\n";
        let ours = resolv_conf(&record(NetworkMode::Networks([].into())), host);
        assert_eq!(ours, "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n");
        let hosts = resolv_conf(&record(NetworkMode::Host), host);
        assert_eq!(hosts, "nameserver 192.0.2.53\nsearch example.org\n");
    }

    #[test]
    fn the_hosts_file_is_read_as_its_own_resolver_reads_it() {
        let host = "# nameserver 192.0.2.1\nnameserver\t127.0.0.53 trailing\nnameservers 192.0.2.2\n nameserver ::1\n\
                    search old.example\ndomain example.org\n";
        assert_eq!(name_servers(host), ["127.0.0.53", "::1"].map(|address| address.parse::<IpAddr>().unwrap()));
        let hosts = resolv_conf(&record(NetworkMode::Host), host);
        assert_eq!(hosts, "nameserver 127.0.0.53\nnameserver ::1\nsearch example.org\n");
    }
}
