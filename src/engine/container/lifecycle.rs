//! Starting, stopping, changing and removing the processes of a container.
//!
//! ```text
//! start   network ─> config.json, launch.json ─> monitor ─> first process
//! stop    stop signal ─> grace period ─> SIGKILL ─> monitor says goodbye
//! remove  stop ─> namespace and links ─> cgroup ─> run directory ─> files and record
//! ```
//!
//! Every step looks first at what is there, so each may be repeated after a crash at any point. The record goes
//! last: as long as something of a container is on the host, a record names it.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Pid;

use super::effective::stop_signal;
use super::launch::{self, Surroundings, prepare};
use super::{abandoned, alive, create, etc, oci, stray};
use crate::engine::error::{At, EngineError};
use crate::engine::files::{self, Durability};
use crate::engine::image::Store;
use crate::engine::removal;
use crate::engine::storage::{view, volume};
use crate::model::actual::Liveness;
use crate::model::container::AfterEnd;
use crate::model::foreign::tamed_line;
use crate::model::id::ContainerId;
use crate::model::launch::LAUNCH_VERSION;
use crate::model::paths::{self, Paths};
use crate::model::record::{ContainerRecord, Refused};
use crate::model::status::{Phase, Status};
use crate::monitor::client::{KILL_PATIENCE, START_PATIENCE};
use crate::monitor::liveness::is_final;
use crate::monitor::logs::{Reader, Selection};
use crate::monitor::protocol::FailureKind;
use crate::monitor::{self, MonitorError, hanging};
use crate::runtime::cgroup::{self, Hierarchy};
use crate::runtime::layer;

/// How long a start that somebody else began is waited for, to see what it comes to, and a monitor that is about to end. It
/// takes milliseconds; one that hangs (a dead NFS server below a mount) is taken for what it is, and the monitor goes on
/// with it.
pub const SETTLING: Duration = Duration::from_secs(10);

/// How many lines of a failed container's log are remembered, and how much of each.
const LAST_WORDS: usize = 3;
const LONGEST_LINE: usize = 200;

/// Starts the monitor of a container whose network is in place. `Ok` when one runs already, also one whose start
/// somebody began and did not live to see.
pub fn start(
    on: &Surroundings<'_>,
    hierarchy: &Hierarchy,
    record: &ContainerRecord,
    monitor_binary: &Path,
) -> Result<(), EngineError> {
    let deadline = Instant::now() + SETTLING;
    match settled(on, hierarchy, record, deadline)? {
        Liveness::Monitored(status) if is_final(status.phase) => {
            let overdue = MonitorError::Overdue { what: "go", time: SETTLING, hanging: Vec::new() };
            return Err(failed("wait for the monitor of", record)(overdue));
        }
        Liveness::Monitored(_) => return Ok(()),
        Liveness::Lost(last) => clean_up(on, hierarchy, record, last.as_ref())?,
        Liveness::Absent | Liveness::Ended(_) => {}
    }
    let image = create::image(on.store, record)?;
    let prepared = prepare(on, record, &image)?;
    prepared.write(on, record)?;
    // Here, and not where the container is made: there nobody else would find it.
    for files in on.store.layer_paths(&image) {
        layer::attach(&files).at("mount the layer", &files)?;
    }
    let shelter = cgroup::shelter(hierarchy, &oci::monitors_path(on.tag))
        .map_err(|source| EngineError::Cgroups { source: Box::new(source) })?;
    let started = monitor::spawn(monitor_binary, &prepared.directory, shelter.as_deref(), START_PATIENCE);
    if matches!(&started, Err(MonitorError::Start(failure)) if failure.kind == FailureKind::Busy)
        && matches!(
            settled(on, hierarchy, record, Instant::now() + SETTLING)?,
            Liveness::Monitored(status) if !is_final(status.phase)
        )
    {
        return Ok(());
    }
    started.map(drop).map_err(|source| EngineError::Start { name: record.full_name(), source: Box::new(source) })
}

