//! How a transfer is told: a bar for each layer on a terminal, a line for each elsewhere, nothing beside JSON.

use std::io::{self, IsTerminal};

use indicatif::MultiProgress;

use crate::cli::layers::Layers;
use crate::cli::output::{Format, Output};
use crate::engine::image::progress::Event;
use crate::engine::image::{Progress, Silent};

/// What suits whoever reads standard error.
pub fn progress(output: &Output) -> Box<dyn Progress + Send> {
    match output.format() {
        Format::Json => Box::new(Silent),
        Format::Text if io::stderr().is_terminal() => Box::new(Layers::among(&MultiProgress::new())),
        Format::Text => Box::new(Lines),
    }
}

/// One line when something is done with a layer: a log has no use for how far it is.
struct Lines;

impl Progress for Lines {
    fn report(&self, event: Event<'_>) {
        let line = match event {
            Event::Present { layer } => format!("layer {layer}: already here"),
            Event::Unpacked { layer } => format!("layer {layer}: done"),
            Event::Stored { layer, how } => format!("layer {layer}: {how}"),
            Event::Retrying { layer, reason } => format!("layer {layer}: {reason}, trying again"),
            Event::Output { line } => line.to_owned(),
            Event::Read { .. } | Event::Sent { .. } | Event::Step { .. } => return,
        };
        anstream::eprintln!("{line}");
    }
}
