//! Observe, plan, execute, report; and the loop of `watch`.
