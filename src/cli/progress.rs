//! What `apply` and `down` say while they work.
//!
//! ```text
//! done     image docker.io/library/nginx:1.27  fetched (1.2s)
//! done     container db  started (41ms)
//! failed   container web  cannot start container `shop/web`
//!            caused by: the command `serve` does not exist in the container
//!            hint: ..
//! skipped  container proxy  not created, because container web was not started
//! ```
//!
//! On a terminal the steps that run have a moving line each, below those that ended. As JSON each start and end is
//! an object on a line of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::failure::{Exit, Failure};
use super::output::{ATTENTION, BAD, Format, GOOD, Output, QUIET};
use super::phrase;
use crate::model::action::Action;
use crate::model::container::Condition;
use crate::model::foreign::tamed;
use crate::plan::{Plan, Step, StepId};
use crate::reconcile::execute::Observer;
use crate::reconcile::report::{Report, StepOutcome};

/// Shows the steps of one plan as they begin and end.
pub struct Progress<'a> {
    plan: &'a Plan,
    output: &'a Output,
    display: Display<'a>,
    /// The first failure to write, kept until the work is done: a closed stdout must not stop an apply midway.
    unwritten: Mutex<Option<Failure>>,
}

enum Display<'a> {
    Terminal { lines: &'a MultiProgress, running: Mutex<BTreeMap<StepId, ProgressBar>> },
    Lines,
    Json,
}

/// An event of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    StepStarted {
        step: StepId,
        subject: &'a str,
        doing: &'static str,
    },
    StepEnded {
        step: StepId,
        subject: &'a str,
        #[serde(flatten)]
        outcome: &'a StepOutcome,
    },
    Report {
        done: usize,
        failed: usize,
        skipped: usize,
        cancelled: usize,
        rolled_back: usize,
        took: Duration,
    },
}

impl<'a> Progress<'a> {
    /// On a terminal the moving lines are drawn among `lines`.
    pub fn new(plan: &'a Plan, lines: &'a MultiProgress, output: &'a Output) -> Progress<'a> {
        let display = match output.format() {
            Format::Json => Display::Json,
            Format::Text if output.is_terminal() && io::IsTerminal::is_terminal(&io::stderr()) => {
                Display::Terminal { lines, running: Mutex::default() }
            }
            Format::Text => Display::Lines,
        };
        Progress { plan, output, display, unwritten: Mutex::new(None) }
    }

    /// The last line, and what the report means for the exit code.
    pub fn finish(self, report: &Report, took: Duration) -> Result<Exit, Failure> {
        let tally = Event::Report {
            done: report.count(|outcome| matches!(outcome, StepOutcome::Done { .. })),
            failed: report.count(|outcome| matches!(outcome, StepOutcome::Failed { .. })),
            skipped: report.count(|outcome| matches!(outcome, StepOutcome::Skipped { .. })),
            cancelled: report.count(|outcome| matches!(outcome, StepOutcome::Cancelled)),
            rolled_back: report.rolled_back(self.plan).count(),
            took,
        };
        let unwritten = self.unwritten.into_inner().unwrap_or_else(PoisonError::into_inner);
        unwritten.map_or(Ok(()), Err)?;
        match self.output.format() {
            Format::Json => self.output.line(&tally)?,
            Format::Text => self.output.text(&sentence(&tally))?,
        }
        Ok(match (report.is_success(), report.is_partial()) {
            (true, _) => Exit::Done,
            (false, true) => Exit::Degraded,
            (false, false) => Exit::Error,
        })
    }

    fn say(&self, text: &str) {
        let result = match &self.display {
            Display::Terminal { lines, .. } => {
                lines.println(self.output.for_stderr(text.trim_end())).map_err(|error| Failure::stdout(&error))
            }
            Display::Lines | Display::Json => self.output.text(text),
        };
        self.keep(result);
    }

    fn keep(&self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
    }
}

impl Observer for Progress<'_> {
    fn step_started(&self, id: StepId) {
        let step = &self.plan.steps[id];
        match &self.display {
            Display::Json => {
                let doing = words(&step.action).doing;
                self.keep(self.output.line(&Event::StepStarted { step: id, subject: &step.subject, doing }));
            }
            Display::Terminal { lines, running } => {
                let line = lines.add(ProgressBar::new_spinner());
                // The template is a constant that indicatif accepts; its default would do as well.
                if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                    line.set_style(style);
                }
                line.set_message(format!("{}  {}", step.subject, words(&step.action).doing));
                line.enable_steady_tick(Duration::from_millis(100));
                running.lock().unwrap_or_else(PoisonError::into_inner).insert(id, line);
            }
            Display::Lines => {}
        }
    }

    fn step_ended(&self, id: StepId, outcome: &StepOutcome) {
        let step = &self.plan.steps[id];
        if let Display::Terminal { running, .. } = &self.display
            && let Some(line) = running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
        {
            line.finish_and_clear();
        }
        match &self.display {
            Display::Json => {
                self.keep(self.output.line(&Event::StepEnded { step: id, subject: &step.subject, outcome }))
            }
            Display::Terminal { .. } | Display::Lines => self.say(&ended(self.plan, step, outcome)),
        }
    }
}

