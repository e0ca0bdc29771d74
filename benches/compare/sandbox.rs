//! Where a contender runs: namespaces and cgroups of its own on a new disk.
//!
//! ```text
//! compare             makes the cgroup in every hierarchy, afterwards removes it
//!   compare --enter   joins it; unshare(1): mount, net, pid and cgroup namespaces
//!     compare --contend   pid 1: mounts /proc, /run, cgroups, the disk; makes a network; measures
//! ```
//!
//! The cgroup namespace turns the group into the root that the contender sees, so that daemons, monitors, containers and
//! clients are all below it and its CPU time is that of everything together. When pid 1 ends the kernel kills whatever
//! the contender left; the mounts, links and firewall rules go with their namespaces.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::arguments::Arguments;
use crate::measure::Measurement;
use crate::shell::{command, run as run_command};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Enough for the layers and writable files of every case.
const DISK: u64 = 16 << 30;

/// The containers' network, by the same name and with the same addresses for all.
pub const NETWORK: &str = "front";
pub const SUBNET: &str = "10.201.0.0/16";

/// The places inside.
pub struct Bench {
    /// On the new disk: state of the contender, root file system of the containers, manifests.
    pub disk: PathBuf,
    /// The root file system that every container has.
    pub rootfs: PathBuf,
}

/// Measures one contender inside a sandbox.
pub fn run(contender: &str, arguments: &Arguments) -> Result<Vec<Measurement>> {
    let group = format!("evenkeel-bench-{}-{contender}", std::process::id());
    let results = std::env::temp_dir().join(format!("{group}.json"));
    let program = std::env::current_exe()?;
    let mut enter = Command::new(&program);
    enter.args(["--enter", &group]).arg(&program).args(["--contend", contender]).arg(&results);
    let status = enter.args(arguments.to_arguments()).status()?;
    remove_groups(&group);
    let measured = fs::read(&results).map_err(|error| format!("{contender}: {status}, no results: {error}"))?;
    fs::remove_file(&results)?;
    Ok(serde_json::from_slice(&measured)?)
}

/// Joins the cgroups and replaces this process by `unshare`. Returns only the reason why it could not.
pub fn enter(group: &str, inside: &[OsString]) -> String {
    let joined = hierarchies().and_then(|all| all.iter().try_for_each(|hierarchy| join(hierarchy, group)));
    if let Err(error) = joined {
        return format!("cannot join the cgroup `{group}`: {error}");
    }
    let mut unshare = command("unshare --mount --net --pid --fork --cgroup --kill-child --propagation private --");
    format!("unshare: {}", unshare.args(inside).exec())
}

/// One mounted cgroup hierarchy of the machine.
struct Hierarchy {
    mount_point: PathBuf,
    /// `cgroup` or `cgroup2`.
    kind: String,
    /// The mount options that make it this one: controllers, or a name.
    options: String,
}

fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mount_point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let general = ["rw", "relatime", "nosuid", "nodev", "noexec", "nsdelegate", "memory_recursiveprot", "xattr"];
        let own = |option: &&str| !general.contains(option) && !option.starts_with("release_agent=");
        let options = options.split(',').filter(own).collect::<Vec<_>>().join(",");
        let hierarchy = || Hierarchy { mount_point: mount_point.into(), kind: kind.into(), options };
        (kind == "cgroup" || kind == "cgroup2").then(hierarchy)
    });
    Ok(hierarchies.collect())
}

fn join(hierarchy: &Hierarchy, group: &str) -> io::Result<()> {
    let directory = hierarchy.mount_point.join(group);
    fs::create_dir_all(&directory)?;
    // A cpuset is empty when it is born, and takes no process.
    for file in
        ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| hierarchy.kind == "cgroup" && directory.join(file).exists())
    {
        fs::write(directory.join(file), fs::read(hierarchy.mount_point.join(file))?)?;
    }
    fs::write(directory.join("cgroup.procs"), std::process::id().to_string())
}

