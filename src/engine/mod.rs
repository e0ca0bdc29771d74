//! The engine: the only part of Evenkeel that changes the host.
