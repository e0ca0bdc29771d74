//! Plans as text: golden cases.
//!
//! `tests/plan/<case>/` holds manifests, `expected.txt` (the plan as `evenkeel plan` prints it, with its edges), and a
//! script `case.txt` of what happens, line by line:
//!
//! ```text
//! host route 10.89.0.0/16            also: drops-forwarded FAMILY TABLE CHAIN, listening PORT, lacks-controller NAME, lacks-capability NAME,
//!                                    hard-limit NAME N, forwards nothing
//! apply before.toml [first N steps]  through the fake engine
//! apply after.toml while NAME fails  it cannot be started once it is new or changed
//! reboot                             also: stop NAME, exit NAME CODE, lose-monitor NAME, age-monitor NAME, cut-link NAME,
//!                                    damage-files NAME, damage-image NAME, limit-memory NAME SIZE, forget NAME, give-up NAME RESTARTS,
//!                                    change-contexts, move-image IMAGE, lose-image IMAGE, silence-registry-of IMAGE, drop-firewall, break-network NAME,
//!                                    remove-record NAME, remove-network-record NAME, damage-record NAME [wholly], damage-volume-record NAME
//! image IMAGE keeps PATH             the image, once it is fetched, declares a volume there
//! container NAME keeps PATH          the image that it was made of declared one, whatever its name stands for now
//! lock FILE                          from now on manifests are locked by this file
//! image-is-also IMAGE DIGEST         what is here by a tag has this digest at the registry
//! tag-is IMAGE DIGEST                what the registry says of the tag of a locked image; tag-unknown IMAGE: it is silent
//! hide-files-of IMAGE                it is not here, and what it is made of cannot be read
//! volume NAME is-at PATH             where its data is; chown-volume NAME: somebody changed its owner
//! hide-status NAME                   the file is there and no status; hide-record NAME: the disk does not give the record
//! upgrade-records-of PROJECT         a newer version wrote them
//! plan after.toml [--target NAME] [--remove-volume NAME] [--discard-data NAME] [--allow-mass-removal]
//!                 [--as-watch]       what was rolled back is not tried again
//! ```
//!
//! Without a script `before.toml` is applied, if it is there, and `after.toml` planned. Every plan that is not refused
//! must converge. `UPDATE=1 cargo test --test plan` rewrites what is expected.

mod worlds;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use evenkeel::engine::fake::Fake;
use evenkeel::manifest::{self, Colour, FileKind, Source, Surroundings};
use evenkeel::model::action::Action;
use evenkeel::model::actual::{Actual, ActualContainer, ActualImage, Drift, Forwards, Liveness, Tag};
use evenkeel::model::desired::Desired;
use evenkeel::model::id::{ContainerId, Ids, Whose};
use evenkeel::model::image::ImageSource;
use evenkeel::model::lock::{Locks, pinned};
use evenkeel::model::orphan::{Orphan, Remains};
use evenkeel::model::record::ContainerRecord;
use evenkeel::model::resources::Resources;
use evenkeel::model::status::{Exit, Phase};
use evenkeel::model::unreadable::{Cause, Name, Object, Unreadable};
use evenkeel::plan::render::render;
use evenkeel::plan::{MassRemoval, Plan, Policy, RefusedUpdates, plan};
use evenkeel::reconcile::execute::Silent;
use worlds::{Event, applied, execute, happen, happen_to, host, status};