/// Removes what the sandbox left in the hierarchies, the deepest first. All its processes are dead or dying.
fn remove_groups(group: &str) {
    for hierarchy in hierarchies().unwrap_or_default() {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while remove_tree(&hierarchy.mount_point.join(group)).is_err() && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn remove_tree(group: &Path) -> io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for child in fs::read_dir(group)?.filter_map(io::Result::ok).filter(|child| child.path().is_dir()) {
        remove_tree(&child.path())?;
    }
    fs::remove_dir(group)
}

/// Makes the inside of the sandbox. Called by its first process.
pub fn furnish() -> Result<Bench> {
    let hierarchies = hierarchies()?;
    mount("-t proc proc /proc")?;
    mount("-t tmpfs tmpfs /run")?;
    fs::create_dir_all("/run/lock")?;
    mount_cgroups(&hierarchies)?;
    for words in [
        "ip link set lo up",
        // A way out that ends in the sandbox itself, so that there is a default route.
        "ip link add uplink type veth peer name outside",
        "ip link set outside up",
        "ip address add 192.0.2.1/24 dev uplink",
        "ip link set uplink up",
        "ip route add default via 192.0.2.254",
    ] {
        run_command(&mut command(words))?;
    }
    let disk = mount_disk()?;
    let rootfs = make_rootfs(&disk)?;
    Ok(Bench { disk, rootfs })
}

fn mount(words: &str) -> Result<()> {
    run_command(command("mount").args(words.split(' ')))
}

/// Mounts every hierarchy anew, where the root is now the group of the sandbox.
fn mount_cgroups(hierarchies: &[Hierarchy]) -> Result<()> {
    run_command(&mut command(&format!("umount --recursive {CGROUPS}")))?;
    if let [Hierarchy { kind, .. }] = hierarchies
        && kind == "cgroup2"
    {
        mount(&format!("-t cgroup2 cgroup2 {CGROUPS}"))?;
        return leave_root_group();
    }
    mount(&format!("-t tmpfs tmpfs {CGROUPS}"))?;
    for Hierarchy { mount_point, kind, options } in hierarchies {
        fs::create_dir_all(mount_point)?;
        let options = if options.is_empty() { "rw" } else { options };
        let options = if options.starts_with("name=") { format!("none,{options}") } else { options.into() };
        mount(&format!("-t {kind} -o {options} cgroup {}", mount_point.display()))?;
    }
    Ok(())
}

/// On cgroup v2 only a group without processes can hand controllers to its children.
fn leave_root_group() -> Result<()> {
    let root = Path::new(CGROUPS);
    fs::create_dir(root.join("harness"))?;
    fs::write(root.join("harness/cgroup.procs"), "1")?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// A new ext4 file system: creating files is several times slower on one that has just lost many.
fn mount_disk() -> Result<PathBuf> {
    let disk = PathBuf::from("/run/bench");
    let image = std::env::var_os("EVENKEEL_BENCH_DISK").map_or(PathBuf::from("/var/tmp"), PathBuf::from);
    let image = image.join(format!("evenkeel-bench-{}.ext4", fs::read_link("/proc/self/ns/mnt")?.display()));
    fs::File::create(&image)?.set_len(DISK)?;
    fs::create_dir_all(&disk)?;
    let made = run_command(command("mkfs.ext4 -q -F -E lazy_itable_init=0").arg(&image))
        .and_then(|()| run_command(command("mount -o loop").args([&image, &disk])));
    // The loop device keeps the file as long as it is mounted.
    fs::remove_file(&image)?;
    made.map(|()| disk)
}

/// A static busybox under the names that the workloads use.
fn make_rootfs(disk: &Path) -> Result<PathBuf> {
    let rootfs = disk.join("rootfs");
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(directory))?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
    for name in ["sh", "sleep", "dd", "true"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
    }
    let line = format!("{:63}\n", "a line of sixty-four bytes, its end included");
    fs::write(rootfs.join("lines"), line.repeat(crate::fleet::LINES_IN_FILE))?;
    Ok(rootfs)
}
