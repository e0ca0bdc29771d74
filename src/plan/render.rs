//! A plan as people read it, in review and before they apply it.
//!
//! ```text
//! Plan for project shop
//!
//!   -/+ container web                        image changed
//!         image: "web:1.4" -> "web:1.5"  (replace)
//!         if it fails: what runs now is started again
//!   ~   container db                         resources changed
//!         resources.memory: "512MiB" -> "1GiB"  (live)
//!
//!   besides: firewall, names of front
//!            wait at most 1m 40s until container db is healthy (web needs it healthy)
//!
//! Plan: 1 to change, 1 to replace; 7 steps.
//! ```
//!
//! All steps of one subject are one entry, marked by the weightiest of them. Steps that follow from others (firewall,
//! names, waits) are told in one quiet line each. The result is text with style marks: the command line decides about
//! colour, and nothing is said by colour alone.

use std::collections::BTreeMap;
use std::fmt;

use super::{ChangeClass, FieldChange, HeldBack, Mark, Plan, Refusal, Step};
use crate::model::action::Action;
use crate::model::container::Condition;
use crate::model::units::Timespan;

/// What a piece of text is, for whoever colours it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Heading,
    Create,
    Remove,
    Change,
    Replace,
    Run,
    /// Reasons, classes, what follows from other steps.
    Quiet,
    Warning,
    Refusal,
}

/// One line: pieces of text, each with its style.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(pub Vec<(Style, String)>);

impl Line {
    fn of(pieces: impl IntoIterator<Item = (Style, String)>) -> Line {
        Line(pieces.into_iter().collect())
    }
}

/// The text without its styles.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        f.write_str(text.trim_end())
    }
}

/// What `plan` prints when there is something to say.
pub fn render(plan: &Plan) -> Vec<Line> {
    let entries = Entry::of(plan);
    let mut lines = Vec::new();
    if !plan.steps.is_empty() {
        lines.push(Line::of([(Style::Heading, format!("Plan for project {}", plan.project))]));
        lines.push(Line::default());
        entries.iter().for_each(|entry| entry.render(plan, &mut lines));
        besides(plan, !entries.is_empty(), &mut lines);
        lines.push(Line::default());
    }
    for warning in &plan.warnings {
        lines.push(Line::of([(Style::Warning, "Warning: ".to_owned()), (Style::Plain, warning.clone())]));
    }
    for HeldBack { subject, reason } in &plan.held_back {
        let text = format!("{subject} stays as it is, though it is declared otherwise: {reason}");
        lines.push(Line::of([(Style::Warning, "Held back: ".to_owned()), (Style::Plain, text)]));
    }
    for Refusal { subject, reason, hint, kind: _ } in &plan.refusals {
        lines
            .push(Line::of([(Style::Refusal, "Refused: ".to_owned()), (Style::Plain, format!("{subject}: {reason}"))]));
        lines.push(Line::of([(Style::Quiet, format!("  hint: {hint}"))]));
    }
    if !plan.warnings.is_empty() || !plan.refusals.is_empty() || !plan.held_back.is_empty() {
        lines.push(Line::default());
    }
    lines.push(Line::of([(Style::Heading, footer(plan))]));
    lines
}

/// How many subjects get which mark. Steps that only follow from others are not counted.
pub fn counts(plan: &Plan) -> BTreeMap<Mark, usize> {
    let mut counts = BTreeMap::new();
    for entry in Entry::of(plan) {
        *counts.entry(entry.mark).or_default() += 1;
    }
    counts
}

