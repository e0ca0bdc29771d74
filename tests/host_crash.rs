//! `kill -9` of an apply at one step after the other: the next apply takes it up, and nothing of the first one is left.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use evenkeel::engine::host::tag;
use support::{busybox_rootfs, in_a_network_of_its_own, room_for_a_root, run};

/// Two states of one project, chosen so that going from one to the other creates, changes, restarts, replaces in both
/// orders and removes; `network` is replaced, another one changed.
const STATES: [&str; 2] = [
    r#"
[networks.front]
subnet = "10.211.3.0/24"
[networks.back]
[containers.web]
replicas = 3
environment = { STATE = "a" }
ports = { 18181 = 80 }
networks = { front = { aliases = ["one"] }, back = {} }
resources = { memory = "32MiB" }
[containers.side]
network_mode = "container:db"
[containers.db]
environment = { STATE = "a" }
networks = ["back"]
"#,
    r#"
[networks.front]
subnet = "10.211.4.0/24"
[networks.back]
mtu = 1400
[containers.web]
replicas = 2
environment = { STATE = "b" }
ports = { 18182 = 80 }
networks = { front = { aliases = ["two"] }, back = {} }
resources = { memory = "48MiB" }
update = { order = "start-first" }
[containers.job]
init = true
[containers.db]
environment = { STATE = "b" }
networks = ["back"]
"#,
];

/// The lines of `STATES` with what all containers have.
fn manifest(state: &str) -> String {
    let common =
        "image = \"box\"\ncommand = [\"sleep\", \"100000\"]\nstop_signal = \"SIGKILL\"\nrestart = \"always\"\n";
    let containers = state.replace("]\nreplicas", &format!("]\n{common}replicas"));
    let containers = containers.replace("[containers.side]\n", &format!("[containers.side]\n{common}"));
    let containers = containers.replace("[containers.job]\n", &format!("[containers.job]\n{common}"));
    let check = "healthcheck = { command = [\"true\"], interval = \"1s\" }\n";
    let containers = containers.replace("[containers.db]\n", &format!("[containers.db]\n{common}{check}"));
    let needs = "depends_on = { db = \"healthy\" }\nports";
    format!("project = \"crash\"\n[images.box]\nrootfs = \"rootfs\"\n{}", containers.replace("ports", needs))
}

fn evenkeel(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(arguments).current_dir(directory).env_clear().stdin(Stdio::null());
    command.env("EVENKEEL_ROOT", directory.join("root")).env("EVENKEEL_RUN", directory.join("run"));
    command
}

fn finished(mut command: Command) -> Output {
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Applies until `steps` of them are said to be done, and kills it then and there.
fn killed_after(directory: &Path, steps: usize) {
    let mut command = evenkeel(directory, &["apply"]);
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let done = lines.map_while(Result::ok).filter(|line| line.starts_with("done")).take(steps).count();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(done > 0 || steps == 0, "the steps are told while they are done");
}

/// What the kernel has of this project: links of the host, pinned namespaces, monitors and cgroups.
fn kernel_objects(directory: &Path) -> [usize; 4] {
    let root = directory.join("root").canonicalize().unwrap();
    let ours = format!("ek{}", tag(&root));
    let links = run(&["ip", "-br", "link"]).lines().filter(|line| line.starts_with(&ours)).count();
    let namespaces = fs::read_dir(directory.join("run/netns")).map_or(0, Iterator::count);
    let monitor = directory.join("run").to_string_lossy().into_owned();
    let commands = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let commands = commands.map(|command| String::from_utf8_lossy(&command).into_owned());
    // A monitor that runs a health check is for a moment two of the same command.
    let monitors: BTreeSet<String> =
        commands.filter(|command| command.contains("evenkeel-monitor") && command.contains(&monitor)).collect();
    let records = fs::read_dir(root.join("containers")).map_or(0, Iterator::count);
    [links, namespaces, monitors.len(), records]
}

/// Takes the project down, also when the test failed.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let down = finished(evenkeel(self.0, &["down", "--project", "crash", "--volumes", "--yes"]));
        assert!(down.status.success() || std::thread::panicking(), "{}", text(&down));
    }
}

#[test]
fn an_apply_that_is_killed_anywhere_is_taken_up_by_the_next() {
    in_a_network_of_its_own(|| {
        let directory = room_for_a_root("evenkeel-crash-test");
        let here = directory.path();
        busybox_rootfs(&here.join("rootfs"));
        let down = Down(here);
        let mut seen: [BTreeSet<[usize; 4]>; 2] = Default::default();
        for steps in 0..20 {
            let state = steps % 2;
            fs::write(here.join("evenkeel.toml"), manifest(STATES[state])).unwrap();
            killed_after(here, steps);
            let again = finished(evenkeel(here, &["apply"]));
            assert!(again.status.success(), "after {steps} steps: {}", text(&again));
            let plan = finished(evenkeel(here, &["plan", "--detailed-exitcode"]));
            assert!(plan.status.success(), "after {steps} steps something is left to do: {}", text(&plan));
            seen[state].insert(kernel_objects(here));
        }
        // Links: two bridges, and one for each container on each of its networks. Side has no namespace of its own.
        assert_eq!(seen[0], BTreeSet::from([[2 + 3 * 2 + 1, 4, 5, 5]]), "links, namespaces, monitors, records");
        // Job is on the network `default`.
        assert_eq!(seen[1], BTreeSet::from([[3 + 2 * 2 + 2, 4, 4, 4]]), "links, namespaces, monitors, records");

        drop(down);
        let cgroup = format!("evenkeel-{}", tag(&here.join("root").canonicalize().unwrap()));
        let left = |hierarchy: &Path| hierarchy.join(&cgroup).exists();
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        assert!(!left(Path::new("/sys/fs/cgroup")) && !hierarchies.into_iter().any(|hierarchy| left(&hierarchy)));
        assert_eq!(kernel_objects(here), [0, 0, 0, 0]);
    });
}
