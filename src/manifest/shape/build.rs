//! How an image is built: `build = "./dir"`, or a table.

use super::advice;
use super::form::{Labels as Texts, Scalar};
use crate::manifest::problem::Placed;
use crate::manifest::read::{Read, Reading, choice, either, placed, table};
use crate::manifest::tree::{Node, Value};
use crate::model::build::BuildNetwork;

/// A context, or a table with one.
#[derive(Debug)]
pub(in crate::manifest) enum Build {
    Context(Placed<String>),
    Table(Box<BuildTable>),
}

impl Read for Build {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Build> {
        match &node.value {
            Value::String(_) => placed(node, reading).map(Build::Context),
            _ => BuildTable::read(node, reading).map(|table| Build::Table(Box::new(table))),
        }
    }
}

either!(Build: String, BuildTable);

table! {
    /// How an image is built from a Dockerfile.
    BuildTable: "a build", requires ["context"], advice advice::BUILD, {
        /// The directory that `COPY` and `ADD` take files from; relative to this file.
        context: String,
        /// The Dockerfile; relative to the context. Default: `Dockerfile`.
        dockerfile: String,
        /// The stage to build. Default: the last.
        target: String,
        /// Values for the Dockerfile's `ARG`s.
        args: Texts,
        /// Labels of the image; they win over those of the Dockerfile.
        labels: Texts,
        /// What a `RUN` reaches: `host`, or `none`. Default: `host`.
        network: BuildNetwork,
        /// Run every instruction whenever something changed. Default: false.
        no_cache: bool,
        /// Look the bases up at their registries at every observation. Default: false, those on this host are taken.
        pull: bool,
    }
}

choice!(BuildNetwork, "a network of a build", [
    "host" => BuildNetwork::Host,
    "default" => BuildNetwork::Host,
    "none" => BuildNetwork::None,
]);

impl BuildTable {
    /// Names and values of `args`.
    pub fn arguments(&self) -> impl Iterator<Item = (&Placed<super::name::LabelKey>, &Scalar)> {
        self.args.iter().flat_map(|table| table.whole())
    }

    pub fn labels(&self) -> impl Iterator<Item = (&Placed<super::name::LabelKey>, &Scalar)> {
        self.labels.iter().flat_map(|table| table.whole())
    }
}
