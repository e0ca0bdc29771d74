//! `state ID`, and how a container is shown elsewhere.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Serialize;

use super::arguments::ContainerArguments;
use super::store::{Container, Status, Store};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;

/// The properties of runtime.md ("State"), and those that runc adds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub oci_version: String,
    pub id: String,
    /// 0 when it has ended.
    pub pid: i32,
    pub status: Status,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
    pub owner: String,
}

pub fn run(arguments: &ContainerArguments, store: &Store, output: &Output) -> Result<Exit, Failure> {
    output.document(&show(store.look(&arguments.id)?)?)?;
    Ok(Exit::Done)
}

pub fn show(container: Container) -> Result<Shown, Failure> {
    let status = container.status()?;
    let pid = container.live_process().map_or(0, |pid| pid.as_raw_nonzero().get());
    let owner = owner(&container);
    let record = container.record;
    Ok(Shown {
        oci_version: record.oci_version,
        id: record.id,
        pid,
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: record.annotations,
        owner,
    })
}

/// Who created it, by name where the host has one.
fn owner(container: &Container) -> String {
    let Ok(found) = std::fs::metadata(&container.directory) else { return String::new() };
    let uid = found.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}
