//! Messages with descriptors over a SOCK_SEQPACKET socket, and its address.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, getpeername, recv, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No message has more descriptors than standard input, output and error.
const MOST_DESCRIPTORS: usize = 3;

/// Longer messages are refused: a socket's default send buffer holds no more (`net.core.wmem_default`).
const LONGEST: usize = 160 * 1024;

/// The address of `name` in `directory`, however long its path is: sockaddr_un has room for 107 bytes (unix(7)), a
/// path through `/proc/self/fd` always fits. The directory must stay open while the address is used.
pub fn address(directory: &File, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

/// How the end of a connection is called whose owner says what he is: an address without a file (unix(7), abstract sockets),
/// of what nobody else has, our process and a count, and a word. The other end sees it from the first packet on, and one that
/// knows nothing of it does not look. Nothing listens there, so nobody can connect to it, from a container with the host's
/// network either (CVE-2020-15257 was about such an address that did listen).
pub fn introduction(who: &str) -> io::Result<SocketAddrUnix> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    Ok(SocketAddrUnix::new_abstract_name(format!("{INTRODUCED}{process}.{count}/{who}").as_bytes())?)
}

/// What the other end of a connection says that it is.
pub fn introduced(socket: impl AsFd) -> Option<String> {
    let peer = SocketAddrUnix::try_from(getpeername(socket).ok()??).ok()?;
    let name = std::str::from_utf8(peer.abstract_name()?).ok()?;
    Some(name.strip_prefix(INTRODUCED)?.split_once('/')?.1.to_owned())
}

const INTRODUCED: &str = "evenkeel/";

/// Opens a directory to look things up in.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

pub fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::ETOOMANYREFS));
    }
    sendmsg(socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message as it came. The descriptors are close-on-exec.
pub struct Packet {
    text: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Packet {
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.text)
    }
}

/// The next message; `None` at the end of the conversation.
pub fn receive(socket: impl AsFd) -> io::Result<Option<Packet>> {
    // The length first (MSG_PEEK | MSG_TRUNC, recv(2)), so that a monitor holds no buffer for the longest case.
    let (_, length) = retry(|| recv(&socket, &mut [0_u8; 1][..], RecvFlags::PEEK | RecvFlags::TRUNC))?;
    if length > LONGEST {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut text = vec![0; length.max(1)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = retry(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::from_raw_os_error(libc::ETOOMANYREFS));
    }
    text.truncate(got.bytes);
    Ok(Some(Packet { text, descriptors }))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (here, there) = pair();
        let text = "x".repeat(100_000);
        send(&here, &text, &[there.as_fd(), here.as_fd()]).unwrap();
        let packet = receive(&there).unwrap().unwrap();
        assert_eq!(packet.read::<String>().unwrap(), text);
        assert_eq!(packet.descriptors.len(), 2);
    }

    #[test]
    fn the_end_is_no_message_and_too_much_is_an_error() {
        let (here, there) = pair();
        assert_eq!(send(&here, &"x".repeat(LONGEST), &[]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        drop(here);
        assert!(receive(&there).unwrap().is_none());
    }
}
