//! Mounts of a container.

use std::collections::BTreeMap;

use crate::model::id::ResourceName;
use crate::model::units::ByteSize;
use crate::model::volume::{Access, Filling, MissingSource, Mount};

use super::declared::{Declared, Kind};
use super::{entries, value_of};
use crate::manifest::problem::{Place, Placed, Problem};
use crate::manifest::read::{Reading, quoted};
use crate::manifest::shape::container::Container;
use crate::manifest::shape::mount::{Mount as Written, MountTable, TmpfsSize};
use crate::manifest::shape::name::Target;

/// The mounts by target.
pub(super) fn mounts(
    name: &Placed<ResourceName>,
    written: &Container,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> BTreeMap<String, Mount> {
    let mut mounts = BTreeMap::new();
    for (target, written) in entries(&written.mounts) {
        check_target(name, target, reading);
        let mount = match written {
            Written::Volume(volume) => Some(volume_mount(volume, Access::ReadWrite, Filling::Image, declared, reading)),
            Written::Table(table) => table_mount(target, table, declared, reading),
        };
        if let Some(mount) = mount {
            mounts.insert(target.0.clone(), mount);
        }
    }
    mounts
}

/// What the container's own setup needs cannot be covered: `/proc` also because a fake one would lift the masks
/// (CVE-2019-16884).
fn check_target(name: &Placed<ResourceName>, target: &Placed<Target>, reading: &mut Reading<'_>) {
    let why = match target.0.as_str() {
        "/" => "the root filesystem is the image's",
        path if path == "/proc" || path.starts_with("/proc/") => "/proc is the kernel's",
        _ => return,
    };
    reading.report(Problem::at(&target.place, format!("`{}` cannot mount `{}`", name.value, target.0)).label(why));
}

fn table_mount(
    target: &Placed<Target>,
    table: &MountTable,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> Option<Mount> {
    let kinds: Vec<(&str, &Place)> = [
        ("volume", table.volume.as_ref().map(|key| &key.place)),
        ("bind", table.bind.as_ref().map(|key| &key.place)),
        ("tmpfs", table.tmpfs.as_ref().map(|key| &key.place)),
    ]
    .into_iter()
    .filter_map(|(kind, place)| Some((kind, place?)))
    .collect();
    match kinds.as_slice() {
        [(kind, _)] => check_options(kind, table, reading),
        [] => {
            if table.unread.is_empty() {
                let problem = Problem::at(&target.place, format!("nothing is mounted at `{}`", target.0));
                reading.report(problem.label("expected `volume`, `bind` or `tmpfs`"));
            }
            return None;
        }
        [(first, at), (second, again), ..] => {
            reading.report(
                Problem::at(again, format!("two things are mounted at `{}`", target.0))
                    .label(format!("`{second}` excludes `{first}`"))
                    .related(at, "the other one"),
            );
            return None;
        }
    }
    let access = match value_of(&table.read_only) {
        Some(true) => Access::ReadOnly,
        Some(false) | None => Access::ReadWrite,
    };
    if let Some(volume) = &table.volume {
        let filling = match value_of(&table.nocopy) {
            Some(true) => Filling::Nothing,
            Some(false) | None => Filling::Image,
        };
        return Some(volume_mount(volume, access, filling, declared, reading));
    }
    if let Some(source) = &table.bind {
        return bind_mount(source, table, access, reading);
    }
    let tmpfs = table.tmpfs.as_ref()?;
    if tmpfs.value.0 == Some(ByteSize(0)) {
        reading.report(Problem::at(&tmpfs.place, "a size of nothing").label("expected a size above 0"));
    }
    let TmpfsSize(size) = tmpfs.value;
    let options = table.options.iter().flat_map(|list| list.value.iter()).map(|option| option.value.clone()).collect();
    Some(Mount::Tmpfs { size, mode: value_of(&table.mode), options })
}

/// Keys that mean nothing for this kind of mount.
fn check_options(kind: &str, table: &MountTable, reading: &mut Reading<'_>) {
    let options = [
        ("read_only", table.read_only.as_ref().map(|key| &key.place), &["volume", "bind"][..]),
        ("propagation", table.propagation.as_ref().map(|key| &key.place), &["bind"]),
        ("create", table.create.as_ref().map(|key| &key.place), &["bind"]),
        ("mode", table.mode.as_ref().map(|key| &key.place), &["tmpfs"]),
        ("options", table.options.as_ref().map(|key| &key.place), &["tmpfs"]),
        ("nocopy", table.nocopy.as_ref().map(|key| &key.place), &["volume"]),
    ];
    for (option, place, kinds) in options {
        if let Some(place) = place.filter(|_| !kinds.contains(&kind)) {
            reading.report(
                Problem::at(place, format!("`{option}` means nothing for `{kind}`"))
                    .label(format!("it is for {}", crate::manifest::suggest::one_of(kinds))),
            );
        }
    }
}

fn volume_mount(
    volume: &Placed<ResourceName>,
    access: Access,
    filling: Filling,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> Mount {
    declared.check_name(volume, Kind::Volume, reading);
    Mount::Volume { name: volume.value.clone(), access, filling }
}

fn bind_mount(source: &Placed<String>, table: &MountTable, access: Access, reading: &mut Reading<'_>) -> Option<Mount> {
    if source.is_empty() || source.starts_with('~') {
        let problem = Problem::at(&source.place, format!("{} is not a path", quoted(&source.value)));
        reading.report(problem.label("expected a path of the host").help("write `${HOME}/..` for a home directory"));
        return None;
    }
    let path = reading.absolute(&source.place, &source.value);
    let missing = match value_of(&table.create) {
        Some(true) => MissingSource::Create,
        Some(false) | None => MissingSource::Refuse,
    };
    if missing == MissingSource::Refuse && reading.file_kind(&path).is_none() {
        let problem = Problem::at(&source.place, format!("the bind source `{}` is not there", path.display()));
        reading.report(
            problem.label("no such file or directory").help("make it, or add `create = true` to have a directory made"),
        );
    }
    Some(Mount::Bind { source: path, access, propagation: value_of(&table.propagation).unwrap_or_default(), missing })
}
