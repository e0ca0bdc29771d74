//! What a monitor says on its standard error, a file in the run directory.

use std::fmt::Display;
use std::io::{self, Write};

/// Says a line, if it can be said. `eprintln!` would end the process where it cannot be: on a full `/run` of all places,
/// where the container needs whoever reads its pipes.
pub(super) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
