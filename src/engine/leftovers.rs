//! Taking the lock of a state root, and clearing away what crashes left in it, what has expired, and what the last container
//! leaves.
//!
//! Whoever takes the lock clears up, since nobody else makes anything meanwhile. What cannot be removed keeps nobody from
//! working, and is told once. What may take long to remove is put aside and left to a process of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::container::oci::{cgroup_parent, monitors_path};
use super::error::EngineError;
use super::host::{Host, has_control_groups, network_error};
use super::image::store::trash;
use super::lock::{self, Lock};
use super::storage::age::Clock;
use super::storage::volume;
use super::{claim, files, image, records};
use crate::model::id::Digest;
use crate::runtime::cgroup;

const GIVE_AGAIN: Duration = Duration::from_secs(3600);

impl Host {
    /// Takes the lock of the state root for this run directory, and sweeps what a crash left half-made and what has expired.
    pub fn lock(&self, timeout: Duration) -> Result<Lock, EngineError> {
        let lock = lock::take(&self.paths.lock(), timeout)?.beside(&self.paths.lock_before(), timeout)?;
        let mut left = Vec::new();
        match claim::state_root(&self.paths, || has_control_groups(&self.hierarchy, &self.tag)) {
            // On a disk that is full it must be possible to remove something.
            Err(error) if error.is_for_want_of_space() => left.push(error),
            claimed => claimed?,
        }
        left.extend(self.links.finish_removals().map_err(network_error("remove", "links".into())).err());
        self.sweep(&mut left)?;
        let expired = volume::expire(&self.paths, self.keep_removed, &Clock::read()?, &mut left)?;
        expired.names.iter().for_each(|name| self.teller.tell(&self.teller.of_expired(name)));
        left.extend(self.remove_behind(expired.to_delete).err());
        self.tell(&left);
        Ok(lock)
    }

    /// A process of its own deletes it, which needs no lock and outlives this one. What such a process left is given to
    /// another one after [`GIVE_AGAIN`]: why it failed is in the log of whoever runs for so long.
    fn remove_behind(&self, aside: Vec<PathBuf>) -> Result<(), EngineError> {
        let failed = |source| EngineError::Images { source: Box::new(source) };
        if aside.is_empty() || self.store.is_removing().map_err(failed)? {
            return Ok(());
        }
        let mut given = self.given_away.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        given.retain(|_, since| now.duration_since(*since) < GIVE_AGAIN);
        let aside: Vec<_> = aside.into_iter().filter(|path| !given.contains_key(path)).collect();
        trash::remove_behind(&self.images.helper, &self.store.removing(), &aside).map_err(failed)?;
        given.extend(aside.into_iter().map(|path| (path, now)));
        Ok(())
    }

    /// Each thing that stays once, although `watch` comes by again and again.
    fn tell(&self, left: &[EngineError]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for error in left {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            let mut text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            text.extend(error.hint().map(|hint| format!("; {hint}")));
            if told.insert(text.clone()) {
                tracing::warn!("{text}");
            }
        }
    }

    /// A container's own directories are not looked into: its monitor lives on, and may be writing there. What cannot be
    /// removed keeps nobody from working.
    fn sweep(&self, left: &mut Vec<EngineError>) -> Result<(), EngineError> {
        for whole in [
            self.paths.volumes(),
            self.paths.networks(),
            self.paths.last_good(),
            self.paths.inputs(),
            self.paths.generations(),
            self.paths.containers(),
            self.paths.containers_run(),
            self.paths.names_directory(),
        ] {
            files::sweep(&whole, left)?;
        }
        // The root itself may be somebody's directory of many uses.
        [self.paths.served(), self.paths.trash_ages()].iter().try_for_each(|file| files::sweep_beside(file))?;
        // What a volume is filled with is made in its own directory.
        files::objects(&self.paths.volumes())?.iter().try_for_each(|volume| files::sweep(volume, left))?;
        left.extend(self.end_builds().err());
        left.extend(self.store.sweep().map_err(|source| EngineError::Images { source: Box::new(source) }).err());
        Ok(())
    }

    /// Ends commands of builds that somebody left behind who was killed. Who builds holds the store, and needs no lock of
    /// the root: while somebody adds to it, that is left to later.
    fn end_builds(&self) -> Result<(), EngineError> {
        let left = cgroup::open(&self.hierarchy, &image::build::sandbox::cgroup_parent(&self.tag));
        if !left.exists() {
            return Ok(());
        }
        let alone = self.store.alone().map_err(|source| EngineError::Images { source: Box::new(source) })?;
        let Some(_alone) = alone else { return Ok(()) };
        let ended = left.kill().and_then(|()| left.remove());
        ended.map_err(|source| EngineError::Cgroups { source: Box::new(source) })
    }

    /// Unmounts the layers that no container is made of any more. Whoever holds the lock may call it at any time: a mount
    /// that is missed is made again.
    pub fn detach_unused_layers(&self) -> Result<(), EngineError> {
        let containers = records::containers(&self.paths)?;
        if !containers.unreadable.is_empty() {
            return Ok(());
        }
        let failed = |source| EngineError::Images { source: Box::new(source) };
        let images: BTreeSet<Digest> = containers.records.into_iter().filter_map(|record| record.image).collect();
        let mut used = BTreeSet::new();
        for image in &images {
            used.extend(self.store.known(image).map_err(failed)?.into_iter().flat_map(|image| image.layers));
        }
        self.store.detach_layers_but(&used).map_err(failed)
    }

    /// Takes away what the containers of this root share on the host when none is left. The lock keeps others from
    /// starting one meanwhile.
    pub fn tidy(&self, _: &Lock) -> Result<(), EngineError> {
        self.detach_unused_layers()?;
        if !files::objects(&self.paths.containers())?.is_empty() {
            return Ok(());
        }
        self.end_builds()?;
        self.clear_monitors();
        let shared = cgroup::open(&self.hierarchy, &cgroup_parent(&self.tag));
        shared.remove_if_empty().map_err(|source| EngineError::Cgroups { source: Box::new(source) })
    }

    /// The cgroup of the monitors goes with the last of them. A monitor lets go of its lock a moment before it is gone.
    fn clear_monitors(&self) {
        let monitors = cgroup::open(&self.hierarchy, &monitors_path(&self.tag));
        let deadline = Instant::now() + Duration::from_secs(1);
        while monitors.exists() && Instant::now() < deadline {
            // What stays is an empty directory, for the next command to remove.
            let _ = monitors.remove_if_empty();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
