//! The connection through which links of the host's network namespace are changed.
//!
//! One [`Links`] serves all threads of an execution. It is the only home of async: rtnetlink's connection lives on
//! a runtime of the calling threads, and whoever waits for an answer drives it meanwhile.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::{AddressMessageBuilder, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::runtime::{Builder, Runtime};

use super::NetworkError;
use super::attachment::Attachment;
use super::netlink::Netlink;

/// A connection to the kernel, for the network namespace of the thread that opened it.
pub struct Links {
    runtime: Runtime,
    handle: Handle,
    looks: Mutex<Netlink>,
}

impl Links {
    pub fn open() -> Result<Links, NetworkError> {
        let runtime = Builder::new_current_thread().enable_io().build().map_err(NetworkError::Connect)?;
        let handle = {
            let _entered = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::Connect)?;
            runtime.spawn(connection);
            handle
        };
        let looks = Mutex::new(Netlink::open(NETLINK_ROUTE).map_err(NetworkError::Connect)?);
        Ok(Links { runtime, handle, looks })
    }

    /// What `read` finds in the host's namespace.
    pub(super) fn look<T>(&self, read: impl FnOnce(&mut Netlink) -> io::Result<T>) -> Result<T, NetworkError> {
        // A thread that panicked left at most answers that nobody waits for; the next one skips them.
        let mut netlink = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut netlink).map_err(|source| NetworkError::Look { place: "the host".to_owned(), source })
    }

    /// Makes a bridge that is down. Its hardware address is set, so that it does not follow the lowest of its ports.
    pub(super) fn create_bridge(&self, name: &str, hardware: [u8; 6], mtu: u32) -> Result<(), NetworkError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name).address(hardware.to_vec()).mtu(mtu).build();
        self.run("create", name, self.handle.link().add(message).execute())
    }

    /// Makes both ends of a pair in one message: the host's end is a port of the bridge and up, the other is born
    /// inside the namespace, where it must be raised (a peer cannot be up before its other end is registered).
    /// Moving it there afterwards would wait for two RCU grace periods.
    pub(super) fn create_pair(
        &self,
        attachment: &Attachment,
        bridge: u32,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let inside = LinkUnspec::new_with_name(&attachment.interface)
            .address(attachment.hardware.to_vec())
            .mtu(attachment.mtu)
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let message = LinkVeth::new(&attachment.link, &attachment.interface)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
            .mtu(attachment.mtu)
            .controller(bridge)
            .up()
            .build();
        self.run("create", &attachment.link, self.handle.link().add(message).execute())
    }

    /// Changes what the message names of a link that exists.
    pub(super) fn change(&self, name: &str, message: LinkMessage) -> Result<(), NetworkError> {
        self.run("change", name, self.handle.link().change(message).execute())
    }

    /// The link is gone, the other end of a pair and the addresses of a bridge with it; gone already is fine. Says whether it
    /// was there.
    ///
    /// Removing one link waits for several RCU grace periods, tens of milliseconds, while it holds the lock of all
    /// links (RTNL). A whole group waits only once: so the link is put into the group of the doomed, and then the
    /// group is removed. While one thread waits, the others gather there, and whoever is next takes them all.
    pub fn remove(&self, name: &str) -> Result<bool, NetworkError> {
        let doomed = LinkUnspec::new_with_name(name).link_group(DOOMED).build();
        let was_there = was_there(self.run("remove", name, self.handle.link().change(doomed).execute()))?;
        self.remove_doomed(name)?;
        Ok(was_there)
    }

    /// Links that a crash left in the group of the doomed are gone, before anybody takes one into use again.
    pub fn finish_removals(&self) -> Result<(), NetworkError> {
        self.remove_doomed("links that were about to be removed")
    }

    fn remove_doomed(&self, name: &str) -> Result<(), NetworkError> {
        let group = LinkMessageBuilder::<LinkUnspec>::default().link_group(DOOMED).build();
        was_there(self.run("remove", name, self.handle.link().del_with_message(group).execute())).map(drop)
    }

    pub(super) fn add_address(&self, name: &str, index: u32, at: (IpAddr, u8)) -> Result<(), NetworkError> {
        let mut request = self.handle.address().add(index, at.0, at.1).replace();
        *request.message_mut() = address_message(index, at);
        self.run("add an address to", name, request.execute())
    }

    fn run(
        &self,
        verb: &'static str,
        link: &str,
        work: impl Future<Output = Result<(), rtnetlink::Error>>,
    ) -> Result<(), NetworkError> {
        self.runtime.block_on(work).map_err(|error| {
            let source = match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other),
            };
            NetworkError::Link { verb, link: link.to_owned(), source }
        })
    }
}

/// The group of links that are about to be removed (netdevice's `group`, an arbitrary number): "ek" and "rm".
const DOOMED: u32 = u32::from_be_bytes(*b"ekrm");

/// What is not there need not be removed.
fn was_there(result: Result<(), NetworkError>) -> Result<bool, NetworkError> {
    match result {
        Err(NetworkError::Link { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        other => other.map(|()| true),
    }
}

/// How an address is added: usable at once. Duplicate address detection (RFC 4862) would hold an IPv6 address back
/// for a second; ours are unique by their records.
pub(super) fn address_message(index: u32, (address, prefix): (IpAddr, u8)) -> AddressMessage {
    let mut message = match address {
        IpAddr::V4(v4) => AddressMessageBuilder::<std::net::Ipv4Addr>::new().index(index).address(v4, prefix).build(),
        IpAddr::V6(v6) => AddressMessageBuilder::<std::net::Ipv6Addr>::new().index(index).address(v6, prefix).build(),
    };
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// Flags of a request that makes something or finds it made.
pub(super) const PUT: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
