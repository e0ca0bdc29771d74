//! Dependencies: conditions that can hold, and an order that exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::container::{Condition, RunState};
use crate::model::id::ResourceName;
use crate::model::restart::RestartCondition;

use super::container::replicas_of;
use super::declared::{Declared, Kind};
use super::{entries, value_of};
use crate::manifest::problem::{Place, Placed, Problem};
use crate::manifest::read::{Reading, Word};
use crate::manifest::shape::container::Container;
use crate::manifest::shape::form::{Healthcheck, NetworkWord, RestartWord};
use crate::manifest::shape::project::Manifest;

/// What must hold of others before this container starts. Whoever uses another's network waits for it too.
pub(super) fn of_container(
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> BTreeMap<ResourceName, Condition> {
    let mut conditions = BTreeMap::new();
    for (name, condition) in written.depends_on.iter().flat_map(|table| table.0.whole()) {
        declared.check_name(name, Kind::Container, reading);
        conditions.insert(name.value.clone(), condition.0);
    }
    if let Some((target, place)) = network_target(written) {
        let name = Placed { value: target.clone(), place: place.clone() };
        declared.check_name(&name, Kind::Container, reading);
        conditions.entry(target.clone()).or_insert(Condition::Started);
    }
    conditions
}

fn network_target(written: &Container) -> Option<(&ResourceName, &Place)> {
    let mode = written.network_mode.as_ref()?;
    match &mode.value {
        NetworkWord::Container(target) => Some((target, &mode.place)),
        NetworkWord::None | NetworkWord::Host => None,
    }
}

/// Checks that need both sides of a dependency, and the order of all.
pub(super) fn check(manifest: &Manifest, declared: &Declared, reading: &mut Reading<'_>) {
    let containers: BTreeMap<&ResourceName, &Container> =
        entries(&manifest.containers).map(|(name, container)| (&name.value, container)).collect();
    for (name, container) in entries(&manifest.containers) {
        for (on, condition) in container.depends_on.iter().flat_map(|table| table.0.whole()) {
            if let Some(target) = containers.get(&on.value) {
                let waiting = Waiting { name, container, on, condition: condition.0 };
                check_condition(&waiting, target, declared, reading);
            }
        }
        if let Some((target, place)) = network_target(container)
            && let Some(owner) = containers.get(target)
        {
            check_network_owner(target, place, owner, reading);
        }
    }
    check_cycles(manifest, reading);
}

/// One dependency, seen from the container that waits.
struct Waiting<'m> {
    name: &'m Placed<ResourceName>,
    container: &'m Container,
    on: &'m Placed<ResourceName>,
    condition: Condition,
}

impl Waiting<'_> {
    /// Whether it is to run at all.
    fn runs(&self) -> bool {
        let state = value_of(&self.container.state).unwrap_or_default();
        state == RunState::Running && replicas_of(self.container) > 0
    }

    fn never(&self, why: &str, place: &Place, note: &str) -> Problem {
        let message = format!("`{}` would wait for `{}` for ever: {why}", self.name.value, self.on.value);
        Problem::at(&self.on.place, message).related(place, note)
    }
}

fn check_condition(waiting: &Waiting<'_>, target: &Container, declared: &Declared, reading: &mut Reading<'_>) {
    if let Some(state) = target.state.as_ref().filter(|state| state.value == RunState::Stopped && waiting.runs()) {
        reading.report(waiting.never("it is not to run", &state.place, "stopped"));
    }
    if let Some(replicas) = target.replicas.as_ref().filter(|replicas| replicas.0 == 0 && waiting.runs()) {
        reading.report(waiting.never("it has no replicas", &replicas.place, "none"));
    }
    match waiting.condition {
        Condition::Started => {}
        Condition::Healthy => {
            if let Some(check) = &target.healthcheck
                && matches!(check.value, Healthcheck::None)
            {
                let note = "no check, whatever the image says";
                reading.report(waiting.never("it has no health check", &check.place, note));
            }
        }
        Condition::Completed => {
            let restart = target.restart.as_ref().filter(|restart| restarts_after_success(restart, declared));
            if let Some(restart) = restart {
                let problem = waiting.never("it is restarted whenever it ends", &restart.place, "its restart policy");
                reading.report(problem.help("give it `restart = \"no\"` or `\"on-failure\"`"));
            }
        }
    }
}