#[test]
fn plans_read_as_expected() {
    let mut wrong = String::new();
    let mut cases: Vec<PathBuf> =
        fs::read_dir(repository("tests/plan")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "the cases are found");
    for case in cases {
        let actual = Case { directory: &case, host: host(), seed: 0, locks: Locks::new() }.run();
        let path = case.join("expected.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &actual).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if actual != expected {
            let name = path.display();
            writeln!(wrong, "{name} differs:\n--- expected\n{expected}\n--- actual\n{actual}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

struct Case<'a> {
    directory: &'a Path,
    host: Actual,
    seed: u64,
    locks: Locks,
}

impl Case<'_> {
    fn run(mut self) -> String {
        let script = fs::read_to_string(self.directory.join("case.txt")).unwrap_or_else(|_| {
            let before = self.directory.join("before.toml").exists();
            format!("{}plan after.toml", if before { "apply before.toml\n" } else { "" })
        });
        let mut out = String::new();
        for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["host", fact @ ..] => self.fact(fact),
                ["apply", file] => self.apply(file, usize::MAX),
                ["apply", file, "first", steps, "steps"] => self.apply(file, steps.parse().unwrap()),
                ["apply", file, "while", name, "fails"] => self.apply_in_vain(file, name),
                ["lock", file] => self.lock(file),
                ["plan", file, options @ ..] => out.push_str(&self.plan(file, options)),
                event => self.event(event),
            }
        }
        out
    }

    fn desired(&self, file: &str) -> Desired {
        let path = PathBuf::from(file);
        let text = fs::read_to_string(self.directory.join(file)).unwrap();
        let surroundings = Surroundings {
            directory: Path::new("/project"),
            variable: &|_| None,
            // Whatever a manifest names is there.
            file_kind: &|path| match path.ends_with("Dockerfile") {
                true => Some(FileKind::File),
                false => Some(FileKind::Directory),
            },
            read_file: &|_| Ok("FROM scratch AS base\nARG VERSION\n".to_owned()),
        };
        let loaded = manifest::parse(vec![vec![Source { path, text }]], &surroundings);
        match loaded {
            Ok(loaded) => loaded.desired.locked(&self.locks),
            Err(problems) => panic!("{}: {}", self.directory.display(), problems.render(Colour::Plain)),
        }
    }

    fn lock(&mut self, file: &str) {
        let text = fs::read_to_string(self.directory.join(file)).unwrap();
        self.locks = manifest::parse_lock(Source { path: file.into(), text }).unwrap();
    }

    fn planned(&mut self, desired: &Desired, policy: &Policy) -> Plan {
        self.seed += 1;
        plan(desired, &self.host, policy, &mut Ids::from_seed(self.seed))
    }

    fn damage(&mut self, object: Object) {
        self.host.unreadable.insert(Unreadable {
            project: Some("shop".parse().unwrap()),
            name: None,
            path: "/root/record.json".into(),
            cause: Cause::Damaged,
            problem: format!("`/root/record.json` of {object} is not a record of Evenkeel: expected value"),
            object,
            users: None,
            addresses: BTreeMap::new(),
        });
    }

    fn apply(&mut self, file: &str, first: usize) {
        let plan = self.planned(&self.desired(file), &Policy::default());
        assert!(plan.refusals.is_empty(), "{}: {:?}", self.directory.display(), plan.refusals);
        self.host = execute(&self.host, &plan, |id| id < first, |_| 0);
    }

    /// A new container of this name does not get ready.
    fn apply_in_vain(&mut self, file: &str, name: &str) {
        let plan = self.planned(&self.desired(file), &Policy::default());
        let bad: Vec<ContainerId> = plan.steps.iter().filter_map(|step| updated(&step.action, name)).collect();
        let tried = Mutex::new(BTreeSet::new());
        let fake = Fake::failing(self.host.clone(), move |action| match action {
            // One that is changed back starts again.
            Action::StartContainer { id } if bad.contains(id) && tried.lock().unwrap().insert(id.clone()) => {
                Some("the command `serve` is not there".to_owned())
            }
            _ => None,
        });
        drop(evenkeel::reconcile::execute::execute(&fake, &plan, &Silent, &AtomicBool::new(false)));
        self.host = fake.actual();
    }

    fn plan(&mut self, file: &str, options: &[&str]) -> String {
        let desired = self.desired(file);
        let mut policy = Policy::default();
        for option in options.chunks(2) {
            match option {
                ["--target", name] => drop(policy.targets.insert(name.parse().unwrap())),
                ["--remove-volume", name] => drop(policy.expendable_volumes.insert(name.parse().unwrap())),
                ["--discard-data", name] => drop(policy.expendable_data.insert(name.parse().unwrap())),
                ["--as-watch"] => policy.refused_updates = RefusedUpdates::Leave,
                ["--allow-mass-removal"] => policy.mass_removal = MassRemoval::Allow,
                other => panic!("no such option: {other:?}"),
            }
        }
        let plan = self.planned(&desired, &policy);
        if plan.refusals.is_empty() {
            let after = applied(&self.host, &plan);
            let next = evenkeel::plan::plan(&desired, &after, &policy, &mut Ids::from_seed(99));
            assert!(next.is_empty(), "{} does not converge:\n{}", self.directory.display(), text(&next));
        }
        text(&plan)
    }

    fn fact(&mut self, words: &[&str]) {
        let facts = &mut self.host.host;
        match words {
            ["route", subnet] => drop(facts.routes.insert(subnet.parse().unwrap())),
            ["listening", port] => drop(facts.listening.insert(port.parse().unwrap())),
            ["drops-forwarded", family, table, chain] => {
                facts.forward_drops.insert(format!("{family} {table} {chain}"));
            }
            ["forwards", "nothing"] => facts.forwards = Forwards::default(),
            ["lacks-controller", name] => drop(facts.controllers.remove(*name)),
            ["lacks-capability", name] => drop(facts.bounding.remove(&name.parse().unwrap())),
            ["hard-limit", name, limit] => drop(facts.hard_limits.insert((*name).to_owned(), limit.parse().unwrap())),
            other => panic!("no such fact: {other:?}"),
        }
    }

    fn event(&mut self, words: &[&str]) {
        match words {
            ["reboot"] => happen(&mut self.host, &Event::Reboot),
            ["drop-firewall"] => happen(&mut self.host, &Event::DropFirewall),
            ["stop", name] => self.happen_to(name, &Event::StopByHand(0)),
            ["exit", name, code] => self.happen_to(name, &Event::Exit(0, code.parse().unwrap())),
            ["lose-monitor", name] => self.happen_to(name, &Event::LoseMonitor(0)),
            ["age-monitor", name] => match &mut self.container(name).liveness {
                Liveness::Monitored(status) => status.launch_version -= 1,
                other => panic!("{name} has no monitor: {other:?}"),
            },
            ["cut-link", name] => self.happen_to(name, &Event::DamageLinks(0)),
            ["damage-image", name] => self.happen_to(name, &Event::DamageImage(0)),
            ["damage-files", name] => self.happen_to(name, &Event::DamageFiles(0)),
            ["remove-record", name] => self.happen_to(name, &Event::RemoveRecord(0, false)),
            ["forget", name] => self.happen_to(name, &Event::Forget(0)),
            ["limit-memory", name, size] => {
                let memory = Some(size.parse().unwrap());
                self.container(name).limits = Some(Resources { memory, ..Resources::default() });
            }
            ["give-up", name, restarts] => {
                let container = self.container(name);
                let mut status = status(&container.record.id, Phase::Exited, Some(Exit::Code(1)));
                status.restarts = restarts.parse().unwrap();
                container.liveness = Liveness::Ended(status);
                container.limits = None;
            }
            ["move-image", image] => {
                let known = self.host.images.get_mut(&reference(image)).unwrap();
                known.moved = Some("its tag stands for another image".to_owned());
            }
            ["image-is-also", image, digest] => {
                let known = self.host.images[&reference(image)].clone();
                self.host.images.insert(pinned(image, &digest.parse().unwrap()), known);
            }
            ["tag-is", image, digest] => self.tag(image, &Tag::Is(digest.parse().unwrap())),
            ["tag-unknown", image] => self.tag(image, &Tag::Unknown("cannot reach the registry".to_owned())),
            ["change-contexts"] => {
                for (source, known) in &mut self.host.images {
                    let built = matches!(source, ImageSource::Build(_));
                    known.moved = built.then(|| "files of its context changed".to_owned());
                }
            }
            ["image", image, "keeps", path] => {
                let image = self.host.images.get_mut(&reference(image)).unwrap().image.as_mut().unwrap();
                image.config.volumes.push((*path).to_owned());
            }
            ["container", name, "keeps", path] => {
                let image = self.container(name).record.image.clone().unwrap();
                self.host.made_of.entry(image).or_default().volumes.push((*path).to_owned());
            }
            ["hide-files-of", image] => {
                let unasked = Some("cannot read `/project/Dockerfile`: permission denied".to_owned());
                self.host.images.insert(reference(image), ActualImage { unasked, ..ActualImage::default() });
            }
            ["volume", name, "is-at", path] => {
                let volume = self.host.volumes.values_mut().find(|v| v.record.key.name.as_str() == *name);
                volume.unwrap().data = path.into();
            }
            ["chown-volume", name] => {
                let volume = self.host.volumes.values_mut().find(|v| v.record.key.name.as_str() == *name);
                let (object, found, wanted) = ("owner of its data", "0:0 0777", "999:999 0700");
                let drift = Drift { object: object.into(), found: found.into(), wanted: wanted.into() };
                volume.unwrap().drift = vec![drift];
            }
            ["upgrade-records-of", project] => self.outdate(&project.parse().unwrap()),
            ["silence-registry-of", image] => {
                let known = self.host.images.get_mut(&reference(image)).unwrap();
                known.unasked = Some("cannot reach the registry".to_owned());
            }
            ["lose-image", image] => drop(self.host.images.remove(&reference(image)).unwrap()),
            ["damage-volume-record", name] => {
                let key = self.host.volumes.keys().find(|key| key.name.as_str() == *name).unwrap().clone();
                self.host.volumes.remove(&key);
                self.damage(Object::Volume(key));
            }
            ["damage-record", name] => {
                let id = self.container(name).record.id.clone();
                self.happen_to(name, &Event::RemoveRecord(0, false));
                self.damage(Object::Container(id));
            }
            // Nothing tells whose it was: the launch file went with the boot.
            ["damage-record", name, "wholly"] => {
                let id = self.container(name).record.id.clone();
                self.host.containers.remove(&id);
                self.host.orphans.insert(Orphan::Container {
                    id: id.clone(),
                    owner: None,
                    remains: vec![Remains::Files],
                });
                self.damage(Object::Container(id));
                self.host.unreadable = std::mem::take(&mut self.host.unreadable)
                    .into_iter()
                    .map(|record| Unreadable { project: None, ..record })
                    .collect();
            }
            ["hide-status", name] => {
                let ContainerRecord { id, project, instance, users, addresses, .. } =
                    self.container(name).record.clone();
                self.host.containers.remove(&id);
                self.host.unreadable.insert(Unreadable {
                    project: Some(project),
                    name: Some(Name::Container(instance)),
                    path: "/run/status.json".into(),
                    cause: Cause::Unreachable,
                    problem: "`/run/status.json` is no status of a container: expected value".to_owned(),
                    object: Object::Container(id),
                    users,
                    addresses,
                });
            }
            ["hide-record", name] => {
                let id = self.container(name).record.id.clone();
                self.host.containers.remove(&id);
                self.host.unreadable.insert(Unreadable {
                    project: None,
                    name: None,
                    path: "/root/record.json".into(),
                    cause: Cause::Unreachable,
                    problem: "cannot read `/root/record.json`: Input/output error".to_owned(),
                    object: Object::Container(id),
                    users: None,
                    addresses: BTreeMap::new(),
                });
            }
            ["remove-network-record", name] => {
                let at = self.host.networks.values().position(|n| n.record.name.as_str() == *name).unwrap();
                happen(&mut self.host, &Event::RemoveNetworkRecord(at as u8));
            }
            ["break-network", name] => {
                let network = self.host.networks.values_mut().find(|n| n.record.name.as_str() == *name).unwrap();
                let (object, found, wanted) = ("bridge".to_owned(), "missing".to_owned(), "there".to_owned());
                network.drift = vec![Drift { object, found, wanted }];
            }
            other => panic!("no such event: {other:?}"),
        }
    }

    fn tag(&mut self, image: &str, tag: &Tag) {
        self.host.images.entry(pinned(image, &self.locks[image])).or_default().tag = Some(tag.clone());
    }

    /// A newer version wrote the records of this project: nobody here can read them.
    fn outdate(&mut self, project: &Whose) {
        let containers = self.host.containers.values().filter(|c| c.record.project == *project);
        let networks = self.host.networks.values().filter(|n| n.record.project == *project);
        let containers = containers.map(|c| {
            let name = Name::Container(c.record.instance.clone());
            (Object::Container(c.record.id.clone()), name, c.record.users, c.record.addresses.clone())
        });
        let networks = networks.map(|n| {
            (Object::Network(n.record.id.clone()), Name::Network(n.record.name.clone()), None, BTreeMap::new())
        });
        let unreadable = containers.chain(networks).map(|(object, name, users, addresses)| Unreadable {
            project: Some(project.clone()),
            name: Some(name),
            path: "/root/record.json".into(),
            cause: Cause::Newer,
            problem: format!("`/root/record.json` of {object} has version 2"),
            object,
            users,
            addresses,
        });
        self.host.unreadable = unreadable.collect();
        self.host.containers.retain(|_, c| c.record.project != *project);
        self.host.networks.retain(|_, n| n.record.project != *project);
    }

    fn id(&self, name: &str) -> ContainerId {
        let found = self.host.containers.values().find(|c| c.record.instance.to_string() == name);
        found.unwrap_or_else(|| panic!("no container {name}")).record.id.clone()
    }

    fn container(&mut self, name: &str) -> &mut ActualContainer {
        let id = self.id(name);
        self.host.containers.get_mut(&id).unwrap()
    }

    fn happen_to(&mut self, name: &str, event: &Event) {
        let id = self.id(name);
        happen_to(&mut self.host, &id, event);
    }
}

