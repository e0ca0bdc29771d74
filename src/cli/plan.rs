//! `evenkeel plan`: what `apply` would do, field by field. Also `apply --dry-run`.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{ATTENTION, BAD, ERROR, Format, GOOD, Output, QUIET, STRONG, WARNING};
use super::planning::{self, Proposal};
use crate::model::desired::Desired;
use crate::model::foreign::tamed_line;
use crate::model::id::ResourceName;
use crate::model::units::Timespan;
use crate::plan::render::{self, Line};
use crate::plan::{MassRemoval, Plan, Policy, RefusedUpdates};

// What narrows a plan and what it is allowed: the same for `plan` and `apply`.
#[derive(Debug, Args)]
pub struct PlanningArguments {
    /// Only this container and what it needs, nothing else of the project and nothing that lost its record; repeat it for
    /// more
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,

    /// Allow to remove more than half of the containers of a project that has four or more
    #[arg(long)]
    allow_mass_removal: bool,

    /// Remove this volume, which is no longer declared: its data is lost; repeat it for more
    #[arg(long = "remove-volume", value_name = "NAME")]
    remove_volumes: Vec<ResourceName>,

    /// Replace this container although data that it keeps itself is lost; repeat it for more
    #[arg(long = "discard-data", value_name = "NAME")]
    discard_data: Vec<ResourceName>,

    /// How long one container may take to become healthy; by default its own health check says
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Timespan>,

    /// Exit with 2 when there is something to do
    #[arg(long)]
    pub detailed_exitcode: bool,
}

impl PlanningArguments {
    pub fn policy(&self, desired: &Desired) -> Result<Policy, Failure> {
        Ok(Policy {
            targets: planning::targets(&self.targets, desired)?,
            mass_removal: if self.allow_mass_removal { MassRemoval::Allow } else { MassRemoval::Refuse },
            expendable_volumes: self.remove_volumes.iter().cloned().collect(),
            expendable_data: self.discard_data.iter().cloned().collect(),
            wait_timeout: self.timeout,
            refused_updates: RefusedUpdates::Retry,
            ..Policy::default()
        })
    }

    fn pending(&self) -> Exit {
        if self.detailed_exitcode { Exit::Pending } else { Exit::Done }
    }

    pub fn is_default(&self) -> bool {
        let names_nothing = self.targets.is_empty() && self.remove_volumes.is_empty() && self.discard_data.is_empty();
        names_nothing && !self.allow_mass_removal && self.timeout.is_none()
    }
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    planning: PlanningArguments,

    /// Keep the plan in a file, for `evenkeel apply FILE`
    #[arg(short, long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &PlanArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let proposal = propose(&arguments.planning, context)?;
    if let Some(path) = &arguments.out {
        proposal.write(path)?;
        output.remark(&format!("the plan is kept: `evenkeel apply {}` runs exactly it", path.display()));
    }
    show(&proposal.plan, output)?;
    Ok(verdict(&proposal.plan, arguments.planning.pending()))
}

/// The plan of `apply --dry-run`, shown and nothing more.
pub fn dry_run(arguments: &PlanningArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let proposal = propose(arguments, context)?;
    show(&proposal.plan, output)?;
    Ok(verdict(&proposal.plan, arguments.pending()))
}

fn propose(arguments: &PlanningArguments, context: &Context) -> Result<Proposal, Failure> {
    let desired = context.load_in_force()?;
    let policy = arguments.policy(&desired)?;
    planning::propose_asking_tags(&context.host()?, desired, policy)
}

/// A plan that would be refused has been shown with its reasons; the exit code says it, too. `pending` is the one of a plan
/// with something to do.
pub fn verdict(plan: &Plan, pending: Exit) -> Exit {
    match planning::refusal(plan) {
        Some(exit) => exit,
        None if plan.is_empty() => Exit::Done,
        None => pending,
    }
}

pub fn show(plan: &Plan, output: &Output) -> Result<(), Failure> {
    match output.format() {
        Format::Json => output.document(plan),
        Format::Text => output.text(&styled(plan)),
    }
}

/// The planner's marks as colours. What is said by a container, an image or a registry adds no line to the plan.
fn styled(plan: &Plan) -> String {
    let mut text = String::new();
    for Line(pieces) in render::render(plan) {
        for (style, piece) in pieces {
            let style = colour(style);
            text.push_str(&format!("{style}{}{style:#}", tamed_line(&piece)));
        }
        text.push('\n');
    }
    text
}

fn colour(style: render::Style) -> anstyle::Style {
    match style {
        render::Style::Plain => anstyle::Style::new(),
        render::Style::Heading => STRONG,
        render::Style::Create => GOOD,
        render::Style::Remove => BAD,
        render::Style::Change | render::Style::Run => ATTENTION,
        render::Style::Replace => ATTENTION.bold(),
        render::Style::Quiet => QUIET,
        render::Style::Warning => WARNING,
        render::Style::Refusal => ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Whose;
    use crate::plan::HeldBack;

    #[test]
    fn what_a_container_said_is_neither_a_line_of_a_plan_nor_obeyed_by_a_terminal() {
        let said = "unhealthy: x\n  -   volume pgdata\r\x1b]52;c;eA==\x07".to_owned();
        let held_back = vec![HeldBack { subject: "container web".to_owned(), reason: said.clone() }];
        let plan = Plan { held_back, warnings: vec![said], ..Plan::nothing(Whose::Nobody) };
        let text = anstream::adapter::strip_str(&styled(&plan)).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(lines[0].contains("x   -   volume pgdata"), "{text}");
    }
}
