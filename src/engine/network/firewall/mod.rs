//! The firewall: published ports, masquerade and isolation, as one table of nftables per state root.
//!
//! A [`Ruleset`] follows from the records; [`set`] makes the kernel have it, in one transaction over netlink, and
//! [`observe`] says which one the kernel has. [`rules`] says what packets meet, chain by chain.
//!
//! # How a change by others is seen
//!
//! The table holds two sets that no rule uses. `record` has the ruleset itself as JSON, in pieces, as user data of its
//! elements. `digest` has, in the same way, the SHA-256 of everything else in the table as the kernel lists it. So an
//! observation lists the table and compares one digest: a rule, chain, set or element that was added, removed or
//! changed by anybody, by whatever means, is seen, and nothing depends on how a kernel writes an expression down.
//!
//! ```text
//!   generation n      ── transaction 1: the whole table, only if the generation is still n ──> n + 1
//!   list the table, digest it
//!                     ── transaction 2: the digest, only if the generation is still n + 1 ───> n + 2
//! ```
//!
//! Every change of any table raises the generation, so nobody can slip in between; whoever did is answered by
//! beginning again. A crash between the two leaves right rules without a digest: the next observation says "changed",
//! and they are set again.
//!
//! # Decisions
//!
//! Rules refer to links by name, never by index, so that it does not matter whether a bridge is there yet. Ports are
//! elements of maps, not rules of their own: three hundred ports cost a packet as little as one.
//!
//! The digest is taken of what the kernel lists, not of what was sent: kernels differ in how they list an expression,
//! and a comparison with what was sent would then see changes for ever.

use std::io;
use std::time::Duration;

use crate::model::firewall::Ruleset;
use crate::model::id::RootTag;
use crate::model::network::table_name;

use super::NetworkError;
use super::netlink::Tries;

mod conversations;
mod expression;
mod kernel;
mod record;
pub mod rules;
mod table;

use kernel::Kernel;
use table::Table;

/// How long a transaction is begun again that others' changes disturb.
const SET_PATIENCE: Duration = Duration::from_secs(5);

/// What the kernel says of a generation that is not the current one any more.
const ERESTART: i32 = 85;

/// The kernel has the rules of this ruleset and no others of ours. An empty one takes the table away.
pub fn set(tag: &RootTag, ruleset: &Ruleset) -> Result<(), NetworkError> {
    let name = table_name(tag);
    let replaced = replace(&name, tag, ruleset);
    replaced.map_err(|source| NetworkError::Firewall { verb: "replace", table: name, source })
}

/// The ruleset that is in the kernel: the empty one where there is no table, and `None` where somebody changed
/// anything, or another version of Evenkeel made it of other rules.
pub fn observe(tag: &RootTag) -> Result<Option<Ruleset>, NetworkError> {
    let name = table_name(tag);
    let listed = Kernel::open().and_then(|mut kernel| kernel.list(&name));
    let listed = listed.map_err(|source| NetworkError::Firewall { verb: "list", table: name, source })?;
    Ok(match listed {
        None => Some(Ruleset::default()),
        Some(listed) if listed.is_intact() => record::read(&listed.record),
        Some(_) => None,
    })
}

fn replace(name: &str, tag: &RootTag, ruleset: &Ruleset) -> io::Result<()> {
    let mut kernel = Kernel::open()?;
    // Whatever the table was, what it remembers is the best that is known of where packets went.
    let old = kernel.list(name)?.and_then(|listed| record::read(&listed.record)).unwrap_or_default();
    match *ruleset == Ruleset::default() {
        true => kernel.commit(None, |batch| table::remove(batch, name))?,
        false => commit(&mut kernel, name, &rules::table(tag, ruleset)?)?,
    }
    kernel.forget(&old, ruleset)
}

/// Both transactions, until nobody comes in between.
fn commit(kernel: &mut Kernel, name: &str, wanted: &Table) -> io::Result<()> {
    let mut tries = Tries::until(SET_PATIENCE);
    loop {
        match commit_once(kernel, name, wanted) {
            Err(error) if is_disturbed(&error) && tries.again() => {}
            Err(error) if is_disturbed(&error) => {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "others change the firewall again and again"));
            }
            other => return other,
        }
    }
}

fn commit_once(kernel: &mut Kernel, name: &str, wanted: &Table) -> io::Result<()> {
    let generation = kernel.generation()?;
    kernel.commit(Some(generation), |batch| table::replace(batch, name, wanted))?;
    let listed = kernel.list(name)?.ok_or_else(|| io::Error::from_raw_os_error(ERESTART))?;
    // Zero is skipped when the counter wraps.
    let next = generation.checked_add(1).unwrap_or(1);
    kernel.commit(Some(next), |batch| table::seal(batch, name, listed.digest))
}

/// Whether the generation was not the expected one any more.
fn is_disturbed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ERESTART)
}
