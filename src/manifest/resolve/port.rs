//! Published ports: two containers cannot have the same one.

use crate::model::id::ResourceName;
use crate::model::port::HostPort;

use super::{entries, keys};
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::Reading;
use crate::manifest::shape::project::Manifest;

/// Replicas of one container may share a port: they are balanced.
pub(super) fn check(manifest: &Manifest, reading: &mut Reading<'_>) {
    let mut seen: Vec<(&Placed<ResourceName>, &Placed<HostPort>)> = Vec::new();
    for (name, container) in entries(&manifest.containers) {
        for port in keys(&container.ports) {
            let taken = seen.iter().find(|(_, other)| other.value.conflicts(&port.value));
            if let Some((owner, other)) = taken {
                reading.report(conflict((name, port), (owner, other)));
            }
            seen.push((name, port));
        }
    }
}

type Published<'m> = (&'m Placed<ResourceName>, &'m Placed<HostPort>);

fn conflict((name, port): Published<'_>, (owner, other): Published<'_>) -> Problem {
    let message = match owner.value == name.value {
        true => format!("`{}` publishes `{}` twice", name.value, port.value),
        false => format!("`{}` and `{}` publish the same port `{}`", owner.value, name.value, port.value),
    };
    let same = port.value == other.value;
    Problem::at(&port.place, message)
        .label("already published")
        .related(&other.place, if same { "here".to_owned() } else { format!("`{}` includes it", other.value) })
}
