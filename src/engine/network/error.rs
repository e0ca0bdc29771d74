//! What can go wrong with networks. Each variant names its object.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum NetworkError {
    #[error("cannot open a netlink connection")]
    Connect(#[source] io::Error),
    #[error("cannot read the links, addresses and routes of {place}")]
    Look {
        place: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {verb} link `{link}`")]
    Link {
        verb: &'static str,
        link: String,
        #[source]
        source: io::Error,
    },
    #[error("`{link}` is a link of kind `{kind}` that Evenkeel did not make")]
    Foreign { link: String, kind: String },
    #[error("cannot attach `{link}`: its bridge `{bridge}` is not there")]
    NoBridge { link: String, bridge: String },
    #[error("cannot {verb} the network namespace `{path}`")]
    Namespace {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up `{interface}` in the network namespace `{path}`")]
    Interface {
        interface: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot set the kernel setting `{key}`")]
    Sysctl {
        key: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {verb} the firewall table `{table}`")]
    Firewall {
        verb: &'static str,
        table: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot list the listening sockets")]
    Sockets(#[source] io::Error),
    #[error("cannot {verb} the name table `{path}`")]
    Names {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
