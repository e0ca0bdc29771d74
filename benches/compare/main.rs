//! Evenkeel beside Docker, Docker Compose and Podman, measured in one run: `cargo bench --bench compare`.
//!
//! ```text
//! compare -- for each contender --> sandbox --> contender: set up, cases --> medians --> table, JSON
//! ```
//!
//! Each contender runs in a [`sandbox`] of its own, one after another: the namespaces, the disk and the cgroups are new for
//! each, equal for all, and gone afterwards, so that nothing of the machine's own containers or firewall is touched
//! and no contender works on what another one left. [`contender`] is what one must be able to do, [`cases`] what is
//! measured, [`floor`] what the kernel alone needs, [`report`] what is printed.
//!
//! A contender that is not installed is skipped with a word. `benches/setup.sh` installs them on Debian.

mod arguments;
mod cases;
mod compose;
mod contender;
mod docker;
mod evenkeel;
mod fleet;
mod floor;
mod measure;
mod podman;
mod processes;
mod report;
mod sandbox;
mod shell;

use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Role};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    let result = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(Role::Compare(arguments)) => compare(&arguments),
        Ok(Role::Enter { group, inside }) => Err(sandbox::enter(&group, &inside).into()),
        Ok(Role::Contend { contender, arguments, results }) => contend(&contender, &arguments, &results),
        Err(usage) => Err(usage.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Outside: a sandbox for each contender, then the table.
fn compare(arguments: &Arguments) -> Result<()> {
    let mut measured = Vec::new();
    let machine = report::Machine::look();
    for name in contender::NAMES.into_iter().filter(|name| arguments.wants_contender(name)) {
        match contender::missing(name) {
            Some(missing) => eprintln!("{name}: skipped, `{missing}` is not installed (benches/setup.sh)"),
            None => measured.extend(sandbox::run(name, arguments)?),
        }
    }
    report::print(&measured, &machine);
    if let Some(path) = &arguments.json {
        report::write_json(path, &measured, &machine)?;
    }
    Ok(())
}

/// Inside: all cases of one contender.
fn contend(name: &str, arguments: &Arguments, results: &Path) -> Result<()> {
    let bench = sandbox::furnish()?;
    let mut contender = contender::new(name, &bench)?;
    contender.set_up()?;
    let measured = cases::measure_all(name, contender.as_ref(), arguments);
    std::fs::write(results, serde_json::to_vec(&measured)?)?;
    contender.tear_down()
}
