//! Worlds for tests of the planner: generated projects, hosts with a history, and what happens to them.

// Each test binary uses its own part of this.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use evenkeel::engine::fake::Fake;
use evenkeel::model::action::Action;
use evenkeel::model::actual::{Actual, ActualContainer, Broken, Drift, Forwards, HostFacts, Liveness};
use evenkeel::model::container::{AfterEnd, Condition, ContainerSpec, FailureAction, Namespace, RunState, UpdateOrder};
use evenkeel::model::desired::{Desired, DesiredContainer};
use evenkeel::model::firewall::Ruleset;
use evenkeel::model::health::{Healthcheck, Probe};
use evenkeel::model::id::{ContainerId, Ids, ResourceName, Whose};
use evenkeel::model::image::{ImageSource, Pull};
use evenkeel::model::launch::LAUNCH_VERSION;
use evenkeel::model::names::NameTable;
use evenkeel::model::network::{Attachment, NetworkMode, NetworkSpec};
use evenkeel::model::orphan::{self, Orphan, Remains};
use evenkeel::model::resources::Resources;
use evenkeel::model::restart::{RestartCondition, RestartPolicy};
use evenkeel::model::security::Users;
use evenkeel::model::status::{Exit, Phase, STATUS_VERSION, Status};
use evenkeel::model::units::{ByteSize, Timespan};
use evenkeel::model::volume::{Access, Filling, Mount, Owner, VolumeSpec};
use evenkeel::plan::{MassRemoval, Plan, Policy, RefusedUpdates, Step, plan};
use evenkeel::reconcile::execute::Silent;
use evenkeel::reconcile::report::{Report, StepOutcome};
use proptest::prelude::*;

/// What a generated container may be; numbers choose from small vocabularies, so that collisions are frequent.
#[derive(Debug, Clone)]
pub struct Choice {
    pub there: bool,
    pub image: u8,
    pub environment: u8,
    pub memory: Option<u64>,
    pub restart: u8,
    pub port: u8,
    pub start_first: bool,
    pub stopped: bool,
    /// Changed in place, while it is down.
    pub init: bool,
    pub replicas: u32,
    pub networks: u8,
    pub alias: u8,
    pub fixed: bool,
    pub volume: u8,
    pub mode: u8,
    pub check: bool,
    pub needs: Vec<(u8, u8)>,
    /// 0 pauses after a failure, 1 watches the new one for a while.
    pub update: u8,
    /// 0 has users of its own, 1 and 2 are in namespaces of the host.
    pub apart: u8,
}

#[derive(Debug, Clone)]
pub struct Project {
    pub name: &'static str,
    pub containers: Vec<Choice>,
    pub networks: Vec<(bool, bool, bool)>,
    pub rotation: u8,
    pub shift: u8,
    pub owner: Option<u32>,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The project that is none: what nobody declares.
pub const BY_HAND: &str = "by hand";

/// The second byte of its networks' addresses; a hundredth of its ports, too.
fn base(project: &Project) -> u16 {
    match project.name {
        "blog" => 78,
        BY_HAND => 79,
        _ => 77,
    }
}

pub fn choice() -> impl Strategy<Value = Choice> {
    let small = (
        prop::bool::weighted(0.8),
        0..2u8,
        0..3u8,
        prop::option::of(1..3u64),
        0..4u8,
        0..3u8,
        prop::bool::weighted(0.4),
        prop::bool::weighted(0.15),
        any::<bool>(),
    );
    let large = (
        prop_oneof![4 => Just(1u32), 1 => Just(2), 1 => Just(3), 1 => Just(0)],
        0..8u8,
        0..3u8,
        prop::bool::weighted(0.3),
        0..4u8,
        0..10u8,
        any::<bool>(),
        prop::collection::vec((0..5u8, 0..3u8), 0..3),
        0..6u8,
        0..8u8,
    );
    (small, large).prop_map(
        |(
            (there, image, environment, memory, restart, port, start_first, stopped, init),
            (replicas, networks, alias, fixed, volume, mode, check, needs, update, apart),
        )| Choice {
            there,
            image,
            environment,
            memory,
            restart,
            port,
            start_first,
            stopped,
            init,
            replicas,
            networks,
            alias,
            fixed,
            volume,
            mode,
            check,
            needs,
            update,
            apart,
        },
    )
}

pub fn project(name: &'static str) -> impl Strategy<Value = Project> {
    let networks = prop::collection::vec((any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)), 3);
    let containers = prop::collection::vec(choice(), 0..=NAMES.len());
    (containers, networks, 0..4u8, 0..3u8, prop::option::of(0..2u32)).prop_map(
        move |(containers, networks, rotation, shift, owner)| Project {
            name,
            containers,
            networks,
            rotation,
            shift,
            owner,
        },
    )
}

