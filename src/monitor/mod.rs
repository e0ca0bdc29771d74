//! The process beside every container: restarts, logs, health checks, exec and names.
//!
//! ```text
//!  launch.json ──> ┌──────────── evenkeel-monitor ────────────┐ ──> status.json
//!  control    <──> │  supervise: poll loop                    │ ──> container.log
//!                  │    events ──> machine ──> commands       │
//!                  └──┬───────────────────────────────────────┘
//!                     │ errand: a copy that starts a process (runtime), and ends
//!                     └──> first process of the container
//! ```
//!
//! * [`machine`] decides, purely. `supervise` turns kernel facts and requests into its events and carries out its
//!   commands; `errand`, `workload`, `output`, `probe`, `names` and `control` are what it has to do with, `telling` what it
//!   says of it in the journal.
//! * [`spawn`](mod@spawn), [`client`], [`liveness`](liveness()) and [`logs`] are for those on the outside: engine and command line.
//! * [`protocol`] is what both sides say.
//! * Not here: what must be there before a container starts (network, records, volumes, the OCI configuration) is the
//!   engine's, how a process gets into its container is [`crate::runtime`]'s.
//!
//! # Memory
//! What a monitor does not share with others, measured with the static release build for a container on a network that
//! has been started: 92 KiB. Of these 40 are tables that the program's own start relocates (names, dispatch tables, half
//! of them glibc's), 24 are written data of libc and std, 16 heap, 12 stack. Three things keep it there: link-time
//! optimisation (12 KiB of relocated tables), no cache of freed blocks (8 of heap), and giving back what the start has
//! used ([`crate::sys::memory`]). Fixed addresses would save most of the first part; every binary keeps its random ones.
//!
//! # Decisions
//! * A monitor that is killed leaves its container running: killing the workload with it (PR_SET_PDEATHSIG) would turn
//!   the loss of a bookkeeper into an outage. The lock is free then and the status not final, which the planner sees
//!   as [`Lost`](crate::model::actual::Liveness::Lost) and repairs. Before a new monitor starts the container, it ends
//!   whatever is left in its control group, so two never run side by side.
//! * A status file of a container that is over stays where it is until the run directory goes: `ps` needs it. After a
//!   reboot there is neither; then what is declared running is started anyway, so no durable copy is kept.

pub mod audience;
mod children;
pub mod client;
pub mod clock;
mod commands;
mod complaint;
mod config_file;
mod control;
mod conversation;
mod errand;
pub mod error;
pub mod hanging;
mod job;
mod launch_file;
pub mod liveness;
pub mod lock;
pub mod logs;
pub mod machine;
mod names;
mod netns;
mod output;
mod packet;
mod probe;
pub mod process;
pub mod protocol;
mod requests;
pub mod spawn;
mod status_file;
mod supervise;
mod telling;
pub mod workload;

pub use client::Client;
pub use error::MonitorError;
pub use liveness::liveness;
pub use spawn::{Started, spawn};
