//! Observe, plan, execute, report; and the loop of `watch`.
//!
//! * [`converge`]: observe and plan. [`execute`](mod@execute): the steps of a plan, independent ones at once.
//!   [`report`]: how they went. [`fetch`](mod@fetch): images that are fetched before. [`waits`]: what goes on meanwhile.
//! * [`watch`]: rounds of all that, for as long as the service runs.

pub mod converge;
pub mod execute;
pub mod fetch;
pub mod report;
pub mod waits;
pub mod watch;