pub fn name(text: &str) -> ResourceName {
    text.parse().unwrap()
}

pub fn image(n: u8) -> ImageSource {
    ImageSource::Reference(format!("docker.io/library/image:{n}"))
}

/// The project as a parser would give it: no cycles, no conflicts, nothing undeclared.
pub fn desired(project: &Project) -> Desired {
    let owner = if project.name == BY_HAND { Whose::Nobody } else { project.name.parse().unwrap() };
    let mut desired = Desired::empty(owner);
    let base = base(project);
    for (n, (declared, internal, mtu)) in project.networks.iter().enumerate() {
        let third = (n + usize::from(project.rotation)) % 3;
        let prefix = if project.rotation == 3 { 25 } else { 24 };
        let subnet = declared.then(|| format!("10.{base}.{third}.0/{prefix}").parse().unwrap());
        let mtu = mtu.then_some(1400);
        let spec = NetworkSpec { internal: *internal, subnet, mtu, ..NetworkSpec::default() };
        desired.networks.insert(name(&format!("n{n}")), spec);
    }
    for n in 0..2 {
        let owner = project.owner.map(|uid| Owner { uid, gid: 0, mode: "0700".parse().unwrap() });
        desired.volumes.insert(name(&format!("v{n}")), VolumeSpec { owner, labels: BTreeMap::new() });
    }
    for (n, choice) in project.containers.iter().enumerate().filter(|(_, choice)| choice.there) {
        let spec = container(project, &desired, n, choice);
        let needed: Vec<ResourceName> = spec.depends_on.keys().cloned().collect();
        for name in needed {
            desired.containers.get_mut(&name).unwrap().spec.state = RunState::Running;
        }
        if let NetworkMode::Container(owner) = &spec.network {
            desired.containers.get_mut(owner).unwrap().spec.state = RunState::Running;
        }
        desired.images.insert(spec.image.clone(), Pull::Missing);
        desired
            .containers
            .insert(name(NAMES[n]), DesiredContainer { replicas: choice.replicas, spec, after_end: AfterEnd::Keep });
    }
    desired
}

