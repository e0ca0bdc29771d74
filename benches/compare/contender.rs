//! What a contender must be able to do. One per program that is compared, and one for the kernel alone.

use crate::Result;
use crate::cases::Case;
use crate::compose::Compose;
use crate::docker::Docker;
use crate::evenkeel::Evenkeel;
use crate::fleet::Fleet;
use crate::floor::Floor;
use crate::podman::Podman;
use crate::sandbox::Bench;

pub const NAMES: [&str; 5] = ["evenkeel", "podman", "docker", "compose", "floor"];

pub trait Contender {
    /// Daemon and image are there.
    fn set_up(&mut self) -> Result<()>;

    /// The network is there, as it is between two changes of what runs on it. Not measured.
    fn prepare(&self) -> Result<()>;

    /// These containers run. Who declares them converges; the others start them one by one.
    fn start(&self, fleet: &Fleet) -> Result<()>;

    /// None of these containers is left.
    fn remove(&self, fleet: &Fleet) -> Result<()>;

    /// Compares what was declared last with what there is, and finds it right.
    fn check(&self) -> Result<()>;

    fn list(&self) -> Result<()>;

    fn statistics(&self) -> Result<()>;

    /// The name of the process that stays with each container.
    fn monitor(&self) -> &'static str;

    /// Runs a health check of each, where nothing else does.
    fn check_health(&self, _: &Fleet) -> Option<Result<()>> {
        None
    }

    /// Why it has no part in a case.
    fn not_applicable(&self, case: &Case) -> Option<&'static str>;

    fn tear_down(&mut self) -> Result<()>;
}

pub fn new<'a>(name: &str, bench: &'a Bench) -> Result<Box<dyn Contender + 'a>> {
    Ok(match name {
        "evenkeel" => Box::new(Evenkeel::new(bench)),
        "podman" => Box::new(Podman::new(bench)),
        "docker" => Box::new(Docker::new(bench)),
        "compose" => Box::new(Compose::new(bench)),
        "floor" => Box::new(Floor::new(bench)),
        _ => return Err(format!("{name}: no such contender, only {NAMES:?}").into()),
    })
}

/// The first program that it needs and that is not installed.
pub fn missing(name: &str) -> Option<&'static str> {
    let needed: &[&str] = match name {
        "podman" => &["podman", "conmon", "crun"],
        "docker" => &["dockerd", "docker", "runc", "iptables"],
        "compose" => &["dockerd", "docker-compose"],
        _ => &["busybox", "mkfs.ext4", "unshare", "ip"],
    };
    needed.iter().copied().find(|program| !is_installed(program))
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()]);
    places.any(|place| place.join(program).exists())
}
