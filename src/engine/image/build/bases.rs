//! Which images a build begins with and takes files from, before anything is built: what a lock file has lines for.
//!
//! What a base asks for itself (`ONBUILD COPY --from=IMAGE`) is not known before it is here, and is not among them.

use std::collections::BTreeSet;

use super::inputs::read_text;
use super::scope::Scope;
use super::stage::{problem, wanted_stage};
use crate::engine::image::error::ImageError;
use crate::engine::image::options::Platform;
use crate::model::build::BuildSpec;
use crate::model::dockerfile::{Dockerfile, SCRATCH, Step};
use crate::model::image::{ImageSource, normalize_reference};

/// Every image that the wanted stage needs, built for `platform`, sorted.
///
/// # Errors
/// When the Dockerfile cannot be read or understood.
pub fn bases(spec: &BuildSpec, platform: &Platform) -> Result<BTreeSet<ImageSource>, ImageError> {
    let text = read_text(&spec.dockerfile).map_err(ImageError::file("read", &spec.dockerfile))?;
    of(&super::parse(spec, &text)?, spec, platform)
}

/// As [`bases()`], of a Dockerfile that is read already.
pub(super) fn of(
    file: &Dockerfile,
    spec: &BuildSpec,
    platform: &Platform,
) -> Result<BTreeSet<ImageSource>, ImageError> {
    let scope = Scope::new(file.escape, &file.arguments, &spec.args, platform).map_err(problem)?;
    let mut walk = Walk { file, scope, seen: BTreeSet::new(), bases: BTreeSet::new() };
    walk.stage(wanted_stage(spec, file)?)?;
    Ok(walk.bases)
}

/// From the wanted stage to all that it needs.
struct Walk<'a> {
    file: &'a Dockerfile,
    scope: Scope<'a>,
    seen: BTreeSet<usize>,
    bases: BTreeSet<ImageSource>,
}

impl Walk<'_> {
    fn stage(&mut self, index: usize) -> Result<(), ImageError> {
        if !self.seen.insert(index) {
            return Ok(());
        }
        let file = self.file;
        let stage = &file.stages[index];
        let base = self.scope.expand_from(&stage.base).map_err(problem)?;
        match file.stages[..index].iter().position(|stage| stage.is_called(&base)) {
            _ if base == SCRATCH => {}
            Some(above) => self.stage(above)?,
            None => self.image(&base)?,
        }
        for instruction in &stage.instructions {
            match &instruction.step {
                Step::Copy(copy) => self.files(copy.from.as_deref())?,
                Step::Run(run) => run.mounts.iter().try_for_each(|mount| self.files(mount.from()))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// What `--from` or `from=` means.
    fn files(&mut self, from: Option<&str>) -> Result<(), ImageError> {
        match from.map(|name| (name, self.file.stage(name))) {
            None => Ok(()),
            Some((_, Some(index))) => self.stage(index),
            Some((name, None)) => self.image(name),
        }
    }

    fn image(&mut self, reference: &str) -> Result<(), ImageError> {
        self.bases.insert(ImageSource::Reference(normalize_reference(reference)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_those_of_the_stages_that_are_needed() {
        let place = tempfile::tempdir().unwrap();
        let mut spec = BuildSpec::of(place.path().to_owned());
        let text = "ARG VERSION=1\nFROM base:$VERSION AS one\nFROM localhost/tools AS tools\n\
                    FROM localhost/never AS unused\nFROM scratch AS last\n\
                    COPY --from=tools /a /a\nCOPY --from=0 /b /b\nCOPY --from=busybox /c /c\n\
                    RUN --mount=type=bind,from=localhost/mounted,target=/m true\n\
                    FROM one AS early\n";
        std::fs::write(&spec.dockerfile, text).unwrap();
        let of = |spec: &BuildSpec| -> Vec<String> {
            bases(spec, &Platform::host()).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(of(&spec), ["docker.io/library/base:1"]);
        spec.args.insert("VERSION".into(), "2".into());
        assert_eq!(of(&spec), ["docker.io/library/base:2"]);
        spec.target = Some("last".into());
        let all = [
            "docker.io/library/base:2",
            "docker.io/library/busybox:latest",
            "localhost/mounted:latest",
            "localhost/tools:latest",
        ];
        assert_eq!(of(&spec), all);
    }
}
