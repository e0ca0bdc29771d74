//! What a host file may say: one declaration per table.

use crate::manifest::problem::Placed;
use crate::manifest::read::{Advice, Bare, Entries, Whole, Word, table, word_schema};
use crate::model::host_config::{Mirror, RegistryName};
use crate::model::units::Timespan;

const HOST_FILE: Advice<'_> = &[
    ("registry", "write `[registries.\"HOST\"]`"),
    ("mirrors", "write `mirrors` in `[registries.\"HOST\"]`"),
    ("registry-mirrors", "write `mirrors` in `[registries.\"docker.io\"]`"),
    ("insecure-registries", "write `plain_http = true` in `[registries.\"HOST\"]`"),
    ("garbage_collection", "write `[gc]`"),
    ("project", "this is the host file; projects are declared in manifests"),
    ("containers", "this is the host file; containers are declared in manifests"),
];

const REGISTRY: Advice<'_> = &[
    ("mirror", "write `mirrors = [\"..\"]`"),
    ("endpoint", "write `mirrors = [\"..\"]`"),
    ("insecure", "write `plain_http = true`; certificates are always checked, `ca` names one more authority"),
    ("tls_verify", "certificates are always checked; `ca` names one more authority"),
    ("skip_verify", "certificates are always checked; `ca` names one more authority"),
    ("http", "write `plain_http = true`"),
    ("ca_file", "write `ca`"),
    ("cert", "write `client_certificate`"),
    ("key", "write `client_key`"),
    ("location", "write it as a mirror: `mirrors = [\"..\"]`"),
    ("prefix", "the registry is the table's name: `[registries.\"HOST\"]`"),
    ("username", "`evenkeel login HOST` keeps credentials, in a file of their own"),
    ("password", "`evenkeel login HOST` keeps credentials, in a file of their own"),
    ("auth", "`evenkeel login HOST` keeps credentials, in a file of their own"),
];

const GC: Advice<'_> = &[
    ("high_threshold", "write `high`"),
    ("low_threshold", "write `low`"),
    ("max_age", "write `min_age`: what is younger stays"),
];

table! {
    /// What is true of this host and of no single project.
    #[schemars(title = "Evenkeel host file", extend("patternProperties" = { "^x-": {} }))]
    HostFile: "a host file", requires [], advice HOST_FILE, {
        /// Registries by the name that references have for them: `docker.io`, `registry.example.org:5000`.
        registries: Entries<RegistryName, Registry>,
        /// When images that nobody needs are removed.
        gc: Gc,
    }
}

table! {
    /// How one registry is reached.
    Registry: "a registry", requires [], advice REGISTRY, {
        /// Registries that are asked before this one, in this order, each perhaps with a path that goes before the
        /// repository: `cache.example.org:5000/hub`. How a mirror is reached is said in its own table.
        mirrors: Vec<Placed<Mirror>>,
        /// A file of certificates (PEM) of authorities that are trusted for this registry, besides those that the host
        /// trusts anyway; relative to this file.
        ca: String,
        /// The certificate (PEM) that this host shows to the registry; relative to this file. Needs `client_key`.
        client_certificate: String,
        /// The private key (PEM) of `client_certificate`; relative to this file.
        client_key: String,
        /// Whether the registry is reached without TLS. Default: only where it is on this very host, and neither `ca` nor
        /// `client_certificate` is set.
        plain_http: bool,
        /// Never asked itself: its images come from its mirrors, or not at all. Default: false.
        blocked: bool,
    }
}

table! {
    /// When images that nobody needs are removed: neither running, nor declared, nor locked, nor the way back.
    Gc: "garbage collection", requires [], advice GC, {
        /// Percent of the file system in use from which on images are removed. Default: 85.
        high: Whole<1, 100>,
        /// Percent of the file system in use at which removing ends. Default: 75, or 10 below `high` where that is less.
        low: Whole<0, 99>,
        /// What was used within this time stays. Default: `"24h"`.
        min_age: Timespan,
    }
}

impl Word for RegistryName {
    const NOUN: &'static str = "a registry";
    const BARE: Bare = Bare::Nothing;
    fn parse(text: &str) -> Result<RegistryName, String> {
        text.parse().map_err(|_| "expected a host name and perhaps a port".to_owned())
    }
    fn meant(text: &str) -> Option<String> {
        without_scheme(text)
    }
}
word_schema!(RegistryName, "a registry", Nothing, "^[A-Za-z0-9.:\\[\\]-]+$");

impl Word for Mirror {
    const NOUN: &'static str = "a mirror";
    const BARE: Bare = Bare::Nothing;
    fn parse(text: &str) -> Result<Mirror, String> {
        text.parse().map_err(|_| "expected a registry and perhaps a path".to_owned())
    }
    fn meant(text: &str) -> Option<String> {
        without_scheme(text)
    }
}
word_schema!(Mirror, "a mirror", Nothing, "^[A-Za-z0-9.:\\[\\]-]+(/.*)?$");

fn without_scheme(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let rest = rest.trim_end_matches('/');
    Some(match scheme {
        "http" => format!("write \"{rest}\", and `plain_http = true` in `[registries.\"{rest}\"]`"),
        _ => format!("write \"{rest}\""),
    })
}
