//! `evenkeel validate`: whether the manifests say something that can be done. Needs no root and no engine.

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
}

pub fn run(context: &Context, output: &Output) -> Result<Exit, Failure> {
    let desired = context.load()?.desired;
    let document = Document {
        valid: true,
        project: desired.project,
        containers: desired.containers.len(),
        networks: desired.networks.len(),
        volumes: desired.volumes.len(),
        images: desired.images.len(),
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
        }
    }
    Ok(Exit::Done)
}
