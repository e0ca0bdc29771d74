//! `COPY` and `ADD`: files of the context, of a stage, of an image, of a here-document, of another host.
//!
//! # Decisions
//! * What is fetched has a checksum, or it is an error: a plan would have to ask the other host what a build would make,
//!   and nobody could say of an image what it was made of. So a file is fetched only where its layer is not here.
//! * A linked layer (`--link`) is written on nothing, as BuildKit does it: it is found again on whatever base, links of the
//!   base are not followed, and directories on the way to a file are new ones, root's and 0755.

use std::fs;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use super::copy::{Devices, Fresh, Look, Target};
use super::files::{Files, On, lower};
use super::stage::{Builder, Stage, problem};
use super::tree::{Chosen, Item, Owners, Tree, look, shown};
use crate::engine::image::digesting::Digesting;
use crate::engine::image::error::ImageError;
use crate::engine::image::layer::check_digest;
use crate::engine::image::registry::bare;
use crate::engine::image::registry::download::download;
use crate::engine::image::rootfs;
use crate::engine::image::store::session::StagedLayer;
use crate::engine::storage::view;
use crate::model::dockerfile::chmod::Chmod;
use crate::model::dockerfile::expand::expand_document;
use crate::model::dockerfile::pattern::Ignore;
use crate::model::dockerfile::{Copy, CopyKind, CopySource, Heredoc, Instruction};
use crate::model::id::Digest;
use crate::model::launch::Identity;
use crate::runtime::identity;

/// What an instruction says, its variables replaced.
struct Asked {
    target: String,
    /// Whether what is copied goes into the target, whatever is there.
    into: bool,
    owner: Option<String>,
    mode: Option<Chmod>,
    unpacks: bool,
    on: On,
}

impl Asked {
    fn of(builder: &Builder<'_>, stage: &Stage, copy: &Copy) -> Result<Asked, ImageError> {
        let expand = |text: &str| builder.scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let written = expand(&copy.target)?;
        let is_directory = written.ends_with('/') || matches!(written.as_str(), "." | "..") || written.ends_with("/.");
        let mode = copy.mode.as_deref().map(|text| {
            let text = expand(text)?;
            text.parse().map_err(|why| problem(format!("`{text}` is not a mode: {why}")))
        });
        Ok(Asked {
            target: stage.absolute(&written),
            into: is_directory || copy.keeps_parents,
            owner: copy.owner.as_deref().map(expand).transpose()?,
            mode: mode.transpose()?,
            unpacks: copy.unpacks.unwrap_or(copy.kind == CopyKind::Add && copy.checksum.is_none()),
            on: if copy.is_linked { On::Nothing } else { On::Stage },
        })
    }

    /// Where something of this name goes.
    fn path(&self, to: &Target, name: &[u8]) -> Vec<u8> {
        match self.into || to.is_directory(self.target.as_bytes()) {
            true => [self.target.trim_end_matches('/').as_bytes(), b"/", name].concat(),
            false => self.target.clone().into_bytes(),
        }
    }

    /// As a key has it: numbers stay what they are, changes are told from them.
    fn mode_key(&self) -> serde_json::Value {
        match &self.mode {
            None => json!(null),
            Some(Chmod::Set(mode)) => json!(mode),
            Some(changes) => json!(format!("{changes:?}")),
        }
    }
}

