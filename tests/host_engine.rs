//! The engine on a real kernel: actions come true, twice is like once, and nothing is left behind.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use evenkeel::engine::error::EngineError;
use evenkeel::engine::host::{Host, Settings};
use evenkeel::engine::{Engine, Scope, image};
use evenkeel::model::action::Action;
use evenkeel::model::actual::{ActualContainer, Liveness};
use evenkeel::model::container::{Condition, ContainerSpec};
use evenkeel::model::firewall::Ruleset;
use evenkeel::model::id::{ContainerId, Ids, VolumeKey};
use evenkeel::model::image::ImageSource;
use evenkeel::model::network::{Attachment, NetworkMode, NetworkSpec};
use evenkeel::model::orphan::{Orphan, Remains};
use evenkeel::model::paths::Paths;
use evenkeel::model::port::HostPort;
use evenkeel::model::record::{Addresses, ContainerRecord, NetworkRecord, RECORD_VERSION, VolumeRecord};
use evenkeel::model::status::Phase;
use evenkeel::model::units::{ByteSize, Timespan};
use evenkeel::model::volume::{Access, Filling, Mount, VolumeSpec};
use evenkeel::monitor;
use evenkeel::runtime::layer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{OwnHost, cgroup_of, eventually, on_a_host_of_its_own, run};

/// A network, a volume and a web server, as records.
struct Shop {
    source: ImageSource,
    network: NetworkRecord,
    volume: VolumeRecord,
    web: ContainerRecord,
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 89, 3, 2);

fn shop(own: &OwnHost) -> Shop {
    let mut ids = Ids::from_seed(7);
    let project: evenkeel::model::id::Whose = "shop".parse().unwrap();
    let source = ImageSource::Rootfs(own.rootfs());
    let network = NetworkRecord {
        version: RECORD_VERSION,
        id: ids.network(),
        project: project.clone(),
        name: "front".parse().unwrap(),
        spec: NetworkSpec::default(),
        subnet: "10.89.3.0/24".parse().unwrap(),
        subnet6: None,
    };
    let volume = VolumeRecord {
        version: RECORD_VERSION,
        key: VolumeKey { project: project.clone(), name: "pages".parse().unwrap() },
        spec: VolumeSpec::default(),
    };
    let pages = Mount::Volume { name: "pages".parse().unwrap(), access: Access::ReadOnly, filling: Filling::Image };
    let spec = ContainerSpec {
        command: Some(["httpd", "-f", "-p", "80", "-h", "/var/www"].map(str::to_owned).to_vec()),
        network: NetworkMode::Networks([("front".parse().unwrap(), Attachment::default())].into()),
        ports: BTreeMap::from([("127.0.0.1:8088".parse::<HostPort>().unwrap(), 80)]),
        mounts: [("/var/www".to_owned(), pages)].into(),
        ..ContainerSpec::of(source.clone())
    };
    let web = ContainerRecord {
        version: RECORD_VERSION,
        id: ids.container(),
        project,
        instance: "web".parse().unwrap(),
        spec,
        image: None,
        addresses: [(network.id.clone(), Addresses { v4: ADDRESS, v6: None })].into(),
        network_of: None,
        users: None,
        way_out: Default::default(),
        after_end: Default::default(),
        refused: None,
        before: None,
    };
    Shop { source, network, volume, web }
}

impl Shop {
    /// What a plan for it would do.
    fn actions(&self) -> Vec<Action> {
        let id = self.web.id.clone();
        let timeout = Timespan::from_secs(10);
        vec![
            Action::FetchImage { source: self.source.clone(), bases: None },
            Action::EnsureNetwork { record: self.network.clone() },
            Action::EnsureVolume { record: self.volume.clone() },
            Action::CreateContainer { record: Box::new(self.web.clone()) },
            Action::SetFirewall { ruleset: Ruleset::of([&self.network], [&self.web]) },
            Action::StartContainer { id: id.clone() },
            Action::AwaitContainer { id, condition: Condition::Started, timeout, stays: Timespan::ZERO },
        ]
    }

    fn apply(&self, own: &OwnHost) {
        for action in self.actions() {
            own.host.perform(&action).unwrap_or_else(|error| panic!("{action:?}: {error:?}"));
        }
    }

    fn remove(&self, own: &OwnHost) {
        for action in [
            Action::StopContainer { id: self.web.id.clone() },
            Action::RemoveContainer { id: self.web.id.clone() },
            Action::SetFirewall { ruleset: Ruleset::default() },
            Action::RemoveNetwork { id: self.network.id.clone() },
        ] {
            own.host.perform(&action).unwrap_or_else(|error| panic!("{action:?}: {error:?}"));
        }
    }
}

