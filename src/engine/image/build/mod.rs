//! Building an image from a Dockerfile.
//!
//! ```text
//! Dockerfile, context ── inputs ──> what they are ── stage: one instruction after the other ──> layers, configuration
//!
//! RUN    overlay of the layers so far, upper ── sandbox ──> task ── run ──> child ── runtime ──> the command
//! COPY   the same overlay, writable         <── copy ── tree: the context, a stage, an image
//! both   upper ── layer ──> digest ──> layers/<diff id>, remembered in cache under all that it follows from
//! ```
//!
//! * `inputs`: whether a build would make something else now. [`bases()`]: what it begins with. `scope`: variables. `config`: the configuration.
//! * `stage`: the files and words of one stage, and what every instruction does to them. `files` are those that
//!   write, `add` of them `COPY` and `ADD`.
//! * `apart`: the mounts of a build. `mounts` and `secrets`: those of one `RUN`.
//! * [`child`]: the hidden process `evenkeel internal-build`.
//!
//! Only the stages that the wanted one needs are built.
//!
//! # Decisions
//! * A layer is kept as soon as its instruction has succeeded, so the next build goes on where this one failed.
//! * Commands have the host's network unless the build or the instruction says `none`: a bridge would need addresses and
//!   firewall rules, which are declared state and chosen by a plan, and a build is a step of one.
//! * Bases are taken as they are on this host; only `pull = true` asks their registries. A base that moves otherwise is
//!   no reason to build again: the same plan may be what moves it, and a plan after it must be empty. A base that is
//!   locked is the one that the lock names, and a lock that names another one is a reason.

mod add;
mod apart;
mod bases;
pub mod cache;
mod change;
pub mod child;
mod config;
mod copy;
mod files;
mod inputs;
pub(super) mod layer;
mod mounts;
mod run;
pub mod sandbox;
mod scope;
mod secrets;
mod stage;
mod tree;

use super::config as configuration;
use super::ensure::{Parts, Tools, commit};
use super::error::ImageError;
use super::layer::Workshop;
use super::store::Store;
use super::store::record::sha256;
use super::store::session::Session;
use crate::model::build::BuildSpec;
use crate::model::dockerfile::{self, Dockerfile};
use crate::model::image::{Image, ImageSource, Pull};
use crate::model::lock::lockable;

pub use bases::bases;
pub(super) use change::{changed, committed};
pub use inputs::moved;

use apart::apart;
use inputs::{Inputs, relocked};
use stage::Builder;

/// Makes the image of a build whole, unless it was built of what is there now.
pub(super) fn ensure_build(
    session: Session<'_>,
    source: &ImageSource,
    spec: &BuildSpec,
    tools: Tools<'_>,
) -> Result<Image, ImageError> {
    let inputs = Inputs::read(spec, session.store())?;
    if let (Some(record), Pull::Missing) = (session.store().find_record(source)?, spec.pull)
        && let Some(stamp) = &record.stamp
        && inputs.difference(spec, stamp)?.is_none()
        && relocked(stamp, &tools.options.bases).is_none()
    {
        return Ok(record.image);
    }
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    commit(&workshop, Some(source), Vec::new(), make(&workshop, source, spec, &inputs)?)
}

/// Builds once and gives the image these names; without one it is there and nothing stands for it. Instructions that
/// were run for the same before are not run again.
pub fn build(store: &Store, spec: &BuildSpec, names: &[ImageSource], tools: Tools<'_>) -> Result<Image, ImageError> {
    let source = ImageSource::Build(Box::new(spec.clone()));
    let session = store.session(&source)?;
    let workshop = Workshop { session: &session, options: tools.options, progress: tools.progress };
    let parts = make(&workshop, &source, spec, &Inputs::read(spec, store)?)?;
    let image = commit(&workshop, None, Vec::new(), parts)?;
    store.teller.tell(&store.teller.of_image("build", &image, None));
    names.iter().try_for_each(|name| session.name(name, &image))?;
    store.mark_used(&image.id)?;
    Ok(image)
}

/// Runs the Dockerfile. What the inputs were when it began must be what they are when it has ended.
fn make(workshop: &Workshop<'_>, source: &ImageSource, spec: &BuildSpec, inputs: &Inputs) -> Result<Parts, ImageError> {
    let parsed = parse(spec, &inputs.text)?;
    if let Some(locks) = &workshop.options.bases {
        // The Dockerfile may be another one than when the lock file was compared with it.
        let bases = bases::of(&parsed, spec, &workshop.options.platform)?;
        let mut names = bases.iter().filter_map(|base| lockable(base, Pull::Missing));
        if let Some(name) = names.find(|name| !locks.contains_key(name)) {
            return Err(ImageError::Unlocked { name });
        }
    }
    let (config, bases) = apart(|| {
        let builder = Builder::new(*workshop, spec, &parsed, &inputs.context)?;
        Ok((builder.build()?, builder.into_bases()))
    })?;
    let stamp = inputs.stamp(spec, bases)?;
    if let Some(changed) = Inputs::read(spec, workshop.session.store())?.difference(spec, &stamp)? {
        let problem = format!("{changed} while it was built; apply again");
        return Err(ImageError::Malformed { subject: source.to_string(), problem });
    }
    let configuration = configuration::parse(&source.to_string(), &config)?;
    let id = sha256([config.as_slice()]);
    Ok(Parts { id, manifest: None, configuration, blobs: vec![config], stamp: Some(stamp) })
}

fn parse(spec: &BuildSpec, text: &str) -> Result<Dockerfile, ImageError> {
    dockerfile::parse(text).map_err(|errors| {
        let first = errors.into_iter().next();
        let problem = first.map_or_else(String::new, |error| {
            let line = text[..error.place.start.min(text.len())].matches('\n').count() + 1;
            format!("line {line}: {}, {}", error.message, error.expected)
        });
        ImageError::Malformed { subject: spec.dockerfile.display().to_string(), problem }
    })
}