/// `Plan: 1 to create, 2 to replace; 9 steps.`
fn footer(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return match (plan.refusals.is_empty(), plan.held_back.len()) {
            (false, _) => "Refused.".to_owned(),
            (true, 0) => format!("Nothing to do: project {} is as declared.", plan.project),
            (true, 1) => "Nothing to do, but 1 container is held back.".to_owned(),
            (true, held) => format!("Nothing to do, but {held} containers are held back."),
        };
    }
    let words = |mark| match mark {
        Mark::Create => "to create",
        Mark::Change => "to change",
        Mark::Replace => "to replace",
        Mark::ReplaceNewFirst => "to replace new-first",
        Mark::Remove => "to remove",
        Mark::Run => "to run",
    };
    let order = [Mark::Create, Mark::Change, Mark::Replace, Mark::ReplaceNewFirst, Mark::Remove, Mark::Run];
    let counts = counts(plan);
    let counted = order.into_iter().filter_map(|mark| Some(format!("{} {}", counts.get(&mark)?, words(mark))));
    let mut counted = counted.collect::<Vec<_>>().join(", ");
    if counted.is_empty() {
        counted = "nothing to create, change or remove".to_owned();
    }
    let steps = plan.steps.iter().filter(|step| !step.is_rescue()).count();
    let lead = if plan.refusals.is_empty() { "Plan" } else { "Refused; it would be" };
    format!("{lead}: {counted}; {steps} step{}.", if steps == 1 { "" } else { "s" })
}

/// Everything that happens to one subject.
struct Entry<'a> {
    subject: &'a str,
    mark: Mark,
    steps: Vec<&'a Step>,
}

impl<'a> Entry<'a> {
    fn of(plan: &'a Plan) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for step in plan.steps.iter().filter(|step| !is_quiet(step)) {
            match entries.iter_mut().find(|entry| entry.subject == step.subject) {
                Some(entry) => {
                    entry.mark = weightiest(entry.mark, step.mark);
                    entry.steps.push(step);
                }
                None => entries.push(Entry { subject: &step.subject, mark: step.mark, steps: vec![step] }),
            }
        }
        entries
    }

    fn render(&self, plan: &Plan, lines: &mut Vec<Line>) {
        let (sign, style) = sign(self.mark);
        let telling = self.steps.iter().find(|step| !step.changes.is_empty()).or(self.steps.first());
        let reason = telling.map_or("", |step| step.reason.as_str());
        lines.push(Line::of([
            (style, format!("  {sign:<3} ")),
            (Style::Plain, format!("{:<36}", self.subject)),
            (Style::Quiet, format!(" {}", self.deed(reason))),
        ]));
        for change in self.steps.iter().flat_map(|step| &step.changes) {
            lines.push(field(change, self.mark));
        }
        if let Some(text) = self.on_failure(plan) {
            lines.push(Line::of([(Style::Quiet, format!("        if it fails: {text}"))]));
        }
    }

    /// What becomes of a replacement that fails.
    fn on_failure(&self, plan: &Plan) -> Option<&'static str> {
        // Firewall and names go back with a container, and say nothing of their own.
        let is_traffic = |step: &&Step| matches!(step.action, Action::SetFirewall { .. } | Action::SetNames { .. });
        let of_it = plan.steps.iter().filter(|step| step.is_rescue() && step.subject == self.subject);
        let mut way_back = of_it.filter(|step| !is_traffic(step)).peekable();
        if way_back.peek().is_some() {
            let starts = way_back.any(|step| matches!(step.action, Action::StartContainer { .. }));
            return Some(if starts { "what runs now is started again" } else { "it goes, and what runs now stays" });
        }
        let starts = self.steps.iter().any(|step| matches!(step.action, Action::StartContainer { .. }));
        let stops = self.steps.iter().any(|step| matches!(step.action, Action::StopContainer { .. }));
        match self.mark {
            Mark::Replace if starts => Some("it stays, and what runs now is gone"),
            Mark::ReplaceNewFirst => Some("it stays beside what runs now"),
            Mark::Change if starts && stops => Some("it stays as changed"),
            _ => None,
        }
    }

    /// The reason; for what only runs, also what is done.
    fn deed(&self, reason: &str) -> String {
        let is = |wanted: fn(&Action) -> bool| self.steps.iter().any(|step| wanted(&step.action));
        let stops = is(|action| matches!(action, Action::StopContainer { .. }));
        let starts = is(|action| matches!(action, Action::StartContainer { .. }));
        let deed = match (self.mark, stops, starts) {
            (Mark::Run, true, true) => "stop and start: ",
            (Mark::Run, true, false) => "stop: ",
            (Mark::Run, false, true) => "start: ",
            // What an update in place left unproven is accepted.
            (Mark::Run, false, false) if is(|action| matches!(action, Action::UpdateContainer { .. })) => "keep: ",
            (Mark::Run, false, false) => "connect: ",
            (Mark::Change, true, true) => "stop and start: ",
            (Mark::Change, true, false) => "stop: ",
            (Mark::Change, false, true) => "start: ",
            _ => "",
        };
        format!("{deed}{reason}")
    }
}