/// The container of this instance that an action makes.
fn updated(action: &Action, name: &str) -> Option<ContainerId> {
    match action {
        Action::CreateContainer { record } | Action::UpdateContainer { record }
            if record.instance.to_string() == name =>
        {
            Some(record.id.clone())
        }
        _ => None,
    }
}

fn reference(image: &str) -> ImageSource {
    ImageSource::Reference(image.to_owned())
}

/// The plan as it is printed, and then its steps with their edges.
fn text(plan: &Plan) -> String {
    let mut out: String = render(plan).iter().map(|line| format!("{line}\n")).collect();
    if !plan.is_empty() {
        out.push('\n');
    }
    for (id, step) in plan.steps.iter().enumerate() {
        let action = serde_json::to_value(&step.action).unwrap();
        let action = action["action"].as_str().unwrap().replace('_', " ");
        let after: Vec<String> = step.after.iter().map(ToString::to_string).collect();
        let after_failure: Vec<String> = step.on_failure_of.iter().map(ToString::to_string).collect();
        let after = if after.is_empty() { String::new() } else { format!("  after {}", after.join(" ")) };
        let rescue = match step.is_rescue() {
            true => format!("  if {} fails", after_failure.join(" or ")),
            false => String::new(),
        };
        writeln!(out, "{id:>3} {action} ({}){after}{rescue}", step.subject).unwrap();
    }
    out
}
