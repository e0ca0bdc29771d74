//! The top of a manifest and its tables of images, networks, volumes and restart policies.

use crate::model::follow::Window;
use crate::model::id::{ProjectName, ResourceName};
use crate::model::image::Pull;
use crate::model::network::Subnet;
use crate::model::restart::RestartCondition;
use crate::model::units::{FileMode, Timespan};

use super::advice;
use super::build::Build;
use super::container::Container;
use super::form::Labels;
use crate::manifest::read::{Entries, Whole, choice, table};

table! {
    /// The state of one project on one host.
    #[schemars(title = "Evenkeel manifest", extend("patternProperties" = { "^x-": {} }))]
    Manifest: "a manifest", requires [], advice advice::MANIFEST, {
        /// The boundary of ownership: what carries this name belongs to this manifest.
        project: ProjectName,
        /// Images by name.
        images: Entries<ResourceName, Image>,
        /// Networks by name. A container that names none is on the network `default`.
        networks: Entries<ResourceName, Network>,
        /// Volumes by name. A volume is never removed by `apply`.
        volumes: Entries<ResourceName, Volume>,
        /// Restart policies by name.
        restart: Entries<ResourceName, Restart>,
        /// Containers by name.
        containers: Entries<ResourceName, Container>,
    }
}

table! {
    /// Where an image comes from: exactly one of `reference`, `archive`, `rootfs` and `build`.
    #[schemars(extend("oneOf" = [
        { "required": ["reference"] }, { "required": ["archive"] }, { "required": ["rootfs"] },
        { "required": ["build"] }
    ], "dependentRequired" = { "image": ["archive"] }))]
    Image: "an image", requires [], advice advice::IMAGE, {
        /// An image in a registry, such as `registry.example.org/shop/web:1.4`.
        reference: String,
        /// A `docker save` or OCI archive, plain, gzip, xz or zstd, or a directory with an OCI layout; relative to this file.
        archive: String,
        /// Which image of an archive with several: `shop/web:1.4`, or its digest. The error without it names them.
        image: String,
        /// A directory or a tar file that is a root filesystem; relative to this file.
        rootfs: String,
        /// A directory with a Dockerfile, relative to this file, or a table that says more.
        build: Build,
        /// When the registry is asked. Default: `missing`.
        pull: Pull,
        /// What `watch` does when the tag of a `reference` moves: nothing, unless this is `tag`.
        follow: Followed,
        /// How long `watch` must have seen an image under its tag before it takes it. Default: at once.
        min_age: Timespan,
        /// When `watch` takes a new image, in the host's time zone unless it says UTC: `"02:00-04:00"`,
        /// `"Mon-Fri 02:00-04:00 UTC"`. Default: always.
        window: Window,
    }
}

/// What is followed of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    Tag,
}

choice!(Followed, "what is followed", [
    "tag" => Followed::Tag,
]);

choice!(Pull, "a pull policy", [
    "missing" => Pull::Missing,
    "always" => Pull::Always,
    "never" => Pull::Never,
]);

table! {
    /// A bridge with a subnet.
    Network: "a network", requires [], advice advice::NETWORK, {
        /// No way out of the host and none in. Default: false.
        internal: bool,
        /// The IPv4 subnet; chosen from a pool, away from the host's routes, when absent.
        subnet: Subnet,
        /// The IPv6 subnet; without it the network has no IPv6.
        subnet6: Subnet,
        /// The MTU of the bridge and its links.
        mtu: Whole<68, 65535>,
        /// Labels of the network.
        labels: Labels,
    }
}

table! {
    /// A directory that outlives the containers.
    Volume: "a volume", requires [], advice advice::VOLUME, {
        /// Who owns the directory; without it the image's directory decides.
        owner: Owner,
        /// Labels of the volume.
        labels: Labels,
    }
}

table! {
    /// Owner and permission bits of a volume's directory.
    Owner: "an owner", requires ["uid", "gid"], advice advice::NONE, {
        /// The user's number.
        uid: Whole<0, 4294967294>,
        /// The group's number.
        gid: Whole<0, 4294967294>,
        /// Permission bits. Default: `"0755"`.
        mode: FileMode,
    }
}

table! {
    /// When a container that ended is started again.
    Restart: "a restart policy", requires ["policy"], advice advice::RESTART, {
        /// In which cases.
        policy: RestartCondition,
        /// How many restarts in a row before giving up. Default: no limit.
        max_retries: Whole<1, 1000000>,
        /// How long to wait before a restart.
        backoff: Backoff,
    }
}

choice!(RestartCondition, "a restart policy", [
    "no" => RestartCondition::No,
    "on-failure" => RestartCondition::OnFailure,
    "always" => RestartCondition::Always,
    "unless-stopped" => RestartCondition::UnlessStopped,
]);

table! {
    /// The first restart is at once; then `initial`, growing by `factor` up to `max`.
    Backoff: "a backoff", requires [], advice advice::NONE, {
        /// The first wait. Default: `"100ms"`.
        initial: Timespan,
        /// By how much each wait is longer than the one before. Default: 2.
        factor: Whole<1, 100>,
        /// The longest wait. Default: `"1m"`.
        max: Timespan,
        /// A run of this length forgets the failures before it. Default: `"10s"`.
        reset_after: Timespan,
    }
}
