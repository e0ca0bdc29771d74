//! What a further name in `/etc/hosts` stands for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ExtraHost {
    Address(IpAddr),
    /// The host, as the container reaches it: the bridges of its networks, or 127.0.0.1 where it has the host's network.
    HostGateway,
}

const HOST_GATEWAY: &str = "host-gateway";

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected an address such as 10.89.7.5 or fd00::5, or `{HOST_GATEWAY}`")]
pub struct ExtraHostError;

impl FromStr for ExtraHost {
    type Err = ExtraHostError;

    fn from_str(text: &str) -> Result<ExtraHost, ExtraHostError> {
        match text {
            HOST_GATEWAY => Ok(ExtraHost::HostGateway),
            text => text.parse().map(ExtraHost::Address).map_err(|_| ExtraHostError),
        }
    }
}

impl fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtraHost::Address(address) => address.fmt(f),
            ExtraHost::HostGateway => f.pad(HOST_GATEWAY),
        }
    }
}

impl TryFrom<String> for ExtraHost {
    type Error = ExtraHostError;
    fn try_from(text: String) -> Result<Self, ExtraHostError> {
        text.parse()
    }
}

impl From<ExtraHost> for String {
    fn from(host: ExtraHost) -> String {
        host.to_string()
    }
}
