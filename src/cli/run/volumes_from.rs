//! `--volumes-from`: what another container mounts is mounted here too, at the same places.

use super::declaration::malformed;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::select;
use crate::engine::image::store::Store;
use crate::model::actual::Actual;
use crate::model::desired::Desired;
use crate::model::id::{ResourceName, VolumeKey, Whose};
use crate::model::record::ContainerRecord;
use crate::model::volume::{Access, Mount, Propagation};

/// Adds to the container `name` of `desired` what the others of `words` mount. What it mounts by itself comes first, and
/// then what an earlier one of them has.
pub fn lend(
    words: &[String],
    actual: &Actual,
    name: &ResourceName,
    desired: &mut Desired,
    context: &Context,
) -> Result<(), Failure> {
    let records: Vec<_> = actual.containers.values().map(|container| container.record.clone()).collect();
    for written in words {
        let (word, access) = match written.split_once(':') {
            None => (written.as_str(), None),
            Some((word, "rw")) => (word, None),
            Some((word, "ro")) => (word, Some(Access::ReadOnly)),
            Some(_) => return Err(malformed("--volumes-from", written, "CONTAINER, CONTAINER:ro or CONTAINER:rw")),
        };
        let lender = select::one(&records, word, &|| context.tie_break())?;
        ensure_all_can_be_shared(lender, context)?;
        for (target, mount) in &lender.spec.mounts {
            let Some(mount) = shared(mount, access, lender, context) else { continue };
            if let Mount::Volume { name: volume, .. } = &mount {
                let key = VolumeKey { project: Whose::Nobody, name: volume.clone() };
                let known = actual.volumes.get(&key).map(|volume| volume.record.spec.clone());
                desired.volumes.entry(volume.clone()).or_insert(known.unwrap_or_default());
            }
            if let Some(container) = desired.containers.get_mut(name) {
                container.spec.mounts.entry(target.clone()).or_insert(mount);
            }
        }
    }
    Ok(())
}

/// A mount as another container has it. What is in memory is its own.
fn shared(mount: &Mount, access: Option<Access>, lender: &ContainerRecord, context: &Context) -> Option<Mount> {
    let narrowed = |own: Access| access.unwrap_or(own);
    match (mount, &lender.project) {
        (Mount::Tmpfs { .. }, _) => None,
        (Mount::Volume { name, access, filling }, Whose::Nobody) => {
            Some(Mount::Volume { name: name.clone(), access: narrowed(*access), filling: *filling })
        }
        // A volume of a project is mounted by its place, as `--volume PROJECT/NAME:TARGET` does.
        (Mount::Volume { name, access, .. }, Whose::Project(_)) => {
            let key = VolumeKey { project: lender.project.clone(), name: name.clone() };
            let source = context.paths.volume_data(&key);
            let (access, propagation) = (narrowed(*access), Propagation::default());
            Some(Mount::Bind { source, access, propagation, missing: Default::default() })
        }
        (Mount::Bind { source, access, propagation, missing }, _) => Some(Mount::Bind {
            source: source.clone(),
            access: narrowed(*access),
            propagation: *propagation,
            missing: *missing,
        }),
    }
}

/// A VOLUME of an image that nothing is mounted at is a directory of the container's own.
fn ensure_all_can_be_shared(lender: &ContainerRecord, context: &Context) -> Result<(), Failure> {
    let store = Store::new(&context.paths.root);
    // What it was made of, not what the tag stands for by now.
    let image = lender.image.as_ref().map(|id| store.known(id)).transpose()?.flatten();
    let declared = image.iter().flat_map(|image| &image.config.volumes);
    match declared.into_iter().find(|target| !lender.spec.mounts.contains_key(target.trim_end_matches('/'))) {
        None => Ok(()),
        Some(target) => {
            let name = lender.full_name();
            Err(Failure::usage(format!("container `{name}` keeps `{target}`, a VOLUME of its image, to itself"))
                .hint(format!("make that one with `-v {target}`, which is a volume that others can mount")))
        }
    }
}
