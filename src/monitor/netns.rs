//! Making sockets in another network namespace: a socket belongs to the namespace in which it was made, whatever its
//! process does later (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::path::Path;

use crate::sys::namespace::setns;

/// This process's own network namespace, to come back to.
#[derive(Debug)]
pub struct Home(File);

impl Home {
    pub fn open() -> io::Result<Home> {
        File::open("/proc/self/ns/net").map(Home)
    }

    /// Runs `make` inside the network namespace at `path`, or right here where there is none.
    pub fn within<T>(&self, path: Option<&Path>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(path) = path else { return make() };
        setns(std::os::fd::AsFd::as_fd(&File::open(path)?), libc::CLONE_NEWNET)?;
        let made = make();
        let back = setns(std::os::fd::AsFd::as_fd(&self.0), libc::CLONE_NEWNET);
        // It was entered by the same right a moment ago, and the descriptor is open. To go on in the wrong namespace
        // would answer the wrong network.
        back.expect("a process can return to its own network namespace");
        made
    }
}