fn observe(own: &OwnHost, id: &ContainerId) -> ActualContainer {
    own.host.observe(&Scope::default()).unwrap().containers.remove(id).expect("the container has a record")
}

fn pid(container: &ActualContainer) -> u32 {
    match &container.liveness {
        Liveness::Monitored(status) => status.pid.expect("it runs"),
        other => panic!("{other:?}"),
    }
}

fn get(address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(address, port).into(), std::time::Duration::from_secs(2))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_container_serves_its_page_and_leaves_nothing_behind() {
    on_a_host_of_its_own(|own| {
        let shop = shop(own);
        shop.apply(own);
        eventually("the page is served", || get(ADDRESS, 80).is_ok_and(|page| page.contains("hello from a container")));
        assert!(get(Ipv4Addr::LOCALHOST, 8088).unwrap().contains("hello from a container"));

        let actual = own.host.observe(&Scope::default()).unwrap();
        assert_eq!(actual.containers[&shop.web.id].network_drift, []);
        assert_eq!(actual.networks[&shop.network.id].drift, []);
        assert_eq!(actual.firewall, Some(Ruleset::of([&shop.network], [&shop.web])));

        let before = pid(&observe(own, &shop.web.id));
        shop.apply(own);
        assert_eq!(pid(&observe(own, &shop.web.id)), before, "applying again touches no process");

        let (mounts, run) = (own_mounts(own), own.host.paths().run.clone());
        let shared = |line: &String| line.contains("/mounted ro,nosuid,nodev,noexec,") && line.contains(" - erofs ");
        let all = mounts.iter().all(|line| line.contains("nsfs") || shared(line));
        assert!(all, "only namespaces are pinned, and layers shared: {mounts:?}");
        let layers = fs::read_dir(own.host.paths().root.join("layers")).unwrap();
        let images = layers.filter(|layer| layer.as_ref().unwrap().path().join(layer::IMAGE).exists()).count();
        assert_eq!(mounts.iter().filter(|line| shared(line)).count(), images, "each layer once: {mounts:?}");
        shop.remove(own);
        own.host.tidy(&own.host.lock(Duration::from_secs(10)).unwrap()).unwrap();
        assert_eq!(own_mounts(own), Vec::<String>::new());
        assert!(fs::read_dir(run.join("containers")).unwrap().next().is_none());
        assert!(fs::read_dir(run.join("netns")).unwrap().next().is_none());
        assert!(!run_links().contains("ek"), "{}", run_links());
        assert!(fs::metadata(format!("/proc/{before}")).is_err(), "the process is gone");
        assert!(own.host.paths().volume_data(&shop.volume.key).join("index.html").exists(), "the volume stays");
    });
}

#[test]
fn limits_change_while_the_process_runs_and_drift_is_seen() {
    on_a_host_of_its_own(|own| {
        let mut shop = shop(own);
        shop.apply(own);
        let before = pid(&observe(own, &shop.web.id));
        shop.web.spec.resources.memory = Some(ByteSize::from_mib(64));
        shop.web.spec.resources.pids = Some(50);
        own.host.perform(&Action::UpdateContainer { record: Box::new(shop.web.clone()) }).unwrap();
        let container = observe(own, &shop.web.id);
        assert_eq!(pid(&container), before);
        assert_eq!(container.limits, Some(shop.web.spec.resources.clone()));

        fs::write(cgroup_of(before, "pids").join("pids.max"), "77").unwrap();
        assert_eq!(observe(own, &shop.web.id).limits.unwrap().pids, Some(77));
        shop.remove(own);
    });
}

#[test]
fn a_monitor_that_was_killed_is_noticed_and_its_container_starts_anew() {
    on_a_host_of_its_own(|own| {
        let shop = shop(own);
        shop.apply(own);
        let workload = pid(&observe(own, &shop.web.id));
        let stat = fs::read_to_string(format!("/proc/{workload}/status")).unwrap();
        let monitor = stat.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        eventually("the loss is seen", || matches!(observe(own, &shop.web.id).liveness, Liveness::Lost(_)));
        own.host.perform(&Action::StopContainer { id: shop.web.id.clone() }).unwrap();
        own.host.perform(&Action::StartContainer { id: shop.web.id.clone() }).unwrap();
        let container = observe(own, &shop.web.id);
        assert!(matches!(&container.liveness, Liveness::Monitored(status) if status.phase == Phase::Running));
        assert_ne!(pid(&container), workload);
        shop.remove(own);
    });
}