/// `+` and its like, three columns wide in the text.
pub fn sign(mark: Mark) -> (&'static str, Style) {
    match mark {
        Mark::Create => ("+", Style::Create),
        Mark::Remove => ("-", Style::Remove),
        Mark::Change => ("~", Style::Change),
        Mark::Replace => ("-/+", Style::Replace),
        Mark::ReplaceNewFirst => ("+/-", Style::Replace),
        Mark::Run => (">", Style::Run),
    }
}

/// A subject that is removed and created is replaced; any change outweighs running.
fn weightiest(a: Mark, b: Mark) -> Mark {
    match (a, b) {
        (Mark::Create, Mark::Remove) | (Mark::Remove, Mark::Create) => Mark::Replace,
        (Mark::Run, mark) | (mark, Mark::Run) => mark,
        (Mark::Replace | Mark::ReplaceNewFirst, _) => a,
        (_, Mark::Replace | Mark::ReplaceNewFirst) => b,
        (Mark::Create | Mark::Remove | Mark::Change, _) => a,
    }
}

fn field(change: &FieldChange, mark: Mark) -> Line {
    let FieldChange { field, old, new, class } = change;
    let text = match (old, new) {
        (None, Some(new)) if mark == Mark::Create => format!("        {field}: {new}"),
        (old, new) => {
            let side = |text: &Option<String>| text.clone().unwrap_or_else(|| "(unset)".to_owned());
            format!("        {field}: {} -> {}", side(old), side(new))
        }
    };
    let class = match (class, mark) {
        (_, Mark::Create) => "",
        (ChangeClass::None, _) => "  (none)",
        (ChangeClass::Live, _) => "  (live)",
        (ChangeClass::Start, _) => "  (start)",
        (ChangeClass::Stop, _) => "  (stop)",
        (ChangeClass::Restart, _) => "  (restart)",
        (ChangeClass::Replace, _) => "  (replace)",
        (ChangeClass::Data, _) => "  (data)",
    };
    Line::of([(Style::Plain, text), (Style::Quiet, class.to_owned())])
}

/// Whether a step only follows from others: it is told besides, or in a line of its own.
fn is_quiet(step: &Step) -> bool {
    let follows = step.is_rescue()
        || matches!(step.action, Action::SetFirewall { .. } | Action::SetNames { .. } | Action::AwaitContainer { .. });
    follows && (step.mark == Mark::Run || step.is_rescue())
}

fn besides(plan: &Plan, has_entries: bool, lines: &mut Vec<Line>) {
    let (mut set, mut waits) = (Vec::new(), Vec::new());
    for step in plan.steps.iter().filter(|step| is_quiet(step) && !step.is_rescue()) {
        match &step.action {
            Action::AwaitContainer { condition, timeout, stays, .. } => {
                let state = match condition {
                    Condition::Started => "has started",
                    Condition::Healthy => "is healthy",
                    Condition::Completed => "has completed",
                };
                let (subject, reason) = (&step.subject, &step.reason);
                let stays = if *stays > Timespan::ZERO { format!(" and stays so for {stays}") } else { String::new() };
                waits.push(format!("wait at most {timeout} until {subject} {state}{stays} ({reason})"));
            }
            _ if !set.contains(&step.subject) => set.push(step.subject.clone()),
            _ => {}
        }
    }
    let set = (!set.is_empty()).then(|| set.join(", "));
    let told: Vec<String> = set.into_iter().chain(waits).collect();
    if has_entries && !told.is_empty() {
        lines.push(Line::default());
    }
    for (at, text) in told.into_iter().enumerate() {
        let lead = if at == 0 { "  besides: " } else { "           " };
        lines.push(Line::of([(Style::Quiet, format!("{lead}{text}"))]));
    }
}