/// Its processes go on. One that is not paused does so already.
pub fn resume(on: &Surroundings<'_>, record: &ContainerRecord) -> Result<(), EngineError> {
    let (directory, who) = (on.paths.container_run(&record.id), on.teller.who());
    match monitor::liveness(&directory).map_err(failed("look at", record))? {
        Liveness::Monitored(status) if status.phase == Phase::Paused => {
            let resumed = monitor::client::Client::connect_as(&directory, who).and_then(|client| client.resume());
            resumed.map_err(failed("resume", record))
        }
        Liveness::Absent | Liveness::Monitored(_) | Liveness::Lost(_) | Liveness::Ended(_) => Ok(()),
    }
}

/// Ends the container and its monitor.
pub fn stop(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    let directory = on.paths.container_run(&record.id);
    match liveness(on, hierarchy, record)? {
        Liveness::Absent | Liveness::Ended(_) => Ok(()),
        Liveness::Monitored(_) => {
            let stopped = monitor::client::stop_if_running(&directory, None, None, on.teller.who());
            stopped.map(drop).map_err(failed("stop", record))
        }
        Liveness::Lost(last) => clean_up(on, hierarchy, record, last.as_ref()),
    }
}

/// What follows from a container's networks beside its links is as they are now, also while it runs.
pub fn follow_networks(
    on: &Surroundings<'_>,
    hierarchy: &Hierarchy,
    record: &ContainerRecord,
) -> Result<(), EngineError> {
    etc::write(&on.paths.container(&record.id), record, on.paths)?;
    match liveness(on, hierarchy, record)? {
        // To a monitor of another version it cannot be told: a restart is planned.
        Liveness::Monitored(status) if status.launch_version == LAUNCH_VERSION && !is_final(status.phase) => {
            launch::follow_networks(on, record)?;
            reload(on, record)
        }
        Liveness::Absent | Liveness::Monitored(_) | Liveness::Lost(_) | Liveness::Ended(_) => Ok(()),
    }
}

fn reload(on: &Surroundings<'_>, record: &ContainerRecord) -> Result<(), EngineError> {
    let directory = on.paths.container_run(&record.id);
    let reloaded = monitor::client::Client::connect(&directory).and_then(|client| client.reload());
    reloaded.map_err(failed("update", record))
}

/// Hands the live part of the record to a running container and then stores it: cut short anywhere, the stored record
/// still differs from the manifest, and the next plan does it again.
pub fn update(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    let image = create::image(on.store, record)?;
    let record = &ContainerRecord { image: Some(image.id.clone()), ..record.clone() };
    let directory = on.paths.container(&record.id);
    if !directory.exists() {
        return Err(EngineError::NoContainer(record.id.clone()));
    }
    if let Liveness::Monitored(status) = liveness(on, hierarchy, record)? {
        let prepared = prepare(on, record, &image)?;
        // First, since it may be refused.
        update_limits(on, hierarchy, record)?;
        prepared.write_config(on, record)?;
        // A monitor of another version goes on with the launch file that it knows. What it would have to take over
        // from this one was planned as a restart.
        if status.launch_version == LAUNCH_VERSION {
            prepared.write_launch()?;
            reload(on, record)?;
        }
    }
    files::write_json_of_object(&paths::record(&directory), record, Durability::Durable)
}

/// A limit of memory below what is in use is refused: the kernel would kill to get there (cgroup-v2, `memory.max`), and
/// whoever updates a running container wants it to run on.
fn update_limits(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    let mut limits = oci::resources(&record.spec.resources);
    if let Some(memory) = limits.memory_mut() {
        memory.set_check_before_update(Some(true));
    }
    let group = cgroup::open(hierarchy, &oci::cgroup_path(on.tag, &record.id));
    group.update(&limits).map_err(|source| EngineError::Monitor {
        operation: "set the limits of",
        name: record.full_name(),
        source: Box::new(source),
    })
}

