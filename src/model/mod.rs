//! The vocabulary of Evenkeel: plain data without I/O and without a clock.
