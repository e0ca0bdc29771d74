//! Evenkeel keeps one Linux host at the state that TOML manifests declare.
//!
//! This crate is the whole of it: library and three binaries. The modules read in the order in which a
//! manifest travels:
//!
//! ```text
//! manifest ──> model::Desired ─┐
//!                              ├─ plan ──> Plan ── reconcile ──> engine::perform ──> monitor ──> runtime ──> sys
//! engine::observe ─> model::Actual ─┘
//! ```
//!
//! * [`manifest`] turns TOML text into a [`model`] of what is wanted, or into problems with their places.
//! * [`model`] is the vocabulary: plain data, no I/O, no clock.
//! * [`plan`] compares wanted and real, field by field. It is pure.
//! * [`reconcile`] observes, plans, executes and reports; `watch` repeats that.
//! * [`engine`] is the only part that changes the host: images, storage, networks, containers.
//! * [`monitor`] is the small process beside every container: restarts, logs, health, names.
//! * [`journal`] tells what happened, whoever did it.
//! * [`runtime`] turns a bundle into a process, as the OCI runtime specification describes it.
//! * [`sys`] wraps the system calls that `nix` and `rustix` lack. It is the only home of `unsafe`.
//! * [`cli`] is one file per command.

pub mod cli;
pub mod engine;
pub mod journal;
pub mod manifest;
pub mod model;
pub mod monitor;
pub mod plan;
pub mod reconcile;
pub mod runtime;
pub mod sys;
