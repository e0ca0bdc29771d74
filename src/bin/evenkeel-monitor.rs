//! The `evenkeel-monitor` process: one beside every container. See [`evenkeel::monitor`].

fn main() {}
