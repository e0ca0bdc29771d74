//! `evenkeel man DIR`: a manual page for each program and for each of its commands.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};

use super::arguments::Arguments;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};

#[derive(Debug, Args)]
pub struct ManArguments {
    /// The directory that the pages are written to, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(arguments: &ManArguments, output: &Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory;
    let cannot = |error: std::io::Error| {
        Failure::from(error).context(format!("cannot write manual pages to `{}`", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(cannot)?;
    // `disable_help_subcommand`: `evenkeel help` would otherwise get a page for each command once more.
    for command in [Arguments::command(), super::runtime::command()] {
        let mut command = command.disable_help_subcommand(true);
        clap_mangen::generate_to(command.clone(), directory).map_err(cannot)?;
        command.build();
        for path in pages(&command, directory) {
            let page = std::fs::read_to_string(&path).map_err(cannot)?;
            std::fs::write(&path, with_examples_as_written(&page)).map_err(cannot)?;
        }
    }
    if output.format() == Format::Text {
        output.remark(&format!("manual pages written to {}", directory.display()));
    }
    Ok(Exit::Done)
}

/// The pages of a command and of those below it, by the names that clap_mangen gives them.
fn pages(command: &clap::Command, directory: &Path) -> Vec<PathBuf> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = below.flat_map(|below| pages(below, directory));
    std::iter::once(directory.join(format!("{name}.1"))).chain(below).collect()
}

/// What help ends with is running text in a page: lines of examples would be joined. Those that are indented stay lines (man(7), `.nf`).
fn with_examples_as_written(page: &str) -> String {
    let Some((before, end)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let mut text = format!("{before}.SH NOTES\n");
    let mut is_in_lines = false;
    for line in end.lines() {
        let is_line = line.starts_with("  ");
        if is_line != is_in_lines {
            text.push_str(if is_line { ".nf\n" } else { ".fi\n" });
            is_in_lines = is_line;
        }
        text.push_str(line);
        text.push('\n');
    }
    if is_in_lines {
        text.push_str(".fi\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stay_lines() {
        let page = ".SH NAME\nx\n.SH EXTRA\nExamples:\n  x one   first\n  x two   second\n\nTIME is long.";
        let expected =
            ".SH NAME\nx\n.SH NOTES\nExamples:\n.nf\n  x one   first\n  x two   second\n.fi\n\nTIME is long.\n";
        assert_eq!(with_examples_as_written(page), expected);
        assert_eq!(with_examples_as_written("plain"), "plain");
    }
}
