//! What a monitor reads: the OCI configuration and the launch file, in the container's run directory.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::effective::{Effective, effective};
use super::{create, etc, oci};
use crate::engine::error::{At, EngineError};
use crate::engine::files::{self, Durability};
use crate::engine::image::Store;
use crate::engine::records;
use crate::engine::telling::Teller;
use crate::model::actual::HostFacts;
use crate::model::id::{RootTag, Whose};
use crate::model::image::Image;
use crate::model::launch::{Identity, LAUNCH_VERSION, Launch, Resolver, RootFilesystem, Terminal};
use crate::model::network::NetworkMode;
use crate::model::paths::{Paths, run};
use crate::model::record::ContainerRecord;
use crate::model::way_out::WayOut;

/// The parts of a host that a launch follows from.
pub struct Surroundings<'a> {
    pub paths: &'a Paths,
    pub tag: &'a RootTag,
    pub store: &'a Store,
    pub facts: &'a HostFacts,
    /// The `evenkeel` binary.
    pub evenkeel: &'a Path,
    pub teller: &'a Teller,
}

/// What becomes of a container on this host.
pub struct Prepared {
    pub directory: PathBuf,
    launch: Launch,
    effective: Effective,
}

/// Works out what to launch; writes nothing.
pub fn prepare(on: &Surroundings<'_>, record: &ContainerRecord, image: &Image) -> Result<Prepared, EngineError> {
    let name = record.full_name();
    let effective = effective(&record.spec, &image.config, &etc::hostname(record)).ok_or_else(|| {
        let problem = "neither the manifest nor the image says what to run; declare `command`".to_owned();
        EngineError::Configuration { name: name.clone(), problem }
    })?;
    let directory = on.paths.container_run(&record.id);
    let container = on.paths.container(&record.id);
    let spec = &record.spec;
    let launch = Launch {
        version: LAUNCH_VERSION,
        id: record.id.clone(),
        name,
        config: directory.join(run::CONFIG),
        root: RootFilesystem::Overlay {
            lower: on.store.layer_paths(image),
            upper: container.join("upper"),
            work: container.join("work"),
        },
        directories: image.config.volumes.iter().map(PathBuf::from).collect(),
        identity: Some(Identity { user: effective.user.clone(), groups: spec.group_add.iter().cloned().collect() }),
        init: spec.init,
        netns: netns(on.paths, record),
        terminal: match (spec.tty, spec.stdin_open) {
            (true, _) => Terminal::Tty,
            (false, true) => Terminal::StdinOpen,
            (false, false) => Terminal::None,
        },
        logs: on.paths.container_logs(&record.id),
        resolver: resolver(on, record)?,
        restart: spec.restart.clone(),
        healthcheck: effective.healthcheck.clone(),
        stop_signal: effective.stop_signal,
        stop_grace_period: spec.stop_grace_period,
        logging: spec.logging.clone(),
        telling: Some(on.teller.telling(record)),
        after_end: after_end(on, record),
    };
    Ok(Prepared { directory, launch, effective })
}

impl Prepared {
    /// Writes everything that a start needs.
    pub fn write(&self, on: &Surroundings<'_>, record: &ContainerRecord) -> Result<(), EngineError> {
        self.write_config(on, record)?;
        self.write_launch()?;
        files::remove_file(&self.directory.join(run::BEHIND))
    }

    /// What a start needs beside the launch file: no monitor reads it while its container runs.
    pub fn write_config(&self, on: &Surroundings<'_>, record: &ContainerRecord) -> Result<(), EngineError> {
        etc::write(&on.paths.container(&record.id), record, on.paths)?;
        let inputs = oci::Inputs {
            record,
            effective: &self.effective,
            paths: on.paths,
            tag: on.tag,
            host: on.facts,
            netns: self.launch.netns.clone(),
        };
        let config = oci::spec(&inputs)?;
        files::create_directories(&self.directory)?;
        // The control socket is in it.
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&self.directory, private).at("set the mode of", &self.directory)?;
        files::write_json_of_object(&self.directory.join(run::CONFIG), &config, Durability::Volatile)
    }

    /// Writes the launch file alone: what a running monitor takes over.
    pub fn write_launch(&self) -> Result<(), EngineError> {
        files::write_json_of_object(&self.directory.join(run::LAUNCH), &self.launch, Durability::Volatile)
    }
}

/// What a running monitor will read is as the container's networks are now: where names of the outside are asked, if
/// they are. All else stays what it is told.
pub fn follow_networks(on: &Surroundings<'_>, record: &ContainerRecord) -> Result<(), EngineError> {
    let path = on.paths.container_run(&record.id).join(run::LAUNCH);
    let resolver = resolver(on, record)?;
    let launch = match files::read_json::<Launch>(&path)? {
        Some(launch) if launch.resolver == resolver => return Ok(()),
        Some(launch) => Launch { resolver, ..launch },
        None => prepare(on, record, &create::image(on.store, record)?)?.launch,
    };
    files::write_json_of_object(&path, &launch, Durability::Volatile)
}

/// Nobody plans for what nobody declares: that its ports and names are free again when it is over, and that it goes if
/// it should, is seen to by a command that its monitor executes.
fn after_end(on: &Surroundings<'_>, record: &ContainerRecord) -> Vec<OsString> {
    match record.project {
        Whose::Project(_) => Vec::new(),
        Whose::Nobody => {
            let (root, run) = (on.paths.root.as_os_str(), on.paths.run.as_os_str());
            let words: [&OsStr; 7] = [
                on.evenkeel.as_os_str(),
                "--root".as_ref(),
                root,
                "--run".as_ref(),
                run,
                "after-end".as_ref(),
                record.id.as_str().as_ref(),
            ];
            words.map(OsStr::to_owned).to_vec()
        }
    }
}

/// The pinned namespace that the container's processes join.
pub fn netns(paths: &Paths, record: &ContainerRecord) -> Option<PathBuf> {
    match &record.spec.network {
        NetworkMode::Host => None,
        NetworkMode::None | NetworkMode::Networks(_) => Some(paths.netns(&record.id)),
        NetworkMode::Container(_) => Some(paths.netns(record.network_of.as_ref().unwrap_or(&record.id))),
    }
}

/// Only a container with networks of its own answers names; who shares its namespace asks it too.
fn resolver(on: &Surroundings<'_>, record: &ContainerRecord) -> Result<Option<Resolver>, EngineError> {
    if !matches!(record.spec.network, NetworkMode::Networks(_)) {
        return Ok(None);
    }
    let networks = records::networks_of(on.paths, record)?;
    let has_way_out = WayOut::of(record, &networks).v4.is_some();
    Ok(Some(Resolver {
        tables: record.addresses.keys().map(|id| on.paths.names(id)).collect(),
        upstreams: if has_way_out { etc::upstreams(record) } else { Vec::new() },
    }))
}