impl<'a> Builder<'a> {
    pub(super) fn copy(&self, stage: &mut Stage, instruction: &Instruction, copy: &Copy) -> Result<(), ImageError> {
        let expand = |text: &str| self.scope.expand(text, &|name| stage.variable(name)).map_err(problem);
        let told = |error: io::Error| problem(error.to_string());
        let mut asked = Asked::of(self, stage, copy)?;
        let place = self.stage_place()?;
        if asked.on == On::Nothing {
            self.look_up_owner(stage, &mut asked, &place.tree())?;
        }
        if let [CopySource::Url(url)] = copy.sources.as_slice() {
            let (url, checksum) = (expand(url)?, expand(copy.checksum.as_deref().unwrap_or_default())?);
            return self.fetch(stage, instruction, &asked, (&url, &checksum));
        }
        let files = Files::of(self, copy.from.as_deref(), &place.tree())?;
        let exclude: Vec<String> = copy.exclude.iter().map(|text| expand(text)).collect::<Result<_, _>>()?;
        let exclude = Ignore::of(exclude.iter().map(String::as_str)).map_err(problem)?;
        let (mut chosen, mut documents) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                CopySource::Path(path) if copy.keeps_parents => {
                    chosen.extend(files.tree().choose_with_parents(&expand(path)?, &exclude).map_err(told)?);
                }
                CopySource::Path(path) => chosen.extend(files.tree().choose(&expand(path)?, &exclude).map_err(told)?),
                CopySource::Url(url) => return Err(problem(format!("`{url}` is not the only source"))),
                CopySource::Document(Heredoc { name, body, expands: false }) => documents.push((name, body.clone())),
                CopySource::Document(Heredoc { name, body, expands: true }) => {
                    let body = expand_document(body, &|name| stage.variable(name)).map_err(problem)?;
                    documents.push((name, body));
                }
            }
        }
        if chosen.len() + documents.len() > 1 && !asked.into {
            let target = &asked.target;
            return Err(problem(format!("several files cannot become one; write the target as `{target}/`")));
        }
        let owners = if asked.owner.is_some() { Owners::Replaced } else { files.owners() };
        let mut parts = Vec::new();
        for one in &chosen {
            let digest = files.tree().contents(&one.items, owners).map_err(told)?;
            let mut part = json!({ "name": shown(&one.name), "directory": one.is_directory, "contents": digest });
            if !one.parents.is_empty() {
                part["parents"] = json!(files.tree().contents(&one.parents, owners).map_err(told)?);
            }
            parts.push(part);
        }
        let unpacks = asked.unpacks;
        let inputs = json!({
            "copy": parts, "documents": documents, "unpack": unpacks, "target": asked.target,
            "owner": asked.owner, "mode": asked.mode_key(), "owners": owners == Owners::Kept,
        });
        let items = || chosen.iter().flat_map(|one| one.items.iter().cloned()).collect::<Vec<Item>>();
        let on = asked.on;
        self.layer(stage, instruction, (inputs, on), |writing| {
            let to = writing.target()?;
            let named = asked.owner.as_deref().map(|owner| numbers(&to, owner)).transpose()?;
            let devices = if files.owners() == Owners::Kept { Devices::Copied } else { Devices::Refused };
            let owner = named.or((files.owners() == Owners::Replaced).then_some((0, 0)));
            let copies = Look { owner, mode: asked.mode.as_ref(), devices };
            // Before anything is there that could be it.
            let paths: Vec<Vec<u8>> = chosen.iter().map(|one| asked.path(&to, &one.name)).collect();
            for (one, path) in chosen.iter().zip(&paths) {
                let archive = if unpacks { self.archive(&files, one)? } else { None };
                match archive {
                    Some(archive) => place_archive(&to, &archive, &asked, named)?,
                    None if one.is_directory && !copy.keeps_parents => {
                        to.copy(files.tree(), one, asked.target.as_bytes(), copies).map_err(told)?;
                    }
                    None => to.copy_with_parents(files.tree(), one, path, copies).map_err(told)?,
                }
            }
            for (name, body) in &documents {
                let fresh = Fresh { contents: &mut body.as_bytes(), mode: 0o644, modified: None };
                to.write(&asked.path(&to, name.as_bytes()), fresh, copies).map_err(told)?;
            }
            self.check_unchanged(&files, &items())
        })
    }

    /// In a layer that is written on nothing there are no accounts to find numbers in.
    fn look_up_owner(&self, stage: &Stage, asked: &mut Asked, place: &Path) -> Result<(), ImageError> {
        let Some(owner) = asked.owner.as_ref().filter(|owner| !owner.chars().all(|c| c.is_ascii_digit() || c == ':'))
        else {
            return Ok(());
        };
        let failed = ImageError::file("mount on", place);
        let files = view::open(&lower(stage, place)?, None, place).map_err(failed)?;
        let (uid, gid) = numbers(&Target::new(files), owner)?;
        asked.owner = Some(format!("{uid}:{gid}"));
        Ok(())
    }

    /// `ADD URL`.
    fn fetch(
        &self,
        stage: &mut Stage,
        instruction: &Instruction,
        asked: &Asked,
        (url, checksum): (&str, &str),
    ) -> Result<(), ImageError> {
        let checksum: Digest =
            checksum.parse().map_err(|_| problem(format!("`{checksum}` is not a checksum: write `sha256:..`")))?;
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.is_empty() && asked.into {
            let url = bare(url);
            return Err(problem(format!("`{url}` names no file; write the target with the name that it shall have")));
        }
        let inputs = json!({
            "fetch": checksum, "name": name, "unpack": asked.unpacks, "target": asked.target,
            "owner": asked.owner, "mode": asked.mode_key(),
        });
        self.layer(stage, instruction, (inputs, asked.on), |writing| {
            let (file, modified) = self.downloaded(url, &checksum)?;
            let to = writing.target()?;
            let named = asked.owner.as_deref().map(|owner| numbers(&to, owner)).transpose()?;
            let archive = if asked.unpacks { self.archive_in(&file, name.as_bytes(), bare(url))? } else { None };
            if let Some(archive) = archive {
                return place_archive(&to, &archive, asked, named);
            }
            let copies = Look { owner: named, mode: asked.mode.as_ref(), devices: Devices::Refused };
            // Nobody but its owner shall trust a file of a stranger: that is the reference's word, too.
            let fresh = Fresh { contents: &mut &file, mode: 0o600, modified };
            let written = to.write(&asked.path(&to, name.as_bytes()), fresh, copies);
            written.map_err(|error| problem(error.to_string()))
        })
    }

    /// The file, from its beginning, and when it was last modified.
    fn downloaded(&self, url: &str, checksum: &Digest) -> Result<(fs::File, Option<SystemTime>), ImageError> {
        let options = self.workshop.options;
        let mut file = self.workshop.session.spool()?;
        let mut digesting = Digesting::new(&mut file);
        let modified = download(url, options, options.limits.content, &mut digesting)?;
        check_digest(bare(url), checksum, digesting.finish().0)?;
        file.rewind().map_err(|error| problem(error.to_string()))?;
        Ok((file, modified))
    }

    /// The layer is remembered under the contents that were read before it was copied.
    fn check_unchanged(&self, files: &Files<'_>, before: &[Item]) -> Result<(), ImageError> {
        let Files::Context(tree) = files else { return Ok(()) };
        let now: io::Result<Vec<Item>> = before.iter().map(|item| tree.again(item)).collect();
        match now.is_ok_and(|now| look(&now) == look(before)) {
            true => Ok(()),
            false => Err(problem("files of the context changed while they were copied; apply again")),
        }
    }

    /// The files of a chosen archive; `None` if it is none.
    fn archive(&self, files: &Files<'_>, chosen: &Chosen) -> Result<Option<StagedLayer>, ImageError> {
        let Some(item) = chosen.items.first().filter(|_| !chosen.is_directory) else { return Ok(None) };
        let file = files.tree().open_file(item).map_err(|error| problem(error.to_string()))?;
        self.archive_in(&file, &chosen.name, &shown(&item.path))
    }

    /// The files of an archive, unpacked by a confined child; `None` if it is none. `subject` is what errors call it.
    fn archive_in(&self, file: &fs::File, name: &[u8], subject: &str) -> Result<Option<StagedLayer>, ImageError> {
        let failed = |error: io::Error| problem(error.to_string());
        let again = || -> io::Result<fs::File> {
            let mut again = file.try_clone()?;
            again.rewind().map(|()| again)
        };
        let mut start = Vec::new();
        again().and_then(|file| file.take(512).read_to_end(&mut start)).map_err(failed)?;
        let is_archive = is_archive(&start, name, again).map_err(problem)?;
        let file = again().map_err(failed)?;
        match is_archive {
            true => rootfs::unpack_open_file(&self.workshop, file, subject).map(|layer| Some(layer.staged)),
            false => Ok(None),
        }
    }
}

