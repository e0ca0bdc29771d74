//! The vocabulary of Evenkeel: plain data without I/O and without a clock.
//!
//! Everything that travels between the parts is named here once. Types are valid by construction: text is
//! parsed into them at the edge ([`std::str::FromStr`]), and every one prints itself in the form in which it
//! is read back. What is stored on disk is JSON of these types.
//!
//! * [`id`], [`units`], [`image`], [`port`], [`network`], [`volume`], [`health`], [`restart`], [`resources`],
//!   [`security`], [`seccomp`], [`container`]: the nouns of the manifest, resolved.
//! * [`desired`]: a whole project as manifests declare it. [`actual`]: a whole host as the engine sees it.
//! * [`record`]: what the engine stores of each object; [`unreadable`]: those that cannot be read. [`status`]: what a monitor writes about its container.
//! * [`firewall`], [`names`], [`way_out`]: kernel and resolver state that follows from records, by pure functions.
//! * [`subnets`]: the subnets and addresses that planning chooses.
//! * [`lock`], [`follow`]: what image references stand for, once and for all, or as their tags move.
//! * [`host_config`]: what is true of a host and of no project.
//! * [`foreign`]: text of images and containers, before a person reads it.
//! * [`event`]: what happened, as it is told.
//! * [`garbage`]: what of a store goes when space is wanted.
//! * [`action`]: one engine operation, [`after`]: what it makes of a host. [`launch`]: what a monitor reads.

pub mod action;
pub mod actual;
pub mod after;
pub mod build;
pub mod container;
pub mod desired;
pub mod dockerfile;
pub mod event;
pub mod extra_host;
pub mod firewall;
pub mod follow;
pub mod foreign;
pub mod garbage;
pub mod health;
pub mod host_config;
pub mod id;
pub mod image;
pub mod launch;
pub mod lock;
pub mod names;
pub mod network;
pub mod orphan;
pub mod pairs;
pub mod paths;
pub mod port;
pub mod record;
pub mod reference;
pub mod resources;
pub mod restart;
pub mod seccomp;
pub mod security;
pub mod status;
pub mod subnets;
pub mod tmpfs;
pub mod units;
pub mod unreadable;
pub mod volume;
pub mod way_out;