fn restarts_after_success(restart: &Placed<RestartWord>, declared: &Declared) -> bool {
    let condition = match &restart.value {
        RestartWord::Policy(policy) => value_of(&policy.policy),
        RestartWord::Word(word) => RestartCondition::parse(&word.value).ok().or_else(|| {
            let (_, policy) = declared.restart.iter().find(|(name, _)| name.as_str() == word.value)?;
            policy.as_ref().map(|policy| policy.condition)
        }),
    };
    matches!(condition, Some(RestartCondition::Always | RestartCondition::UnlessStopped))
}

/// A network is shared with one container that has one.
fn check_network_owner(target: &ResourceName, place: &Place, owner: &Container, reading: &mut Reading<'_>) {
    if let Some(mode) = owner.network_mode.as_ref().filter(|mode| mode.shares_namespace()) {
        reading.report(
            Problem::at(place, format!("`{target}` has no network of its own to share"))
                .related(&mode.place, "its network comes from here"),
        );
    }
    if let Some(replicas) = owner.replicas.as_ref().filter(|replicas| replicas.0 != 1) {
        reading.report(
            Problem::at(place, format!("`{target}` is not one container but {}", replicas.0))
                .related(&replicas.place, "its replicas have a network each"),
        );
    }
}

/// Every cycle is reported once, by the path that it takes.
fn check_cycles(manifest: &Manifest, reading: &mut Reading<'_>) {
    let mut edges: BTreeMap<&ResourceName, Vec<(&ResourceName, &Place)>> = BTreeMap::new();
    for (name, container) in entries(&manifest.containers) {
        let depends = container.depends_on.iter().flat_map(|table| table.0.whole());
        let depends = depends.map(|(on, _)| (&on.value, &on.place)).chain(network_target(container));
        edges.entry(&name.value).or_default().extend(depends);
    }
    let mut done: BTreeSet<&ResourceName> = BTreeSet::new();
    for start in edges.keys() {
        walk(start, &edges, &mut Vec::new(), &mut done, reading);
    }
}

type Edges<'m> = BTreeMap<&'m ResourceName, Vec<(&'m ResourceName, &'m Place)>>;

/// Depth first, with a stack of its own: a chain may be as long as there are containers.
fn walk<'m>(
    start: &'m ResourceName,
    edges: &Edges<'m>,
    path: &mut Vec<(&'m ResourceName, usize)>,
    done: &mut BTreeSet<&'m ResourceName>,
    reading: &mut Reading<'_>,
) {
    if done.contains(start) {
        return;
    }
    path.push((start, 0));
    while let Some((name, next)) = path.last_mut() {
        let name = *name;
        let Some((on, place)) = edges.get(name).and_then(|edges| edges.get(*next)) else {
            done.insert(name);
            path.pop();
            continue;
        };
        *next += 1;
        if let Some(at) = path.iter().position(|(known, _)| known == on) {
            reading.report(cycle(&path[at..], on, place));
        } else if edges.contains_key(on) && !done.contains(on) {
            path.push((on, 0));
        }
    }
}

fn cycle(path: &[(&ResourceName, usize)], on: &ResourceName, place: &Place) -> Problem {
    let names: Vec<String> = path.iter().map(|(name, _)| format!("`{name}`")).collect();
    let message = match names.as_slice() {
        [own] => format!("{own} depends on itself"),
        _ => format!("the dependencies form a cycle: {} -> `{on}`", names.join(" -> ")),
    };
    Problem::at(place, message).label("this closes the cycle")
}
