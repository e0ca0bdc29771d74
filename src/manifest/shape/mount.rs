//! What is mounted into a container: the name of a volume, or a table.

use crate::model::id::ResourceName;
use crate::model::tmpfs::TmpfsOption;
use crate::model::units::{ByteSize, FileMode};
use crate::model::volume::Propagation;

use super::advice;
use crate::manifest::problem::{Placed, Problem};
use crate::manifest::read::{Read, Reading, choice, either, placed, table};
use crate::manifest::tree::{Node, Value};

#[derive(Debug)]
pub(in crate::manifest) enum Mount {
    Volume(Placed<ResourceName>),
    Table(Box<MountTable>),
}

table! {
    /// A mount: exactly one of `volume`, `bind` and `tmpfs`.
    #[schemars(extend("oneOf" = [{ "required": ["volume"] }, { "required": ["bind"] }, { "required": ["tmpfs"] }]))]
    MountTable: "a mount", requires [], advice advice::MOUNT, {
        /// The name of a volume.
        volume: ResourceName,
        /// A path of the host, relative to this file.
        bind: String,
        /// A filesystem in memory: its size, or `true` for no limit of its own.
        tmpfs: TmpfsSize,
        /// The container cannot write to it. For `volume` and `bind`. Default: false.
        read_only: bool,
        /// How mounts made later reach the other side. For `bind`. Default: `rprivate`.
        propagation: Propagation,
        /// A directory is made when the source is not there. For `bind`. Default: false.
        create: bool,
        /// Permission bits of its root. For `tmpfs`.
        mode: FileMode,
        /// Options of tmpfs(5) and mount(8) beside `nosuid` and `nodev`: `["noexec", "uid=1000"]`. For `tmpfs`.
        options: Vec<Placed<TmpfsOption>>,
        /// An empty volume stays empty: it does not get what the image has there. For `volume`. Default: false.
        nocopy: bool,
    }
}

choice!(Propagation, "a propagation", [
    "rprivate" => Propagation::Rprivate,
    "private" => Propagation::Private,
    "rshared" => Propagation::Rshared,
    "shared" => Propagation::Shared,
    "rslave" => Propagation::Rslave,
    "slave" => Propagation::Slave,
]);

either!(Mount: ResourceName, MountTable);

impl Read for Mount {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Mount> {
        let Value::String(text) = &node.value else {
            return MountTable::read(node, reading).map(|table| Mount::Table(Box::new(table)));
        };
        if text.starts_with(['/', '.', '~']) {
            let problem = Problem::at(&node.place, format!("{text:?} is a path, not the name of a volume"));
            reading.report(
                problem
                    .label("expected the name of a volume")
                    .help(format!("to mount a path of the host, write {{ bind = {text:?} }}")),
            );
            return None;
        }
        if let Some((name, option)) = text.split_once(':') {
            let problem = Problem::at(&node.place, format!("{text:?} is not the name of a volume"));
            reading.report(problem.label("expected the name of a volume").help(match option {
                "ro" => format!("write {{ volume = {name:?}, read_only = true }}"),
                _ => format!("write {name:?}, or a table such as {{ volume = {name:?}, read_only = true }}"),
            }));
            return None;
        }
        placed(node, reading).map(Mount::Volume)
    }
}

/// `None` is no limit of its own: half of the host's memory, as tmpfs(5) has it.
#[derive(Debug)]
pub(in crate::manifest) struct TmpfsSize(pub Option<ByteSize>);

either!(TmpfsSize: ByteSize, bool);

impl Read for TmpfsSize {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<TmpfsSize> {
        match node.value {
            Value::Boolean(true) => Some(TmpfsSize(None)),
            _ => ByteSize::read(node, reading).map(|size| TmpfsSize(Some(size))),
        }
    }
}
