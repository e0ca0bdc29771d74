//! The process beside every container: restarts, logs, health checks, exec and names.

pub mod client;
pub mod clock;
pub mod error;
pub mod liveness;
pub mod lock;
pub mod logs;
pub mod machine;
mod packet;
pub mod protocol;
pub mod spawn;

pub use client::Client;
pub use error::MonitorError;
pub use liveness::liveness;
pub use spawn::{Started, spawn};
