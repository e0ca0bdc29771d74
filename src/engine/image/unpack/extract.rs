//! Making the files of a layer, in the form in which overlayfs stacks it on others.
//!
//! A layer says what it changes. Stacked as a directory of its own, it says what it removes with overlayfs's marks
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"):
//!
//! ```text
//! .wh.NAME          a character device 0:0 at NAME hides what lower layers have there
//! .wh..wh..opq      trusted.overlay.opaque=y on the directory hides what they have in it
//! .wh.NAME + NAME/  both: the directory is opaque, in whichever order they come
//! ```
//!
//! Marks concern lower layers only, never members of the same layer (OCI image-spec, layer.md "Whiteouts"). Attributes
//! of overlayfs in the archive are dropped: they could redirect a directory to another place (`trusted.overlay.redirect`).
//! The last of several members with one path stays, as with tar(1).

use std::cell::RefCell;
use std::fs::File;
use std::io::BufWriter;
use std::rc::Rc;

use rustix::io::Errno;

use super::Limits;
use super::ground::{At, Ground, Refusal, Sort};
use super::members::{Kind, Lending, Member, Members, Stream};
use super::report::{Problem, show};
use super::tree::{Attributes, Directory, Tree, clean, split};
use crate::engine::image::erofs::Shape;
use crate::engine::image::recipe::Recipe;
use crate::engine::image::segment::Segment;
use crate::engine::image::store::record::LayerRecord;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of AUFS's own, such as `.wh..wh.plnk`: they are not files of the image.
const AUFS: &[u8] = b".wh..wh.";

pub struct Extractor<G: Ground> {
    tree: Tree<G>,
    limits: Limits,
    record: LayerRecord,
    recipe: Rc<RefCell<Recipe<BufWriter<File>>>>,
}

impl<G: Ground> Extractor<G> {
    /// Extracts below `tree`, which is empty, and tells `recipe` where contents are.
    pub fn new(tree: Tree<G>, limits: Limits, recipe: Rc<RefCell<Recipe<BufWriter<File>>>>) -> Extractor<G> {
        Extractor { tree, limits, record: LayerRecord::default(), recipe }
    }

    pub fn extract<S: Stream + Lending>(mut self, members: &mut Members<S>) -> Result<(LayerRecord, G::Done), Problem> {
        while let Some(member) = members.next()? {
            self.record.entries += 1;
            if self.record.entries > self.limits.entries {
                return Err(Problem::new(format!("it has more than the {} members allowed", self.limits.entries)));
            }
            self.make(members, member)?;
        }
        self.finish()
    }

    fn make<S: Stream + Lending>(&mut self, members: &mut Members<S>, member: Member) -> Result<(), Problem> {
        let path = clean(&member.path);
        let (parent, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.make_whiteout(parent, name);
        }
        if name.is_empty() {
            // The root itself; as anything but a directory it means nothing.
            if member.kind == Kind::Directory {
                self.describe(b"", member);
            }
            return Ok(());
        }
        let parent = self.tree.directory(parent)?;
        match member.kind {
            Kind::Directory => self.make_directory(&parent, name, member),
            Kind::File => self.make_file(members, &parent, name, &member),
            Kind::HardLink => self.make_hard_link(&parent, name, &member),
            Kind::SymbolicLink | Kind::Character | Kind::Block | Kind::Fifo => {
                if (member.kind, member.device) == (Kind::Character, (0, 0)) {
                    self.tree.attributes_of(&parent.real).has_whiteouts = true;
                }
                self.replacing(&At { directory: &parent, name }, |ground, at| ground.make_special(at, &member))
            }
        }
    }