/// A service may be killed in the middle of a start; the monitor goes on without it.
#[test]
fn a_start_that_is_under_way_is_seen_when_it_has_ended() {
    on_a_host_of_its_own(|own| {
        let shop = shop(own);
        let (start, before): (Vec<_>, Vec<_>) =
            shop.actions().into_iter().partition(|action| matches!(action, Action::StartContainer { .. }));
        for action in before.iter().filter(|action| !matches!(action, Action::AwaitContainer { .. })) {
            own.host.perform(action).unwrap();
        }
        let directory = own.host.paths().container_run(&shop.web.id);
        let is_under_way =
            || fs::read_to_string(directory.join("status.json")).is_ok_and(|status| status.contains("\"starting\""));
        let signal = |signal| {
            for process in processes_of(&directory) {
                // One that has ended since needs no signal.
                let _ = kill(process, signal);
            }
        };
        std::thread::scope(|scope| {
            loop {
                let starting = scope.spawn(|| own.host.perform(&start[0]));
                while !is_under_way() && !starting.is_finished() {}
                signal(Signal::SIGSTOP);
                if is_under_way() && !starting.is_finished() {
                    break;
                }
                // Too late: once more.
                signal(Signal::SIGCONT);
                starting.join().unwrap().unwrap();
                own.host.perform(&Action::StopContainer { id: shop.web.id.clone() }).unwrap();
            }
            let again = scope.spawn(|| own.host.perform(&start[0]));
            let seen = scope.spawn(|| pid(&observe(own, &shop.web.id)));
            std::thread::sleep(std::time::Duration::from_millis(200));
            let both_wait = !again.is_finished() && !seen.is_finished();
            signal(Signal::SIGCONT);
            assert!(both_wait, "nothing is known of a start that has not ended");
            again.join().unwrap().unwrap();
            assert_eq!(seen.join().unwrap(), pid(&observe(own, &shop.web.id)));
        });
        shop.remove(own);
    });
}

/// It has written its last word, and holds the lock of its run directory for the moments that its goodbye takes.
#[test]
fn a_start_that_meets_the_last_moments_of_a_monitor_waits_for_its_end() {
    on_a_host_of_its_own(|own| {
        let shop = shop(own);
        shop.apply(own);
        own.host.perform(&Action::StopContainer { id: shop.web.id.clone() }).unwrap();
        let lock = monitor::lock::acquire(&own.host.paths().container_run(&shop.web.id)).unwrap();
        std::thread::scope(|scope| {
            let start = scope.spawn(|| own.host.perform(&Action::StartContainer { id: shop.web.id.clone() }));
            std::thread::sleep(Duration::from_millis(200));
            drop(lock);
            start.join().unwrap().unwrap();
        });
        assert!(Path::new(&format!("/proc/{}", pid(&observe(own, &shop.web.id)))).exists());
        shop.remove(own);
    });
}

/// A record that was moved away, and a status that nobody can read: the container is an orphan, and goes.
#[test]
fn an_orphan_whose_status_cannot_be_read_keeps_nobody_from_looking() {
    on_a_host_of_its_own(|own| {
        let id: ContainerId = Ids::from_seed(9).container();
        let directory = own.host.paths().container_run(&id);
        fs::create_dir_all(&directory).unwrap();
        for status in ["{", "{\"version\": 1000}"] {
            fs::write(directory.join("status.json"), status).unwrap();
            let orphans = own.host.observe(&Scope::default()).unwrap().orphans;
            let remains = vec![Remains::RunDirectory];
            assert_eq!(orphans, [Orphan::Container { id: id.clone(), owner: None, remains }].into());
        }
        let orphan = own.host.observe(&Scope::default()).unwrap().orphans.pop_first().unwrap();
        own.host.perform(&Action::RemoveOrphan { orphan }).unwrap();
        assert!(!directory.exists());
    });
}

/// The monitor of a run directory, and what it has forked and not yet become another program.
fn processes_of(directory: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_of = |number: &i32| {
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(directory.as_os_str().as_encoded_bytes())
    };
    processes.filter(is_of).map(Pid::from_raw).collect()
}

fn own_mounts(own: &OwnHost) -> Vec<String> {
    let root = own.directory.path().to_string_lossy().into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&root)).map(str::to_owned).collect()
}

fn run_links() -> String {
    run(&["ip", "-o", "link"])
}

#[test]
fn a_run_directory_serves_one_state_root() {
    on_a_host_of_its_own(|own| {
        let open = |root: &str| {
            let at = |name: &str| own.directory.path().join(name);
            let paths = Paths { root: at(root), run: at("run") };
            let images = image::Options::new(env!("CARGO_BIN_EXE_evenkeel").into());
            Host::open(Settings { paths, monitor: env!("CARGO_BIN_EXE_evenkeel-monitor").into(), images }).map(drop)
        };
        assert!(open("root").is_ok());
        let refused = open("other").unwrap_err();
        assert!(matches!(&refused, EngineError::RunDirectory { owner, .. } if owner.ends_with("root")), "{refused}");
        assert!(refused.hint().is_some_and(|hint| hint.contains("--run")));
    });
}
