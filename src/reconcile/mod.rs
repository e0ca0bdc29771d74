//! Observe, plan, execute, report; and the loop of `watch`.
//!
//! * [`execute`](mod@execute): the steps of a plan, independent ones at once. [`report`]: how they went.

pub mod execute;
pub mod report;
