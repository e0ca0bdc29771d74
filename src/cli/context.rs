//! What a command works on: the roots, the manifests at hand, the host.

use std::path::PathBuf;

use super::failure::Failure;
use super::locking;
use crate::engine::host::{Host, Settings};
use crate::engine::image;
use crate::engine::image::registry::credentials;
use crate::manifest::{self, Loaded, host};
use crate::model::desired::Desired;
use crate::model::host_config::HostConfig;
use crate::model::id::ProjectName;
use crate::model::paths::Paths;
use crate::model::units::Timespan;

#[derive(Debug)]
pub struct Context {
    pub paths: Paths,
    /// Which command acts, in its own words: `apply`, `image rm`. The journal tells it.
    pub who: String,
    /// How long removed volumes stay in the trash.
    pub keep_removed: Timespan,
    /// From `-f`, in the order given; empty when there was none.
    pub files: Vec<PathBuf>,
    /// From `--host-config`.
    pub host_config: Option<PathBuf>,
}

impl Context {
    /// The project that the manifests declare.
    pub fn load(&self) -> Result<Loaded, Failure> {
        manifest::load(&self.files, &variable).map_err(Failure::problems)
    }

    /// What was named with `-f`, or else the default that is there.
    pub fn inputs(&self) -> Vec<PathBuf> {
        match self.files.is_empty() {
            false => self.files.clone(),
            true => manifest::default_inputs(),
        }
    }

    /// The inputs as the state root knows them, by their absolute paths. `None` where standard input is among them.
    pub fn lasting_inputs(&self) -> Result<Option<Vec<PathBuf>>, Failure> {
        let inputs = self.inputs();
        match inputs.iter().any(|input| manifest::is_standard_input(input)) {
            true => Ok(None),
            false => Ok(Some(inputs.iter().map(std::path::absolute).collect::<Result<_, _>>()?)),
        }
    }

    /// The project that the manifests at hand declare; `None` where there are none.
    pub fn declared(&self) -> Result<Option<Desired>, Failure> {
        match self.inputs().is_empty() {
            true => Ok(None),
            false => self.load_in_force().map(Some),
        }
    }

    /// The project with every image as the lock file beside the manifests has it.
    pub fn load_locked(&self) -> Result<Loaded, Failure> {
        let loaded = self.load()?;
        let desired = locking::locked(self, loaded.desired)?;
        Ok(Loaded { desired, ..loaded })
    }

    /// What is in force on this host: the project with every image as it is locked, or as `watch` followed its tag since.
    pub fn load_in_force(&self) -> Result<Desired, Failure> {
        locking::in_force(self, self.load()?.desired)
    }

    /// Its name alone, whatever else may be wrong with the manifests.
    pub fn project(&self) -> Result<ProjectName, Failure> {
        manifest::load_project(&self.files, &variable).map_err(Failure::problems)
    }

    /// The project of the manifests that were named with `-f`; `None` when none was.
    pub fn named_project(&self) -> Result<Option<ProjectName>, Failure> {
        match self.files.is_empty() {
            true => Ok(None),
            false => self.project().map(Some),
        }
    }

    /// The project that a bare name means where several have it: that of the manifests named, or else of those that
    /// are looked for. Manifests that nobody named and that cannot be read decide nothing.
    pub fn tie_break(&self) -> Result<Option<ProjectName>, Failure> {
        match self.files.is_empty() {
            true => Ok(self.project().ok()),
            false => self.named_project(),
        }
    }

    /// What the host file says, and which it is.
    pub fn host_config(&self) -> Result<(HostConfig, Option<PathBuf>), Failure> {
        host::load_host(self.host_config.as_deref(), &variable).map_err(Failure::host_problems)
    }

    /// How images are fetched, as the host file says; `helper` is the own binary.
    pub fn images(&self, helper: PathBuf) -> Result<image::Options, Failure> {
        let options = images_without_file(helper);
        options.registries.replace(self.host_config()?.0.registries);
        Ok(options)
    }

    /// The engine of this host, as the host file says.
    pub fn host(&self) -> Result<Host, Failure> {
        let host = self.host_without_file()?;
        host.registries().replace(self.host_config()?.0.registries);
        Ok(host)
    }

    /// The engine of this host before anybody has read the host file.
    pub fn host_without_file(&self) -> Result<Host, Failure> {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("containers, networks and mounts need root").hint("run it with sudo"));
        }
        let own =
            std::env::current_exe().map_err(|error| Failure::from(error).context("cannot find the own binary"))?;
        let monitor = own.with_file_name("evenkeel-monitor");
        if !monitor.exists() {
            return Err(Failure::new(format!("there is no `{}`", monitor.display())).hint(
                "`evenkeel` and `evenkeel-monitor` are installed side by side; `cargo install --path .` does that",
            ));
        }
        let images = images_without_file(own);
        let host = Host::open(Settings { paths: self.paths.clone(), monitor, images }).map_err(Failure::engine)?;
        Ok(host.keep_removed(self.keep_removed.to_duration()).acting_for(&self.who))
    }
}

fn images_without_file(helper: PathBuf) -> image::Options {
    let credentials = credentials::files(&|name| std::env::var_os(name));
    image::Options { credentials, variable, ..image::Options::new(helper) }
}

/// The environment as manifests see it. A value that is not UTF-8 cannot stand in one.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
