//! The planner: `(Desired, Actual, Policy) -> Plan`, pure and deterministic.
