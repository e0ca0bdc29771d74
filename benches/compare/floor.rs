//! The floor: the same work by unshare(1), ip(8) and a shell, without records, checks or care.
//!
//! It says what the kernel and a few program starts cost here. It is no container engine: no limits, no seccomp, no
//! dropped capabilities, no names, no firewall, nothing that could be told after a crash.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::Result;
use crate::cases::{Case, DOWN, HEALTH, LOGS, MEMORY, RESTART, START_1, START_10, START_100};
use crate::contender::Contender;
use crate::fleet::{CHECK as CHECK_COMMAND, Care, Fleet, Workload};
use crate::processes::wait_for;
use crate::sandbox::{Bench, NETWORK};
use crate::shell::{command, run};

/// `$0`: directory, `$1`: number, `$2`: root file system; the rest is the command.
const BECOME_CONTAINER: &str = r#"
dir=$0 number=$1; lower=$2; shift 2
mount -t overlay -o lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work overlay $dir/root
ip link add eth0 type veth peer name ve$number netns sandbox
ip address add 10.201.$((number / 200)).$((number % 200 + 2))/16 dev eth0
ip link set eth0 up
nsenter --net=/run/netns/sandbox ip link set ve$number master front up
mount -t proc proc $dir/root/proc
shift
exec chroot $dir/root "$@"
"#;

/// `$0`: root file system; the rest is the command.
const KEEP_RUNNING: &str =
    "while :; do unshare --mount --pid --fork --net --ipc --uts chroot $0 \"$@\" 2>/dev/null; done";

/// `$0`: log file; the rest is the command.
const KEEP_LOG: &str = r#""$@" | cat >$0"#;

pub struct Floor {
    rootfs: PathBuf,
    state: PathBuf,
    started: AtomicUsize,
    running: Mutex<Vec<Child>>,
}

impl Floor {
    pub fn new(bench: &Bench) -> Floor {
        let (rootfs, state) = (bench.rootfs.clone(), bench.disk.join("floor"));
        Floor { rootfs, state, started: AtomicUsize::new(0), running: Mutex::default() }
    }

    fn container(&self, fleet: &Fleet) -> Result<Command> {
        let number = self.started.fetch_add(1, Ordering::Relaxed).to_string();
        let directory = self.state.join(&number);
        for child in ["upper", "work", "root"] {
            std::fs::create_dir_all(directory.join(child))?;
        }
        let mut container = command("sh -c");
        match (fleet.care, fleet.workload) {
            (Care::Restart, _) => container.arg(KEEP_RUNNING).arg(&self.rootfs),
            (_, Workload::Write { .. }) => {
                container.arg(KEEP_LOG).arg(directory.join("log")).arg("chroot").arg(&self.rootfs)
            }
            _ => {
                container = command("unshare --mount --pid --fork --net --ipc --uts --propagation private sh -c");
                container.arg(BECOME_CONTAINER).arg(&directory).arg(&number).arg(&self.rootfs).arg("--")
            }
        };
        container.args(fleet.command());
        Ok(container)
    }
}

impl Contender for Floor {
    fn set_up(&mut self) -> Result<()> {
        // A process id means another process in the container's pid namespace; a name does not.
        run(&mut command("ip netns attach sandbox 1"))?;
        run(&mut command(&format!("ip link add {NETWORK} type bridge")))?;
        run(&mut command(&format!("ip link set {NETWORK} up")))
    }

    fn prepare(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self, fleet: &Fleet) -> Result<()> {
        for _ in 0..fleet.count {
            let mut container = self.container(fleet)?;
            let child = container.process_group(0).stdin(Stdio::null()).spawn()?;
            self.running.lock().map_err(|_| "a thread panicked")?.push(child);
        }
        wait_for("the containers", || (fleet.processes().len() == fleet.count).then_some(()))
    }

    fn remove(&self, _: &Fleet) -> Result<()> {
        let mut running = self.running.lock().map_err(|_| "a thread panicked")?;
        for mut child in running.drain(..) {
            // One that has ended by itself leaves no group to kill.
            let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
            child.wait()?;
        }
        // The file of the last case would start the next one's writer at once.
        let _ = std::fs::remove_file(self.rootfs.join("go"));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self) -> Result<()> {
        Ok(())
    }

    fn statistics(&self) -> Result<()> {
        Ok(())
    }

    /// What waits for the first process.
    fn monitor(&self) -> &'static str {
        "unshare"
    }

    fn check_health(&self, fleet: &Fleet) -> Option<Result<()>> {
        let check = |pid: u32| {
            let nsenter = format!("nsenter --target {pid} --mount --pid --net --ipc --uts --root /bin/sh -c");
            run(command(&nsenter).arg(CHECK_COMMAND))
        };
        Some(fleet.processes().into_iter().try_for_each(check))
    }

    fn not_applicable(&self, case: &Case) -> Option<&'static str> {
        let own = [&START_1, &START_10, &START_100, &DOWN, &RESTART, &HEALTH, &LOGS, &MEMORY];
        (!own.iter().any(|own| own.name == case.name)).then_some("no floor")
    }

    fn tear_down(&mut self) -> Result<()> {
        Ok(())
    }
}
