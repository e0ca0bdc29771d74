//! The tables that containers refer to: images, networks, volumes, restart policies, and the containers' names.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::follow::Follow;
use crate::model::id::ResourceName;
use crate::model::image::{ImageSource, Pull};
use crate::model::network::NetworkSpec;
use crate::model::restart::{Backoff, RestartCondition, RestartPolicy};
use crate::model::units::{FileMode, Timespan};
use crate::model::volume::{Owner, VolumeSpec};

use super::image::DeclaredImage;
use super::{ImageNames, entries, image, keys, network, value_of};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::{Reading, Word};
use crate::manifest::shape::form::Labels;
use crate::manifest::shape::project::{Manifest, Restart, Volume};
use crate::manifest::suggest::nearest;

/// Every name that is declared, with what it stands for; `None` where that could not be read.
pub(super) struct Declared {
    pub images: BTreeMap<ResourceName, Option<DeclaredImage>>,
    pub networks: BTreeMap<ResourceName, Option<NetworkSpec>>,
    pub volumes: BTreeMap<ResourceName, Option<VolumeSpec>>,
    pub restart: BTreeMap<ResourceName, Option<RestartPolicy>>,
    pub containers: BTreeSet<ResourceName>,
    /// Tables of the manifest that could not be read at all: nobody knows what they declare.
    unread: Vec<&'static str>,
}

/// What a name is the name of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Network,
    Volume,
    Container,
}

impl Kind {
    /// The noun, and the table that declares it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Kind::Network => ("network", "networks"),
            Kind::Volume => ("volume", "volumes"),
            Kind::Container => ("container", "containers"),
        }
    }
}

impl Declared {
    pub fn of(manifest: &Manifest, reading: &mut Reading<'_>) -> Declared {
        let mut declared = Declared {
            images: keys(&manifest.images).map(|name| (name.value.clone(), None)).collect(),
            networks: keys(&manifest.networks).map(|name| (name.value.clone(), None)).collect(),
            volumes: keys(&manifest.volumes).map(|name| (name.value.clone(), None)).collect(),
            restart: keys(&manifest.restart).map(|name| (name.value.clone(), None)).collect(),
            containers: keys(&manifest.containers).map(|name| name.value.clone()).collect(),
            unread: manifest.unread.clone(),
        };
        for (name, written) in entries(&manifest.images) {
            declared.images.insert(name.value.clone(), image::declared(name, written, reading));
        }
        image::check_pulls(manifest, &declared.images, reading);
        for (name, written) in entries(&manifest.networks) {
            declared.networks.insert(name.value.clone(), Some(network::declared(written, reading)));
        }
        for (name, written) in entries(&manifest.volumes) {
            declared.volumes.insert(name.value.clone(), Some(volume(written)));
        }
        for (name, written) in entries(&manifest.restart) {
            if RestartCondition::parse(name.value.as_str()).is_ok() {
                let problem = Problem::at(&name.place, format!("`{}` is a built-in restart policy", name.value));
                reading.report(problem.label("choose another name"));
            }
            declared.restart.insert(name.value.clone(), restart_policy(written, reading));
        }
        declared
    }

