//! Health checks: what is asked, how often, and what the answers add up to.

use serde::{Deserialize, Serialize};

use super::units::Timespan;

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A command inside the container; status 0 is healthy. A shell line is `["/bin/sh", "-c", LINE]`.
    Command(Vec<String>),
    /// `GET` on this port of the container; a status of 200 to 399 is healthy (as kubelet counts).
    Http { port: u16, path: String },
    /// A connection to this port of the container.
    Tcp { port: u16 },
    /// No check, whatever the image says.
    None,
}

/// A health check with its timing, in the words of Compose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Healthcheck {
    pub probe: Probe,
    pub interval: Timespan,
    pub timeout: Timespan,
    /// Consecutive failures that make it unhealthy.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period: Timespan,
    /// The interval until the first success within the start period.
    pub start_interval: Timespan,
}

impl Healthcheck {
    /// Docker's defaults, except that a start is looked at every second instead of every five: an update that
    /// waits for health should not wait for a clock.
    pub fn of(probe: Probe) -> Healthcheck {
        Healthcheck {
            probe,
            interval: Timespan::from_secs(30),
            timeout: Timespan::from_secs(30),
            retries: 3,
            start_period: Timespan::ZERO,
            start_interval: Timespan::from_secs(1),
        }
    }
}

/// What the health check says of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}