fn container(project: &Project, desired: &Desired, n: usize, choice: &Choice) -> ContainerSpec {
    let mut spec = ContainerSpec::of(image(choice.image));
    spec.environment.insert("VALUE".to_owned(), choice.environment.to_string());
    spec.resources = Resources { memory: choice.memory.map(ByteSize::from_mib), ..Resources::default() };
    spec.restart = RestartPolicy::of(match choice.restart {
        0 => RestartCondition::No,
        1 => RestartCondition::OnFailure,
        2 => RestartCondition::Always,
        _ => RestartCondition::UnlessStopped,
    });
    spec.init = choice.init;
    if choice.start_first {
        spec.update.order = UpdateOrder::StartFirst;
    }
    match choice.update {
        0 => spec.update.failure_action = FailureAction::Pause,
        1 => spec.update.monitor = Timespan::from_secs(5),
        _ => {}
    }
    if choice.stopped {
        spec.state = RunState::Stopped;
    }
    if choice.check {
        spec.healthcheck = Some(Healthcheck::of(Probe::Tcp { port: 80 }));
    }
    match choice.volume {
        0 | 1 => {
            let mount = Mount::Volume {
                name: name(&format!("v{}", choice.volume)),
                access: Access::ReadWrite,
                filling: Filling::Image,
            };
            spec.mounts.insert("/data".to_owned(), mount);
        }
        _ => {}
    }
    // What is run by hand waits for nobody.
    for (needed, condition) in choice.needs.iter().filter(|_| project.name != BY_HAND) {
        let Some(needed) = NAMES[..n].get(usize::from(*needed)).map(|text| name(text)) else { continue };
        let Some(other) = desired.containers.get(&needed).filter(|other| other.replicas > 0) else { continue };
        let condition = match condition {
            1 if other.spec.healthcheck.is_some() => Condition::Healthy,
            // A test world gives each container one kind of dependents: what is waited for until it ends is not
            // healthy any more.
            2 if other.spec.healthcheck.is_none() && other.spec.restart.condition == RestartCondition::No => {
                Condition::Completed
            }
            _ => Condition::Started,
        };
        spec.depends_on.insert(needed, condition);
    }
    let owner = NAMES[..n].iter().map(|text| name(text)).find(|name| {
        desired
            .containers
            .get(name)
            .is_some_and(|c| c.replicas > 0 && matches!(c.spec.network, NetworkMode::Networks(_)))
    });
    spec.network = match (choice.mode, owner) {
        (0, _) => NetworkMode::None,
        (1, _) => NetworkMode::Host,
        (2, Some(owner)) => NetworkMode::Container(owner),
        _ => NetworkMode::Networks(attachments(project, n, choice)),
    };
    match (choice.apart, &spec.network) {
        (0, NetworkMode::Networks(_)) => spec.users = Users::Auto,
        (1, _) => spec.pid = Namespace::Host,
        (2, _) => spec.ipc = Namespace::Host,
        _ => {}
    }
    if let (NetworkMode::Networks(_), 0 | 1) = (&spec.network, choice.port) {
        let base = if project.name == BY_HAND { 7700 } else { 100 * base(project) };
        let host = format!("127.0.0.1:{}", base + (n as u16 + u16::from(project.shift)) % 5);
        spec.ports.insert(host.parse().unwrap(), 80 + u16::from(choice.port));
    }
    spec
}

fn attachments(project: &Project, n: usize, choice: &Choice) -> BTreeMap<ResourceName, Attachment> {
    let base = base(project);
    let mut attachments = BTreeMap::new();
    for network in (0..3usize).filter(|network| choice.networks >> network & 1 == 1) {
        let aliases = (choice.alias > 0).then(|| format!("alias{}", choice.alias)).into_iter().collect();
        let has_subnet = project.networks[network].0;
        let third = (network + usize::from(project.rotation)) % 3;
        let last = 50 + (n + usize::from(project.shift)) % 5;
        let is_fixed = choice.fixed && choice.replicas == 1 && has_subnet;
        let address = is_fixed.then(|| format!("10.{base}.{third}.{last}").parse().unwrap());
        attachments.insert(name(&format!("n{network}")), Attachment { aliases, address, address6: None });
    }
    attachments
}

/// A host that can do everything.
pub fn host() -> Actual {
    let controllers = ["memory", "cpu", "cpuset", "pids", "devices", "freezer"];
    Actual {
        host: HostFacts {
            bounding: evenkeel::model::security::Capability::all().collect(),
            controllers: controllers.map(str::to_owned).into(),
            forwards: Forwards { v4: true, v6: true },
            platform: "linux/amd64".to_owned(),
            routes: BTreeSet::from(["192.168.1.0/24".parse().unwrap()]),
            ..HostFacts::default()
        },
        ..Actual::default()
    }
}

/// Whether there is something to stop.
pub fn is_up(container: &ActualContainer) -> bool {
    matches!(container.liveness, Liveness::Monitored(_) | Liveness::Lost(_))
}

