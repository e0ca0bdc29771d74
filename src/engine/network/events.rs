//! Being told when somebody touches links, addresses or firewall rules of the host.
//!
//! The kernel multicasts every change (rtnetlink(7), nftables' NFNLGRP_NFTABLES). What changed is not read: the next
//! observation sees it, together with everything that happened at the same time. Changes inside a container's
//! namespace are not multicast here; the loop's timer finds them.

use std::io;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, poll};

/// RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR and RTNLGRP_IPV6_IFADDR of linux/rtnetlink.h.
const LINKS_AND_ADDRESSES: [u32; 3] = [1, 5, 9];
/// NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const NFTABLES: u32 = 7;

/// Two sockets that the kernel sends changes to.
pub struct Events {
    sockets: [Socket; 2],
}

impl Events {
    /// Listens in the network namespace of the calling thread, from now on.
    pub fn open() -> io::Result<Events> {
        Ok(Events { sockets: [listen(NETLINK_ROUTE, &LINKS_AND_ADDRESSES)?, listen(NETLINK_NETFILTER, &[NFTABLES])?] })
    }

    /// Waits for a change, and forgets all that have come until now.
    pub fn wait(&self) -> io::Result<()> {
        let mut polled = self.sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
        loop {
            match poll(&mut polled, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.sockets.iter().for_each(drain);
        Ok(())
    }
}

fn listen(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// Until there is nothing more. ENOBUFS says that messages were lost, which is a change like any other.
fn drain(socket: &Socket) {
    let mut buffer = [0u8; 8 << 10];
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
