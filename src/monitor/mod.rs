//! The process beside every container: restarts, logs, health checks, exec and names.
