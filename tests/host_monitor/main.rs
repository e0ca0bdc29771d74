//! Monitors with real containers: each test makes a bundle from the host's static busybox, starts a monitor for it, and
//! looks at processes, files and sockets. Needs root.

mod control;
mod fixture;
mod health;
mod life;
mod logs;
mod names;
mod start;
