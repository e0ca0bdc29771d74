//! Images: entries of `[images]`, and what a container's `image` means.

use std::collections::BTreeMap;

use crate::model::follow::Follow;
use crate::model::id::ResourceName;
use crate::model::image::{Archived, ImageSource, Pull, normalize_reference};

use super::declared::Declared;
use super::{build, entries, value_of};
use crate::manifest::FileKind;
use crate::manifest::problem::{Place, Placed, Problem};
use crate::manifest::read::{Reading, quoted};
use crate::manifest::shape::build::Build;
use crate::manifest::shape::project::{Image, Manifest};
use crate::manifest::suggest::nearest;

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeclaredImage {
    pub source: ImageSource,
    pub pull: Pull,
    pub follow: Option<Follow>,
}

/// What an entry says, or `None` after a problem.
pub(super) fn declared(
    name: &Placed<ResourceName>,
    written: &Image,
    reading: &mut Reading<'_>,
) -> Option<DeclaredImage> {
    let texts = [("reference", &written.reference), ("archive", &written.archive), ("rootfs", &written.rootfs)]
        .into_iter()
        .filter_map(|(key, text)| text.as_ref().map(|text| (key, Given::Text(text))));
    let builds = written.build.iter().map(|build| ("build", Given::Build(build)));
    let given: Vec<(&str, Given<'_>)> = texts.chain(builds).collect();
    let (key, given) = match given.as_slice() {
        [one] => *one,
        [] => {
            if written.unread.is_empty() {
                let help = "`image` chooses one of the images in an `archive`; one in a registry is a `reference`";
                reading.report(
                    Problem::at(&name.place, format!("the image `{}` has no source", name.value))
                        .label("expected `reference`, `archive`, `rootfs` or `build`")
                        .maybe_help(written.image.is_some().then(|| help.to_owned())),
                );
            }
            return None;
        }
        [(first, at), (second, again), ..] => {
            reading.report(
                Problem::at(again.place(), format!("the image `{}` has two sources", name.value))
                    .label(format!("`{second}` excludes `{first}`"))
                    .related(at.place(), "the other one"),
            );
            return None;
        }
    };
    if let (Some(pull), "archive" | "rootfs" | "build") = (&written.pull, key) {
        let problem = Problem::at(&pull.place, format!("`pull` means nothing beside `{key}`"));
        let bases = (key == "build").then(|| "for its bases write `build = { .., pull = true }`".to_owned());
        reading.report(problem.label("only a `reference` is pulled").maybe_help(bases));
    }
    if let (Some(image), "reference" | "rootfs" | "build") = (&written.image, key) {
        let problem = Problem::at(&image.place, format!("`image` means nothing beside `{key}`"));
        reading.report(problem.label("it chooses one of the images in an `archive`"));
    }
    let follow = followed(written, key, reading);
    let either = [FileKind::File, FileKind::Directory];
    let source = match (key, given) {
        ("reference", Given::Text(text)) => reference(text, reading)?,
        ("archive", Given::Text(text)) => {
            ImageSource::Archive(Archived { path: archive(text, reading)?, image: value_of(&written.image) })
        }
        (_, Given::Text(text)) => ImageSource::Rootfs(existing(text, &either, "root filesystem", reading)?),
        (_, Given::Build(written)) => ImageSource::Build(Box::new(build::declared(written, reading)?)),
    };
    if let (Some(follow), ImageSource::Reference(text)) = (&written.follow, &source)
        && text.contains('@')
    {
        let problem = Problem::at(&follow.place, format!("the tag of `{}` cannot be followed", name.value));
        reading.report(problem.label("its reference has a digest, which stands for the same forever"));
    }
    Some(DeclaredImage { source, pull: value_of(&written.pull).unwrap_or_default(), follow })
}

/// How the tag is followed. What only means something with `follow` is refused without it.
fn followed(written: &Image, key: &str, reading: &mut Reading<'_>) -> Option<Follow> {
    if let (Some(follow), "archive" | "rootfs" | "build") = (&written.follow, key) {
        let problem = Problem::at(&follow.place, format!("`follow` means nothing beside `{key}`"));
        reading.report(problem.label("only a `reference` has a tag"));
    }
    if let (Some(follow), Some(Pull::Never)) = (&written.follow, value_of(&written.pull)) {
        let problem = Problem::at(&follow.place, "a tag cannot be followed that is never pulled");
        reading.report(problem.label("`pull = \"never\"` forbids it"));
    }
    if written.follow.is_none() {
        let only = [
            ("min_age", written.min_age.as_ref().map(|value| &value.place)),
            ("window", written.window.as_ref().map(|value| &value.place)),
        ];
        for (key, place) in only.into_iter().filter_map(|(key, place)| Some((key, place?))) {
            let problem = Problem::at(place, format!("`{key}` means nothing without `follow`"));
            reading.report(problem.label("it says when a followed tag is taken").help("write `follow = \"tag\"` too"));
        }
        return None;
    }
    Some(Follow { min_age: value_of(&written.min_age).unwrap_or_default(), window: value_of(&written.window) })
}

/// A source as it was written.
#[derive(Clone, Copy)]
enum Given<'m> {
    Text(&'m Placed<String>),
    Build(&'m Placed<Build>),
}

impl Given<'_> {
    fn place(&self) -> &Place {
        match self {
            Given::Text(text) => &text.place,
            Given::Build(build) => &build.place,
        }
    }
}

fn reference(text: &Placed<String>, reading: &mut Reading<'_>) -> Option<ImageSource> {
    match normalize_reference(&text.value) {
        Ok(reference) => Some(ImageSource::Reference(reference)),
        Err(why) => {
            let problem = Problem::at(&text.place, format!("{} is not an image reference", quoted(&text.value)));
            reading.report(problem.label(why.to_string()));
            None
        }
    }
}

/// A file, or a directory with what such a file holds.
fn archive(text: &Placed<String>, reading: &mut Reading<'_>) -> Option<std::path::PathBuf> {
    let path = existing(text, &[FileKind::File, FileKind::Directory], "archive", reading)?;
    let is_image = |kind: FileKind| {
        kind == FileKind::File
            || ["index.json", "manifest.json"].iter().any(|name| reading.file_kind(&path.join(name)).is_some())
    };
    if reading.file_kind(&path).is_some_and(is_image) {
        return Some(path);
    }
    let problem = Problem::at(&text.place, format!("`{}` is not an archive that was unpacked", path.display()));
    reading.report(
        problem
            .label("expected `index.json` or `manifest.json` in it")
            .help("a directory that is a root filesystem is declared as `rootfs`"),
    );
    None
}

fn existing(
    text: &Placed<String>,
    kinds: &[FileKind],
    noun: &str,
    reading: &mut Reading<'_>,
) -> Option<std::path::PathBuf> {
    let path = reading.absolute(&text.place, &text.value);
    match reading.file_kind(&path) {
        Some(kind) if kinds.contains(&kind) => return Some(path),
        Some(_) => reading.report(
            Problem::at(&text.place, format!("`{}` is not a file that an {noun} can be in", path.display()))
                .label("expected a file"),
        ),
        None => reading.report(
            Problem::at(&text.place, format!("the {noun} `{}` is not there", path.display()))
                .label("no such file or directory"),
        ),
    }
    None
}

/// One source cannot be pulled in two ways.
pub(super) fn check_pulls(
    manifest: &Manifest,
    images: &BTreeMap<ResourceName, Option<DeclaredImage>>,
    reading: &mut Reading<'_>,
) {
    let mut seen: BTreeMap<&ImageSource, (&Placed<ResourceName>, &DeclaredImage)> = BTreeMap::new();
    for (name, _) in entries(&manifest.images) {
        let Some(Some(image)) = images.get(&name.value) else { continue };
        match seen.get(&image.source) {
            Some((first, other)) if (other.pull, &other.follow) != (image.pull, &image.follow) => reading.report(
                Problem::at(&name.place, format!("`{}` and `{}` are the same image", first.value, name.value))
                    .label("pulled or followed in another way")
                    .related(&first.place, "first declared here"),
            ),
            Some(_) => {}
            None => {
                seen.insert(&image.source, (name, image));
            }
        }
    }
}

/// What a container's `image` means: an entry by its name, else a reference.
pub(super) fn of_container(
    text: &Placed<String>,
    declared: &Declared,
    reading: &mut Reading<'_>,
) -> Option<ImageSource> {
    let names = || declared.images.keys().map(ResourceName::as_str);
    if let Some((_, image)) = declared.images.iter().find(|(name, _)| name.as_str() == text.value) {
        return image.as_ref().map(|image| image.source.clone());
    }
    // A bare word could be an image of Docker's library; a slip of a declared name is likelier.
    let bare = !text.value.contains(['/', ':', '.', '@']);
    if let (true, Some(near)) = (bare, nearest(&text.value, names())) {
        let problem = Problem::at(&text.place, format!("there is no image `{}`", text.value));
        reading.report(problem.label("not declared in `images`").help(format!(
            "did you mean `{near}`? For the registry's image write \"docker.io/library/{}\"",
            text.value
        )));
        return None;
    }
    reference(text, reading)
}