/// One line for one step, and more below it for a failure.
fn ended(plan: &Plan, step: &Step, outcome: &StepOutcome) -> String {
    let subject = &step.subject;
    let words = words(&step.action);
    match outcome {
        StepOutcome::Done { took } => {
            format!("{GOOD}done{GOOD:#}     {subject}  {} {QUIET}({}){QUIET:#}\n", words.done, short(*took))
        }
        StepOutcome::Failed { causes, hint, .. } => {
            let (first, further) = causes.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
            let mut text = format!("{BAD}failed{BAD:#}   {subject}  {}\n", tamed(first));
            for cause in further {
                // Writing to a String does not fail.
                let _ = writeln!(text, "           caused by: {}", tamed(cause));
            }
            if let Some(hint) = hint {
                let _ = writeln!(text, "           hint: {}", tamed(hint));
            }
            text
        }
        StepOutcome::Skipped { because } => {
            let cause = &plan.steps[*because];
            let (done, missing) = (words.done, self::words(&cause.action).done);
            format!(
                "{ATTENTION}skipped{ATTENTION:#}  {subject}  not {done}, because {} was not {missing}\n",
                cause.subject
            )
        }
        // Nobody is told of it. And whoever sees this sits waits out.
        StepOutcome::NotNeeded | StepOutcome::Open { .. } | StepOutcome::Deferred { .. } => String::new(),
        StepOutcome::Cancelled => format!("{ATTENTION}left{ATTENTION:#}     {subject}  not {}\n", words.done),
    }
}

fn sentence(tally: &Event<'_>) -> String {
    let Event::Report { done, failed, skipped, cancelled, rolled_back, took } = tally else { return String::new() };
    let mut text = phrase::counted(*done as u64, "step") + " done";
    for (count, word) in [(failed, "failed"), (skipped, "skipped"), (cancelled, "left undone")] {
        if *count > 0 {
            // Writing to a String does not fail.
            let _ = write!(text, ", {count} {word}");
        }
    }
    let back = match rolled_back {
        0 => String::new(),
        count => format!("; {} rolled back", phrase::counted(*count as u64, "update")),
    };
    format!("{text} in {}{back}\n", short(*took))
}

/// `41ms`, `1.2s`, `2m 5s`.
pub fn short(took: Duration) -> String {
    match took.as_millis() {
        millis @ 0..1000 => format!("{millis}ms"),
        millis @ 1000..60_000 => format!("{}.{}s", millis / 1000, millis % 1000 / 100),
        millis => format!("{}m {}s", millis / 60_000, millis / 1000 % 60),
    }
}