/// What `evenkeel run` plans: one container that nobody declares.
pub fn planned_by_hand(project: &Project, actual: &Actual, at: usize, seed: u64) -> Option<Plan> {
    let desired = desired(project);
    let target = desired.containers.keys().nth(at)?.clone();
    let policy = Policy { targets: BTreeSet::from([target]), ..Policy::default() };
    Some(plan(&desired, actual, &policy, &mut Ids::from_seed(seed)))
}

/// The plan under a policy that asks for no consent.
pub fn planned(desired: &Desired, actual: &Actual, seed: u64) -> Plan {
    let policy = Policy { mass_removal: MassRemoval::Allow, ..Policy::default() };
    plan(desired, actual, &policy, &mut Ids::from_seed(seed))
}

/// The plan of the service: nobody is there to ask for another try of what was rolled back.
pub fn watched(desired: &Desired, actual: &Actual, seed: u64) -> Plan {
    let refused_updates = RefusedUpdates::Leave;
    let policy = Policy { mass_removal: MassRemoval::Allow, refused_updates, ..Policy::default() };
    plan(desired, actual, &policy, &mut Ids::from_seed(seed))
}

/// Performs the steps that `performs` says, unless one that they wait for was not performed; in some order that the
/// edges allow, chosen by `pick` among the steps that are free.
pub fn execute(
    actual: &Actual,
    plan: &Plan,
    performs: impl Fn(usize) -> bool,
    mut pick: impl FnMut(usize) -> usize,
) -> Actual {
    let mut now = actual.clone();
    let (mut done, mut open) = (BTreeSet::new(), (0..plan.steps.len()).collect::<BTreeSet<usize>>());
    loop {
        let is_free = |id: &&usize| {
            !plan.steps[**id].is_rescue()
                && plan.steps[**id].after.iter().all(|before| done.contains(before))
                && performs(**id)
        };
        let free: Vec<usize> = open.iter().filter(is_free).copied().collect();
        if free.is_empty() {
            return now;
        }
        let id = free[pick(free.len()) % free.len()];
        now = perform(&now, plan, id);
        open.remove(&id);
        done.insert(id);
    }
}

fn perform(now: &Actual, plan: &Plan, id: usize) -> Actual {
    let Step { action, .. } = &plan.steps[id];
    now.after(action).unwrap_or_else(|unmet| panic!("step {id} is refused: {unmet}\n{action:#?}\n{}", told(plan)))
}

/// Executes `plan` as the product does, on a host where new and changed containers do not get ready that the bits of
/// `fails` name. The host itself refuses nothing, whatever fails.
pub fn tried(actual: &Actual, plan: &Plan, fails: u64) -> (Actual, Report) {
    let new: BTreeSet<ContainerId> = plan.steps.iter().filter_map(|step| updated(&step.action)).collect();
    // One that is changed back starts again.
    let reverted = Mutex::new(BTreeSet::new());
    let script = move |action: &Action| {
        let is_bad = |id: &ContainerId| {
            let number = id.to_string().bytes().fold(0u64, |sum, byte| sum * 31 + u64::from(byte));
            new.contains(id) && fails >> (number % 64) & 1 == 1 && !reverted.lock().unwrap().contains(id)
        };
        match action {
            Action::StartContainer { id } if is_bad(id) && fails & 1 == 0 => Some("no such command".to_owned()),
            Action::AwaitContainer { id, .. } if is_bad(id) => Some("it is unhealthy".to_owned()),
            Action::RefuseUpdate { record, .. } => {
                reverted.lock().unwrap().insert(record.id.clone());
                None
            }
            _ => None,
        }
    };
    let fake = Fake::failing(actual.clone(), script);
    let report = evenkeel::reconcile::execute::execute(&fake, plan, &Silent, &AtomicBool::new(false));
    for (id, outcome) in report.outcomes.iter().enumerate() {
        if let StepOutcome::Failed { causes, .. } = outcome {
            assert!(causes.len() == 1, "step {id} is refused: {causes:?}\n{}", told(plan));
        }
    }
    (fake.actual(), report)
}

