//! `evenkeel status`: what is declared against what is, and why they differ.
//!
//! The reasons are the planner's own: whatever `plan` would do is a difference, and nothing else is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{BAD, Format, GOOD, Output};
use super::table::Table;
use super::{phrase, planning};
use crate::model::actual::{Actual, ActualContainer};
use crate::model::container::RunState;
use crate::model::desired::Desired;
use crate::model::foreign::tamed_line;
use crate::model::id::Instance;
use crate::plan::{Mark, Plan, Policy, Step};

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// A manifest, a directory of manifests, or `-` for standard input; repeat it to overlay [default: ./evenkeel.toml, else /etc/evenkeel]
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    /// Exit with 2 when something differs
    #[arg(long)]
    detailed_exitcode: bool,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    project: &'a str,
    converged: bool,
    containers: Vec<Container>,
    /// Networks, volumes, images and rules that differ.
    others: Vec<Difference>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Container {
    name: Instance,
    declared: &'static str,
    /// The sentence of `ps`, or `absent`.
    is: String,
    error: Option<String>,
    differences: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Difference {
    subject: String,
    reasons: Vec<String>,
}

pub fn run(arguments: &StatusArguments, context: &Context, output: &Output) -> Result<Exit, Failure> {
    let desired = context.load_in_force()?;
    let (proposal, actual) = planning::propose(&context.host()?, desired, Policy::default())?;
    let document = document(&proposal.desired, &actual, &proposal.plan);
    match output.format() {
        Format::Json => output.document(&document)?,
        Format::Text => output.text(&text(&document))?,
    }
    Ok(if arguments.detailed_exitcode && !document.converged { Exit::Pending } else { Exit::Done })
}

fn document<'a>(desired: &'a Desired, actual: &Actual, plan: &'a Plan) -> Document<'a> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for step in &plan.steps {
        let of_subject = reasons.entry(step.subject.clone()).or_default();
        for reason in why(step) {
            if !of_subject.contains(&reason) {
                of_subject.push(reason);
            }
        }
    }
    let mut containers = Vec::new();
    for (name, declared) in instances(desired, actual) {
        let found = actual
            .containers
            .values()
            .find(|container| container.record.project == desired.project && container.record.instance == name);
        containers.push(Container {
            declared,
            is: found.map_or_else(|| "absent".to_owned(), is),
            error: found.and_then(|container| phrase::error(&container.liveness)).map(str::to_owned),
            differences: reasons.remove(&format!("container {name}")).unwrap_or_default(),
            name,
        });
    }
    Document {
        project: desired.project.as_str(),
        converged: plan.is_empty(),
        containers,
        others: reasons.into_iter().map(|(subject, reasons)| Difference { subject, reasons }).collect(),
        warnings: &plan.warnings,
    }
}

/// Declared instances and those that are there without being declared any more.
fn instances(desired: &Desired, actual: &Actual) -> BTreeMap<Instance, &'static str> {
    let ours = actual.containers.values().filter(|container| container.record.project == desired.project);
    let mut instances: BTreeMap<_, _> = ours.map(|container| (container.record.instance.clone(), "-")).collect();
    for (name, container) in &desired.containers {
        let declared = match container.spec.state {
            RunState::Running => "running",
            RunState::Stopped => "stopped",
        };
        for replica in 1..=container.replicas {
            instances.insert(Instance { container: name.clone(), replica }, declared);
        }
    }
    instances
}

fn is(container: &ActualContainer) -> String {
    phrase::state(&container.liveness, SystemTime::now())
}

/// The reason of a step, and its fields with old and new value. For what is not there at all the reason is enough.
fn why(step: &Step) -> Vec<String> {
    let none = || "(none)".to_owned();
    let change = |change: &crate::plan::FieldChange| {
        let (old, new) = (change.old.clone().unwrap_or_else(none), change.new.clone().unwrap_or_else(none));
        format!("{}: {old} -> {new}", change.field)
    };
    let told = if step.mark == Mark::Create { &[][..] } else { &step.changes };
    let fields = told.iter().map(change);
    std::iter::once(step.reason.clone()).filter(|reason| !reason.is_empty()).chain(fields).collect()
}

fn text(document: &Document<'_>) -> String {
    let mut table = Table::new(&["NAME", "DECLARED", "IS", "DIFFERS"]);
    let mut row = |name: String, declared: &str, is: String, reasons: &[String]| {
        let (first, further) = reasons.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let style = if reasons.is_empty() { GOOD } else { BAD };
        table.row(vec![name, declared.to_owned(), format!("{style}{is}{style:#}"), tamed_line(first)]);
        for reason in further {
            table.row(vec![String::new(), String::new(), String::new(), tamed_line(reason)]);
        }
    };
    for container in &document.containers {
        let is = match &container.error {
            Some(error) => format!("{}: {}", container.is, tamed_line(error)),
            None => container.is.clone(),
        };
        row(container.name.to_string(), container.declared, is, &container.differences);
    }
    for other in &document.others {
        row(other.subject.clone(), "", String::new(), &other.reasons);
    }
    let mut text = table.render();
    for warning in document.warnings {
        text.push_str(&format!("warning: {}\n", tamed_line(warning)));
    }
    text.push_str(&match document.converged {
        true => format!("\nproject {} is as declared\n", document.project),
        false => format!("\nproject {} differs: `evenkeel plan` shows what `apply` would do\n", document.project),
    });
    text
}