/// An action while it happens and when it has happened.
struct Words {
    doing: &'static str,
    done: &'static str,
}

fn words(action: &Action) -> Words {
    let (doing, done) = match action {
        Action::FetchImage { source, bases: _ } => (source.how_made().doing, source.how_made().done),
        Action::RestoreImage { .. } => ("restoring", "restored"),
        Action::EnsureVolume { .. } | Action::EnsureNetwork { .. } => ("making ready", "ready"),
        Action::RemoveVolume { .. }
        | Action::RemoveNetwork { .. }
        | Action::RemoveContainer { .. }
        | Action::RemoveOrphan { .. } => ("removing", "removed"),
        Action::SetFirewall { .. } | Action::SetNames { .. } => ("setting", "set"),
        Action::CreateContainer { .. } => ("creating", "created"),
        Action::UpdateContainer { .. } => ("updating", "updated"),
        Action::ConnectContainer { .. } => ("connecting", "connected"),
        Action::DisconnectContainer { .. } => ("disconnecting", "disconnected"),
        Action::RefuseUpdate { .. } => ("refusing its update", "rolled back"),
        Action::ResumeContainer { .. } => ("resuming", "resumed"),
        Action::StartContainer { .. } => ("starting", "started"),
        Action::StopContainer { .. } => ("stopping", "stopped"),
        Action::AwaitContainer { condition, .. } => match condition {
            Condition::Started => ("waiting for its start", "running"),
            Condition::Healthy => ("waiting for its health", "healthy"),
            Condition::Completed => ("waiting for its end", "completed"),
        },
    };
    Words { doing, done }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::Mark;

    fn plan() -> Plan {
        let id: crate::model::id::ContainerId = "0123456789ab".parse().unwrap();
        let step = |action, after: &[StepId]| Step {
            action,
            subject: "container web".into(),
            mark: Mark::Run,
            reason: String::new(),
            changes: Vec::new(),
            after: after.iter().copied().collect(),
            on_failure_of: BTreeSet::new(),
        };
        let start = step(Action::StartContainer { id: id.clone() }, &[]);
        let wait = Action::AwaitContainer {
            id,
            condition: Condition::Healthy,
            timeout: crate::model::units::Timespan::from_secs(1),
            stays: crate::model::units::Timespan::ZERO,
        };
        let steps = vec![start, step(wait, &[0])];
        Plan {
            version: crate::plan::PLAN_VERSION,
            project: "shop".parse().unwrap(),
            steps,
            warnings: Vec::new(),
            refusals: Vec::new(),
            held_back: Vec::new(),
        }
    }

    fn line(id: StepId, outcome: &StepOutcome) -> String {
        let plan = plan();
        anstream::adapter::strip_str(&ended(&plan, &plan.steps[id], outcome)).to_string()
    }

    #[test]
    fn each_end_says_what_became_of_the_step() {
        let took = Duration::from_millis(41);
        assert_eq!(line(0, &StepOutcome::Done { took }), "done     container web  started (41ms)\n");
        let failed = StepOutcome::Failed { causes: vec!["a".into(), "b".into()], hint: Some("c".into()), took };
        assert_eq!(line(0, &failed), "failed   container web  a\n           caused by: b\n           hint: c\n");
        let hostile = StepOutcome::Failed { causes: vec!["a\x1b[2J".into(), "b\r".into()], hint: None, took };
        assert_eq!(line(0, &hostile), "failed   container web  a\u{fffd}[2J\n           caused by: b\u{fffd}\n");
        assert_eq!(
            line(1, &StepOutcome::Skipped { because: 0 }),
            "skipped  container web  not healthy, because container web was not started\n"
        );
    }

    #[test]
    fn times_are_short() {
        for (millis, text) in [(41, "41ms"), (1250, "1.2s"), (125_000, "2m 5s")] {
            assert_eq!(short(Duration::from_millis(millis)), text);
        }
    }
}
