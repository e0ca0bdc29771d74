//! How far the layers of an image are, while it is fetched: a bar for each on a terminal.
//!
//! Elsewhere only what somebody may have to act on is said: that a connection broke and is tried again. What a build
//! does is said everywhere, instruction by instruction.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::engine::image::Progress;
use crate::engine::image::progress::Event;
use crate::model::foreign::tamed_line;

/// Bars among the lines of the steps that run.
pub struct Layers {
    lines: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Layers {
    pub fn among(lines: &MultiProgress) -> Layers {
        Layers { lines: lines.clone(), bars: Mutex::default() }
    }

    fn say(&self, text: &str) {
        if io::stderr().is_terminal() {
            // A line that cannot be drawn must not fail the pull.
            let _ = self.lines.println(text);
        } else {
            tracing::warn!("{text}");
        }
    }

    /// What a build does, beside the moving lines of a terminal.
    fn tell(&self, text: &str) {
        if io::stderr().is_terminal() {
            // A line that cannot be drawn must not fail the build.
            let _ = self.lines.println(text);
        } else {
            anstream::eprintln!("{text}");
        }
    }

    fn bar(&self, layer: &str, total: Option<u64>) -> ProgressBar {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        bars.entry(layer.to_owned()).or_insert_with(|| self.lines.add(new_bar(layer, total))).clone()
    }
}

fn new_bar(layer: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "    {msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}"),
        None => (ProgressBar::new_spinner(), "    {msg} {bytes}, {bytes_per_sec}"),
    };
    // The templates are constants that indicatif accepts; its default would do as well.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    // In an archive it is a path of the archive's own.
    bar.with_message(tamed_line(layer))
}

/// A line of a build.
fn building(event: Event<'_>) -> String {
    match event {
        Event::Step { line, instruction, cached: false } => format!("line {line}: {instruction}"),
        Event::Step { line, instruction, cached: true } => format!("line {line}: {instruction}  (built before)"),
        Event::Output { line } => format!("  | {line}"),
        Event::Present { .. }
        | Event::Read { .. }
        | Event::Unpacked { .. }
        | Event::Sent { .. }
        | Event::Stored { .. }
        | Event::Retrying { .. } => String::new(),
    }
}

/// What `watch` writes into its log.
pub struct Logged;

impl Progress for Logged {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Step { .. } | Event::Output { .. } => tracing::info!("{}", building(event)),
            Event::Retrying { layer, reason } => tracing::warn!("layer {layer}: {reason}, trying again"),
            Event::Present { .. }
            | Event::Read { .. }
            | Event::Unpacked { .. }
            | Event::Sent { .. }
            | Event::Stored { .. } => {}
        }
    }
}

impl Progress for Layers {
    fn report(&self, event: Event<'_>) {
        match event {
            Event::Present { .. } => {}
            Event::Read { layer, bytes, total } => self.bar(layer, total).set_position(bytes),
            Event::Sent { layer, bytes, total } => self.bar(layer, Some(total)).set_position(bytes),
            Event::Unpacked { layer } | Event::Stored { layer, .. } => {
                let bar = self.bars.lock().unwrap_or_else(PoisonError::into_inner).remove(layer);
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
            }
            Event::Step { .. } | Event::Output { .. } => self.tell(&building(event)),
            Event::Retrying { layer, reason } => {
                self.say(&format!("layer {}: {reason}, trying again", tamed_line(layer)))
            }
        }
    }
}
