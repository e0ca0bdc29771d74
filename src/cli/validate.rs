//! `evenkeel validate`: whether the manifests, their lock file, and the host file, say something that can be done. Needs no root and no engine.

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::failure::{Exit, Failure};
use super::output::{Format, Output};
use super::phrase::counted;
use crate::model::id::Whose;

#[derive(Serialize)]
struct Document {
    valid: bool,
    project: Whose,
    containers: usize,
    networks: usize,
    volumes: usize,
    images: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_file: Option<PathBuf>,
}

pub fn run(context: &Context, output: &Output) -> Result<Exit, Failure> {
    let (host_file, desired) = match (context.host_config(), context.load_locked()) {
        (Ok((_, host_file)), Ok(loaded)) => (host_file, loaded.desired),
        (Err(host_file), Err(manifest)) => return Err(host_file.and(manifest)),
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => return Err(failure),
    };
    let document = Document {
        valid: true,
        project: desired.project,
        containers: desired.containers.len(),
        networks: desired.networks.len(),
        volumes: desired.volumes.len(),
        images: desired.images.len(),
        host_file,
    };
    match output.format() {
        Format::Json => output.document(&document)?,
        Format::Text => {
            let of = |count: usize, noun| counted(count as u64, noun);
            output.text(&format!(
                "project {} is valid: {}, {}, {}, {}\n",
                document.project,
                of(document.containers, "container"),
                of(document.networks, "network"),
                of(document.volumes, "volume"),
                of(document.images, "image"),
            ))?;
            if let Some(path) = &document.host_file {
                output.text(&format!("host file {} is valid\n", path.display()))?;
            }
        }
    }
    Ok(Exit::Done)
}