fn updated(action: &Action) -> Option<ContainerId> {
    match action {
        Action::CreateContainer { record } | Action::UpdateContainer { record } => Some(record.id.clone()),
        _ => None,
    }
}

/// Everything, in the plan's own order, where nothing fails.
pub fn applied(actual: &Actual, plan: &Plan) -> Actual {
    let needed = (0..plan.steps.len()).filter(|id| !plan.steps[*id].is_rescue());
    needed.fold(actual.clone(), |now, id| perform(&now, plan, id))
}

/// The plan as lines with edges, for messages.
pub fn told(plan: &Plan) -> String {
    let lines = plan.steps.iter().enumerate().map(|(id, step)| {
        let action = serde_json::to_value(&step.action).unwrap();
        let kind = action["action"].as_str().unwrap().to_owned();
        let rescue =
            if step.is_rescue() { format!(" if one failed of {:?}", step.on_failure_of) } else { String::new() };
        format!("{id:3} {kind:18} {:30} {:?} {} after {:?}{rescue}\n", step.subject, step.mark, step.reason, step.after)
    });
    let refusals = plan.refusals.iter().map(|refusal| format!("refused: {refusal:?}\n"));
    lines.chain(refusals).collect()
}

/// Something that people, kernels and crashes do to a host.
#[derive(Debug, Clone)]
pub enum Event {
    Reboot,
    StopByHand(u8),
    Exit(u8, u8),
    LoseMonitor(u8),
    DamageLinks(u8),
    DamageFiles(u8),
    DamageNetwork(u8),
    DropFirewall,
    DropNames,
    ChangeLimits(u8),
    Forget(u8),
    /// Its record is removed by hand; `true`: its run directory too, so that nothing says whose it was.
    RemoveRecord(u8, bool),
    /// Of a network.
    RemoveNetworkRecord(u8),
    MoveImage(u8),
    LoseImage(u8),
    /// A layer of the image that this container is made of; its source may stand for another by now.
    DamageImage(u8),
}

pub fn event() -> impl Strategy<Value = Event> {
    let n = || any::<u8>();
    prop_oneof![
        Just(Event::Reboot),
        n().prop_map(Event::StopByHand),
        (n(), 0..2u8).prop_map(|(n, code)| Event::Exit(n, code)),
        n().prop_map(Event::LoseMonitor),
        n().prop_map(Event::DamageLinks),
        n().prop_map(Event::DamageFiles),
        n().prop_map(Event::DamageNetwork),
        Just(Event::DropFirewall),
        Just(Event::DropNames),
        n().prop_map(Event::ChangeLimits),
        n().prop_map(Event::Forget),
        (n(), any::<bool>()).prop_map(|(n, all)| Event::RemoveRecord(n, all)),
        n().prop_map(Event::RemoveNetworkRecord),
        (0..2u8).prop_map(Event::MoveImage),
        (0..2u8).prop_map(Event::LoseImage),
        n().prop_map(Event::DamageImage),
    ]
}

pub fn status(id: &ContainerId, phase: Phase, exit: Option<Exit>) -> Status {
    Status {
        version: STATUS_VERSION,
        launch_version: LAUNCH_VERSION,
        id: id.clone(),
        phase,
        pid: None,
        started_at: Some(std::time::SystemTime::UNIX_EPOCH),
        finished_at: None,
        exit,
        restarts: 0,
        restarts_in_a_row: None,
        next_start_at: None,
        health: None,
        error: None,
    }
}

