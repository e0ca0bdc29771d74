//! How an image is built: `build = "./dir"`, or a table.

use super::advice;
use super::form::{Labels as Texts, Scalar};
use super::name::{SecretId, Variable};
use crate::manifest::problem::Placed;
use crate::manifest::read::{Entries, Read, Reading, choice, either, placed, table};
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
        /// What `RUN --mount=type=secret` may ask for, by id: a file, relative to this file, or a variable of whoever
        /// builds. Nothing of their contents is kept.
        secrets: Entries<SecretId, Secret>,
        /// What a `RUN` reaches: `host`, or `none`. Default: `host`.
        network: BuildNetwork,
        /// Run every instruction whenever something changed. Default: false.
        no_cache: bool,
        /// Look the bases up at their registries at every observation. Default: false, those on this host are taken.
        pull: bool,
    }
}

/// A file, or a table that says where the secret is.
#[derive(Debug)]
pub(in crate::manifest) enum Secret {
    File(Placed<String>),
    Table(Placed<SecretTable>),
}

impl Read for Secret {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Secret> {
        match &node.value {
            Value::String(_) => placed(node, reading).map(Secret::File),
            _ => placed(node, reading).map(Secret::Table),
        }
    }
}

either!(Secret: String, SecretTable);

table! {
    /// Where a secret of a build is read; one of the two.
    SecretTable: "a secret of a build", requires [], advice advice::SECRET, {
        /// A file of this host; relative to this file.
        file: String,
        /// A variable of whoever builds.
        environment: Variable,
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

    pub fn secrets(&self) -> impl Iterator<Item = (&Placed<SecretId>, &Secret)> {
        self.secrets.iter().flat_map(|table| table.whole())
    }

    pub fn labels(&self) -> impl Iterator<Item = (&Placed<super::name::LabelKey>, &Scalar)> {
        self.labels.iter().flat_map(|table| table.whole())
    }
}
