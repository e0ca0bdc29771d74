//! Observe, then plan.

use crate::engine::{Engine, Scope};
use crate::model::desired::Desired;
use crate::model::id::Ids;
use crate::plan::{Plan, Policy, plan};

/// What to look at for `desired`.
pub fn scope(desired: &Desired) -> Scope {
    Scope { images: desired.images.clone(), bases: desired.lock.bases.clone(), ..Scope::default() }
}

/// Looks at the host and plans for it. `ids` comes from outside: a random source belongs to the caller.
pub fn plan_now<E: Engine>(engine: &E, desired: &Desired, policy: &Policy, ids: &mut Ids) -> Result<Plan, E::Error> {
    let actual = engine.observe(&scope(desired))?;
    Ok(plan(desired, &actual, policy, ids))
}