    fn make_whiteout(&mut self, parent: &[u8], name: &[u8]) -> Result<(), Problem> {
        let parent = self.tree.directory(parent)?;
        if name == OPAQUE {
            self.tree.attributes_of(&parent.real).opaque = true;
            return Ok(());
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let name = &name[WHITEOUT.len()..];
        // `.wh..` would remove the directory itself and `.wh...` its parent.
        if matches!(name, b"" | b"." | b"..") {
            return Err(Problem::new(format!("`{}` holds a whiteout without a name", show(&parent.real))));
        }
        let real = parent.join(name);
        match self.tree.ground.make_whiteout(&parent.handle, name) {
            Err(Errno::EXIST) => {
                // What this layer has there stays. A directory of it must hide the lower one's contents.
                if self.tree.attributes.contains_key(&real) {
                    self.tree.attributes_of(&real).is_made_anew();
                }
                Ok(())
            }
            other => {
                self.tree.attributes_of(&parent.real).has_whiteouts = true;
                other.map_err(|errno| Problem::on("mark as removed", &real, errno))
            }
        }
    }

    fn make_directory(&mut self, parent: &Directory<G::Handle>, name: &[u8], member: Member) -> Result<(), Problem> {
        let real = parent.join(name);
        let failed = |errno| Problem::on("make the directory", &real, errno);
        match self.tree.make(parent, name) {
            Err(Errno::EXIST) if self.tree.attributes.contains_key(&real) => {}
            Err(Errno::EXIST) => {
                // It replaces something that is no directory, and that had replaced whatever is below.
                self.remove(&At { directory: parent, name })?;
                self.tree.make(parent, name).map_err(failed)?;
                self.tree.attributes_of(&real).opaque = true;
            }
            other => other.map_err(failed)?,
        }
        self.describe(&real, member);
        Ok(())
    }

    fn describe(&mut self, real: &[u8], member: Member) {
        let known = self.tree.attributes_of(real);
        *known = Attributes {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            modified: member.modified,
            xattrs: member.xattrs,
            opaque: known.opaque,
            has_whiteouts: known.has_whiteouts,
            implied: false,
        };
    }

    fn make_file<S: Stream + Lending>(
        &mut self,
        members: &mut Members<S>,
        parent: &Directory<G::Handle>,
        name: &[u8],
        member: &Member,
    ) -> Result<(), Problem> {
        self.record.content_size = self.record.content_size.saturating_add(member.size);
        if self.record.content_size > self.limits.content {
            return Err(Problem::new(format!("its files have more than the {} bytes allowed", self.limits.content)));
        }
        // A map can give a few bytes any length.
        if let Some((_, length)) = member.sparse
            && length > self.limits.content
        {
            let (path, limit) = (show(&member.path), self.limits.content);
            return Err(Problem::new(format!("`{path}` is longer than the {limit} bytes allowed")));
        }
        let at = At { directory: parent, name };
        let shape = match &member.sparse {
            Some((parts, length)) => Shape { length: *length, parts: Some(parts) },
            None => Shape { length: member.size, parts: None },
        };
        let mut file = self.replacing(&at, |ground, at| ground.begin_file(at, member, shape))?;
        let whole = [Segment { offset: 0, length: member.size }];
        let segments = shape.parts.unwrap_or(&whole);
        let real = at.real();
        let failed = |errno| Problem::on("write", &real, errno);
        self.recipe.borrow_mut().begin_file(&real, segments, shape.parts.is_none());
        for segment in segments {
            let told = self.recipe.borrow_mut().contents(&real, *segment);
            told.map_err(|error| Problem::writing("write the recipe", &error))?;
            let mut at = segment.offset;
            let end = segment.offset + segment.length;
            while at < end {
                let bytes = members.lend_body(end - at)?;
                if bytes.is_empty() {
                    return Err(Problem::new(format!("`{}` ends early", show(&member.path))));
                }
                self.tree.ground.write(&mut file, bytes, at).map_err(failed)?;
                at += bytes.len() as u64;
            }
        }
        self.tree.ground.end_file(file, &at, member)
    }

    /// A further name of a file of this layer. Links of the target's path are followed, but not one at its end.
    fn make_hard_link(&mut self, parent: &Directory<G::Handle>, name: &[u8], member: &Member) -> Result<(), Problem> {
        let real = parent.join(name);
        let target = clean(&member.link);
        let (target_parent, target_name) = split(&target);
        let target_parent = self.tree.directory(target_parent)?;
        let from = At { directory: &target_parent, name: target_name };
        let missing = || {
            Problem::new(format!("`{}` is a hard link to `{}`, which is not in this layer", show(&real), show(&target)))
        };
        if target_name.is_empty() {
            return Err(missing());
        }
        let wanted = self.tree.ground.look(&target_parent.handle, target_name).map_err(|_| missing())?;
        if matches!(wanted.sort, Sort::Whiteout | Sort::Directory) {
            return Err(missing());
        }
        match self.tree.ground.look(&parent.handle, name) {
            // The same file already: replacing it would remove what it is to be linked to.
            Ok(there) if there.identity == wanted.identity => {}
            _ => self.replacing(&At { directory: parent, name }, |ground, to| ground.link(&from, to))?,
        }
        self.recipe.borrow_mut().linked(&real);
        Ok(())
    }

    /// Removes what is to be replaced, after its contents have been written down.
    fn remove(&mut self, at: &At<'_, G::Handle>) -> Result<(), Problem> {
        self.tree.ground.files(at, &mut |path, file| self.recipe.borrow_mut().replacing(path, file))?;
        self.tree.remove(at.directory, at.name)
    }

    /// Makes something in place of whatever is there.
    fn replacing<T>(
        &mut self,
        at: &At<'_, G::Handle>,
        make: impl Fn(&mut G, &At<'_, G::Handle>) -> Result<T, Refusal>,
    ) -> Result<T, Problem> {
        let made = match make(&mut self.tree.ground, at) {
            Err(Refusal::Occupied) => {
                self.remove(at)?;
                make(&mut self.tree.ground, at)
            }
            made => made,
        };
        made.map_err(|refusal| match refusal {
            Refusal::Occupied => Problem::on("make", &at.real(), Errno::EXIST),
            Refusal::Failed(problem) => problem,
        })
    }

    /// Gives every directory its attributes, now that nothing is made in them any more.
    fn finish(mut self) -> Result<(LayerRecord, G::Done), Problem> {
        let implied = self.tree.attributes.iter().filter(|(_, attributes)| attributes.implied);
        self.record.implied = implied.map(|(real, _)| real.clone()).collect();
        self.record.opaque = self.tree.attributes_of(b"").opaque;
        let Tree { ground, attributes, .. } = self.tree;
        Ok((self.record, ground.finish(&attributes)?))
    }
}