pub fn happen(actual: &mut Actual, event: &Event) {
    let drift = || Drift { object: "link".into(), found: "missing".into(), wanted: "there".into() };
    match event {
        Event::Reboot => {
            for container in actual.containers.values_mut() {
                container.liveness = Liveness::Absent;
                container.limits = None;
                container.network_drift.clear();
            }
            for network in actual.networks.values_mut() {
                network.drift = vec![drift()];
                network.names = NameTable::default();
            }
            actual.firewall = None;
            actual.orphans.clear();
        }
        Event::DropFirewall => actual.firewall = None,
        Event::DropNames => actual.networks.values_mut().for_each(|network| network.names = NameTable::default()),
        Event::DamageNetwork(n) => {
            let count = actual.networks.len().max(1);
            if let Some(network) = actual.networks.values_mut().nth(usize::from(*n) % count) {
                network.drift = vec![drift()];
            }
        }
        Event::RemoveNetworkRecord(n) => {
            let count = actual.networks.len().max(1);
            if let Some(network) = actual.networks.keys().nth(usize::from(*n) % count).cloned() {
                actual.networks.remove(&network);
                actual.orphans.insert(Orphan::Bridge { network });
            }
        }
        Event::MoveImage(n) => {
            if let Some(known) = actual.images.get_mut(&image(*n)).filter(|known| known.image.is_some()) {
                known.moved = Some("the tag moved".to_owned());
            }
        }
        Event::LoseImage(n) => drop(actual.images.remove(&image(*n))),
        Event::StopByHand(n)
        | Event::Exit(n, _)
        | Event::LoseMonitor(n)
        | Event::DamageLinks(n)
        | Event::DamageFiles(n)
        | Event::DamageImage(n)
        | Event::ChangeLimits(n)
        | Event::Forget(n)
        | Event::RemoveRecord(n, _) => {
            let count = actual.containers.len().max(1);
            let Some(id) = actual.containers.keys().nth(usize::from(*n) % count).cloned() else { return };
            happen_to(actual, &id, event);
        }
    }
}

pub fn happen_to(actual: &mut Actual, id: &ContainerId, event: &Event) {
    if let (Event::DamageImage(_), Some(image)) = (event, &actual.containers[id].record.image) {
        actual.damaged.insert(image.clone(), [image.clone()].into());
    }
    let container = actual.containers.get_mut(id).unwrap();
    let ran = matches!(container.liveness, Liveness::Monitored(_));
    match event {
        Event::DamageFiles(_) => {
            container.broken = Some(Broken { why: "its upper layer is gone".to_owned(), has_files: false });
        }
        Event::Forget(_) => drop(actual.containers.remove(id)),
        Event::RemoveRecord(_, is_nobodys) => {
            let record = actual.containers.remove(id).unwrap().record;
            let project = record.project.project().filter(|_| !is_nobodys).cloned();
            let owner = project.map(|project| orphan::Owner { project, instance: record.instance });
            actual.orphans.insert(Orphan::Container {
                id: id.clone(),
                owner,
                remains: vec![Remains::ControlGroup, Remains::NetworkNamespace],
            });
            let link = Orphan::Link { name: format!("ek12abv{}", &id.as_str()[..8]) };
            actual.orphans.extend((!record.addresses.is_empty()).then_some(link));
        }
        _ if !ran => {}
        Event::StopByHand(_) => {
            container.liveness = Liveness::Ended(status(id, Phase::Stopped, None));
            container.limits = None;
            container.network_drift.clear();
        }
        Event::Exit(_, code) => {
            container.liveness = Liveness::Ended(status(id, Phase::Exited, Some(Exit::Code(*code))));
            container.limits = None;
            container.network_drift.clear();
        }
        Event::LoseMonitor(_) => container.liveness = Liveness::Lost(None),
        Event::DamageLinks(_) if container.record.addresses.is_empty() => {}
        Event::DamageLinks(_) => {
            container.network_drift =
                vec![Drift { object: "address".into(), found: "missing".into(), wanted: "there".into() }];
        }
        Event::ChangeLimits(_) => {
            container.limits = Some(Resources { memory: Some(ByteSize::from_mib(512)), ..Resources::default() });
        }
        _ => {}
    }
}

/// The firewall that the records of this host call for.
pub fn firewall(actual: &Actual) -> Ruleset {
    let serves = |c: &&ActualContainer| c.record.project != Whose::Nobody || is_up(c);
    let serving = actual.containers.values().filter(serves).map(|c| &c.record);
    let running = serving.filter(|r| r.spec.state == RunState::Running);
    Ruleset::of(actual.networks.values().map(|n| &n.record), running)
}