fn place_archive(
    to: &Target,
    archive: &StagedLayer,
    asked: &Asked,
    owner: Option<(u32, u32)>,
) -> Result<(), ImageError> {
    let told = |error: io::Error| problem(error.to_string());
    let tree = Tree::new(crate::runtime::layer::open(&archive.files()).map_err(told)?, Ignore::default());
    let look = Look { owner, mode: None, devices: Devices::Copied };
    for one in &tree.choose("/", &Ignore::default()).map_err(told)? {
        to.copy(&tree, one, asked.target.as_bytes(), look).map_err(told)?;
    }
    Ok(())
}

/// Whether a file that begins so is a tar archive.
fn is_archive(start: &[u8], name: &[u8], again: impl FnOnce() -> io::Result<fs::File>) -> Result<bool, String> {
    let ends = |all: &[&[u8]]| all.iter().any(|end| name.ends_with(end));
    let is_tar = |block: &[u8]| block.get(257..262) == Some(b"ustar");
    match start {
        [0x1f, 0x8b, ..] => {
            let mut block = Vec::new();
            let read =
                again().and_then(|file| flate2::read::MultiGzDecoder::new(file).take(512).read_to_end(&mut block));
            Ok(read.is_ok() && is_tar(&block))
        }
        // Its contents are for the confined child alone to inflate, so its name decides.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(ends(&[b".tar.zst", b".tzst"])),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(ends(&[b".tar.xz", b".txz"])),
        [b'B', b'Z', b'h', ..] if ends(&[b".tar.bz2", b".tbz2", b".tbz"]) => Err(format!(
            "`{}` is compressed with bzip2, which is not read; use gzip, xz or zstd, or `COPY` it",
            shown(name)
        )),
        block => Ok(is_tar(block)),
    }
}

/// User and group of `--chown`, by the image's own files. A number alone is both.
fn numbers(files: &Target, owner: &str) -> Result<(u32, u32), ImageError> {
    if let Ok(number) = owner.parse() {
        return Ok((number, number));
    }
    let read =
        |path| files.read_accounts(path).map(Option::unwrap_or_default).map_err(|error| problem(error.to_string()));
    let identity = Identity { user: owner.to_owned(), groups: Vec::new() };
    let found = identity::find(&identity, &read("etc/passwd")?, &read("etc/group")?);
    found.map(|numbers| (numbers.uid, numbers.gid)).map_err(|error| problem(error.to_string()))
}