/// Removes what is left of a stopped container, apart from its network. The record goes with the files, last. Files that
/// its image calls data go to the trash, as a volume does.
pub fn remove_files(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    forget_run(on, hierarchy, record)?;
    let directory = on.paths.container(&record.id);
    match has_data(on.store, record, &directory.join("upper"))? {
        true => volume::discard(on.paths, &directory, &format!("container.{}", record.id), SystemTime::now()),
        false => files::remove_directory(&directory),
    }
}

/// Whether it wrote where its image declares a volume and nothing is mounted; of an image that is not known any more,
/// whether it wrote at all. What was to go with its end was given up when it was made.
fn has_data(store: &Store, record: &ContainerRecord, upper: &Path) -> Result<bool, EngineError> {
    if record.after_end == AfterEnd::Remove || record.image.is_none() || !upper.is_dir() {
        return Ok(false);
    }
    let image = record.image.as_ref().and_then(|id| store.known(id).ok().flatten());
    let places = match &image {
        Some(image) => image.config.unmounted_volumes(&record.spec.mounts),
        None => vec!["/"],
    };
    let root = fs::File::open(upper).at("open", upper)?;
    let is_filled = |place: &str| -> std::io::Result<bool> {
        // The container may have put a link anywhere on the way.
        let Some(directory) = view::directory(root.as_fd(), place)? else { return Ok(false) };
        let mut entries = rustix::fs::Dir::read_from(&directory)?;
        let is_entry = |name: &std::ffi::CStr| !matches!(name.to_bytes(), b"." | b"..");
        Ok(entries.any(|entry| entry.is_ok_and(|entry| is_entry(entry.file_name()))))
    };
    for place in places {
        if is_filled(place).at("look into", upper)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// It is as after a boot: nothing is known of how it ran. An error while it runs.
pub fn forget(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    match liveness(on, hierarchy, record)? {
        Liveness::Absent | Liveness::Ended(_) => forget_run(on, hierarchy, record),
        Liveness::Monitored(_) | Liveness::Lost(_) => Err(EngineError::Running { name: record.full_name() }),
    }
}

fn forget_run(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<(), EngineError> {
    remove_cgroup(on, hierarchy, &record.id, &record.full_name())?;
    remove_run_directory(on.paths, &record.id)
}

/// The record is this one, and remembers which update of it failed, why, and the last that the failed container wrote:
/// its log goes with it.
pub fn refuse_update(
    on: &Surroundings<'_>,
    record: &ContainerRecord,
    failed: ContainerRecord,
    reason: &str,
) -> Result<(), EngineError> {
    let mut reason = reason.to_owned();
    let words = last_words(&on.paths.container_logs(&failed.id)).map_err(self::failed("read the log of", &failed))?;
    if !words.is_empty() {
        reason.push_str("; it last wrote: ");
        reason.push_str(&words.join(" / "));
    }
    let ContainerRecord { spec, image, .. } = failed;
    let refused = Refused { spec, image, at: SystemTime::now(), reason };
    let record = ContainerRecord { refused: Some(Box::new(refused)), ..record.clone() };
    files::write_json_of_object(&paths::record(&on.paths.container(&record.id)), &record, Durability::Durable)
}

/// The last lines of a log, each on one line and cut to a length that a plan can show.
fn last_words(logs: &Path) -> Result<Vec<String>, MonitorError> {
    let mut reader = Reader::open(logs, &Selection { tail: Some(LAST_WORDS), since: None })?;
    let mut words: Vec<String> = Vec::new();
    while let Some(passage) = reader.next()? {
        let Some(entry) = passage.into_entry() else { continue };
        let line: String = tamed_line(entry.text.trim()).chars().take(LONGEST_LINE).collect();
        if !line.is_empty() && words.last() != Some(&line) {
            words.push(line);
        }
    }
    Ok(words)
}

pub fn remove_run_directory(paths: &Paths, id: &ContainerId) -> Result<(), EngineError> {
    let run = paths.container_run(id);
    removal::remove(&run).at("remove", run)
}

/// After a monitor died, or lost its run directory: ends what it left running, as it would have done, and forgets the last
/// that it said.
fn clean_up(
    on: &Surroundings<'_>,
    hierarchy: &Hierarchy,
    record: &ContainerRecord,
    last: Option<&Status>,
) -> Result<(), EngineError> {
    let grace = record.spec.stop_grace_period.to_duration();
    stray::end(&on.paths.container_run(&record.id), grace + KILL_PATIENCE)?;
    let first = last.and_then(|status| status.pid).and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(first) = first {
        let image = record.image.as_ref().and_then(|id| on.store.known(id).ok().flatten());
        let signal = stop_signal(&record.spec, image.as_ref().map(|image| &image.config));
        let group = cgroup::open(hierarchy, &oci::cgroup_path(on.tag, &record.id));
        abandoned::stop(&group, first, signal, grace).map_err(|source| EngineError::Monitor {
            operation: "stop",
            name: record.full_name(),
            source: Box::new(source),
        })?;
        on.teller.tell(&on.teller.of_container("die", record).with("reason", "its monitor was lost"));
    }
    remove_cgroup(on, hierarchy, &record.id, &record.full_name())?;
    files::remove_file(&on.paths.container_run(&record.id).join(paths::run::STATUS))
}

/// Kills what is in the cgroup, waits for its end, and removes it.
pub fn remove_cgroup(
    on: &Surroundings<'_>,
    hierarchy: &Hierarchy,
    id: &ContainerId,
    name: &str,
) -> Result<(), EngineError> {
    let group = cgroup::open(hierarchy, &oci::cgroup_path(on.tag, id));
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| EngineError::Monitor {
        operation: "end the processes of",
        name: name.to_owned(),
        source,
    };
    if !group.exists() {
        return Ok(());
    }
    let deadline = Instant::now() + KILL_PATIENCE;
    group.kill().map_err(|error| failed(Box::new(error)))?;
    loop {
        match group.remove() {
            Ok(()) => return Ok(()),
            // Processes that were killed are still on their way out.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => {
                let left = group.processes().unwrap_or_default();
                let hanging = hanging::of(left.iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
                let overdue = MonitorError::Overdue { what: "end", time: KILL_PATIENCE, hanging };
                return Err(if left.is_empty() { failed(Box::new(error)) } else { failed(Box::new(overdue)) });
            }
        }
    }
}

fn liveness(on: &Surroundings<'_>, hierarchy: &Hierarchy, record: &ContainerRecord) -> Result<Liveness, EngineError> {
    alive::liveness(on.paths, on.tag, record, || Ok(hierarchy.clone()))
}

/// As [`liveness`], once a start that is under way has ended and a monitor that has written its last word is gone, or at the
/// `deadline`: whoever began the start may have been killed in the middle of it, and the monitor goes on alone. What the
/// start came to is known then, and a failed one is tried again.
pub fn settled(
    on: &Surroundings<'_>,
    hierarchy: &Hierarchy,
    record: &ContainerRecord,
    deadline: Instant,
) -> Result<Liveness, EngineError> {
    loop {
        match liveness(on, hierarchy, record)? {
            Liveness::Monitored(status) if is_passing(status.phase) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            found => return Ok(found),
        }
    }
}

/// Whether it is over within moments.
pub fn is_passing(phase: Phase) -> bool {
    phase == Phase::Starting || is_final(phase)
}

fn failed(operation: &'static str, record: &ContainerRecord) -> impl Fn(MonitorError) -> EngineError {
    let name = record.full_name();
    move |source| EngineError::Monitor { operation, name: name.clone(), source: Box::new(source) }
}