    /// Reports the name where nothing of this kind has it.
    pub fn check_name(&self, name: &Placed<ResourceName>, kind: Kind, reading: &mut Reading<'_>) {
        let names: Vec<&ResourceName> = match kind {
            Kind::Network => self.networks.keys().collect(),
            Kind::Volume => self.volumes.keys().collect(),
            Kind::Container => self.containers.iter().collect(),
        };
        let (noun, table) = kind.words();
        if names.contains(&&name.value) || self.unread.contains(&table) {
            return;
        }
        let near = nearest(name.value.as_str(), names.iter().map(|candidate| candidate.as_str()));
        let problem = Problem::at(&name.place, format!("there is no {noun} `{}`", name.value));
        reading.report(problem.label(format!("not declared in `{table}`")).help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("declare it: `[{table}.{}]`", name.value),
        }));
    }

    /// Whether the table of restart policies was read.
    pub fn knows_restart_policies(&self) -> bool {
        !self.unread.contains(&"restart")
    }

    pub fn pulls(&self) -> BTreeMap<ImageSource, Pull> {
        self.images.values().flatten().map(|image| (image.source.clone(), image.pull)).collect()
    }

    pub fn followed(&self) -> BTreeMap<ImageSource, Follow> {
        let images = self.images.values().flatten();
        images.filter_map(|image| Some((image.source.clone(), image.follow.clone()?))).collect()
    }

    /// The first name of every source.
    pub fn image_names(&self) -> ImageNames {
        let mut names = ImageNames::new();
        for (name, image) in &self.images {
            if let Some(image) = image {
                names.entry(image.source.clone()).or_insert_with(|| name.clone());
            }
        }
        names
    }

    pub fn network_specs(&self) -> BTreeMap<ResourceName, NetworkSpec> {
        self.networks.iter().filter_map(|(name, spec)| Some((name.clone(), spec.clone()?))).collect()
    }

    pub fn volume_specs(&self) -> BTreeMap<ResourceName, VolumeSpec> {
        self.volumes.iter().filter_map(|(name, spec)| Some((name.clone(), spec.clone()?))).collect()
    }
}

fn volume(written: &Volume) -> VolumeSpec {
    let owner = written.owner.as_ref().and_then(|owner| {
        Some(Owner {
            // Both are within u32 by their type.
            uid: u32::try_from(owner.uid.as_ref()?.0).ok()?,
            gid: u32::try_from(owner.gid.as_ref()?.0).ok()?,
            mode: value_of(&owner.mode).unwrap_or(FileMode(0o755)),
        })
    });
    VolumeSpec { owner, labels: labels(&written.labels) }
}

pub(super) fn labels(written: &Option<Placed<Labels>>) -> BTreeMap<String, String> {
    entries(written).map(|(key, value)| (key.value.0.clone(), value.0.clone())).collect()
}

/// The policy of a table, or `None` when its condition could not be read.
pub(super) fn restart_policy(written: &Restart, reading: &mut Reading<'_>) -> Option<RestartPolicy> {
    let condition = written.policy.as_ref()?;
    if condition.value == RestartCondition::No {
        let useless = written.max_retries.as_ref().map(|key| (&key.place, "max_retries"));
        let useless = useless.or(written.backoff.as_ref().map(|key| (&key.place, "backoff")));
        if let Some((place, key)) = useless {
            reading.report(
                Problem::at(place, format!("`{key}` means nothing where nothing is restarted"))
                    .related(&condition.place, "the policy is `no`"),
            );
        }
    }
    let defaults = Backoff::default();
    let backoff = match &written.backoff {
        None => defaults,
        Some(written) => {
            for wait in [&written.initial, &written.max].into_iter().flatten() {
                if wait.value == Timespan::ZERO {
                    reading.report(Problem::at(&wait.place, "a wait of nothing would restart in a tight loop"));
                }
            }
            let backoff = Backoff {
                initial: value_of(&written.initial).unwrap_or(defaults.initial),
                factor: written.factor.as_ref().map_or(defaults.factor, |factor| factor.0 as u32),
                max: value_of(&written.max).unwrap_or(defaults.max),
                reset_after: value_of(&written.reset_after).unwrap_or(defaults.reset_after),
            };
            if backoff.initial > backoff.max {
                reading.report(Problem::at(
                    &written.place,
                    format!("the first wait ({}) is longer than the longest ({})", backoff.initial, backoff.max),
                ));
            }
            backoff
        }
    };
    let max_retries = written.max_retries.as_ref().map(|number| number.0 as u32);
    Some(RestartPolicy { condition: condition.value, max_retries, backoff })
}
