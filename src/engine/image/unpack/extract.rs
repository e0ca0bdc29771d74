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

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::Limits;
use super::fields::Pair;
use super::members::{Kind, Lending, Member, Members, Stream};
use super::report::{Problem, show};
use super::sparse::Segment;
use super::tree::{Attributes, Directory, Tree, clean, split};
use crate::engine::image::recipe::Recipe;
use crate::engine::image::store::record::LayerRecord;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of AUFS's own, such as `.wh..wh.plnk`: they are not files of the image.
const AUFS: &[u8] = b".wh..wh.";

pub struct Extractor {
    tree: Tree,
    limits: Limits,
    record: LayerRecord,
    recipe: Rc<RefCell<Recipe<BufWriter<File>>>>,
}

impl Extractor {
    /// Extracts below `tree`, which is empty, and tells `recipe` where contents are.
    pub fn new(tree: Tree, limits: Limits, recipe: Rc<RefCell<Recipe<BufWriter<File>>>>) -> Extractor {
        Extractor { tree, limits, record: LayerRecord::default(), recipe }
    }

    pub fn extract<S: Stream + Lending>(mut self, members: &mut Members<S>) -> Result<LayerRecord, Problem> {
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
            Kind::SymbolicLink => {
                let make = |d: &Directory| rustix::fs::symlinkat(member.link.as_slice(), &d.fd, name);
                self.replacing(&parent, name, make)?;
                self.set_attributes(&parent, name, &member)
            }
            Kind::Character | Kind::Block | Kind::Fifo => {
                let kind = match member.kind {
                    Kind::Character => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = rustix::fs::makedev(member.device.0, member.device.1);
                let mode = Mode::from_raw_mode(member.mode);
                self.replacing(&parent, name, |d| rustix::fs::mknodat(&d.fd, name, kind, mode, device))?;
                self.set_attributes(&parent, name, &member)
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
        match rustix::fs::mknodat(&parent.fd, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {
                // What this layer has there stays. A directory of it must hide the lower one's contents.
                if self.tree.attributes.contains_key(&real) {
                    self.tree.attributes_of(&real).opaque = true;
                }
                Ok(())
            }
            other => other.map_err(|errno| Problem::on("mark as removed", &real, errno)),
        }
    }

    fn make_directory(&mut self, parent: &Directory, name: &[u8], member: Member) -> Result<(), Problem> {
        let real = parent.join(name);
        let failed = |errno| Problem::on("make the directory", &real, errno);
        match self.tree.make(parent, name) {
            Err(Errno::EXIST) if self.tree.attributes.contains_key(&real) => {}
            Err(Errno::EXIST) => {
                // It replaces something that is no directory, and that had replaced whatever is below.
                self.remove(parent, name)?;
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
            implied: false,
        };
    }

    fn make_file<S: Stream + Lending>(
        &mut self,
        members: &mut Members<S>,
        parent: &Directory,
        name: &[u8],
        member: &Member,
    ) -> Result<(), Problem> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(member.mode);
        let file = self.replacing(parent, name, |d| rustix::fs::openat(&d.fd, name, flags, mode))?;
        let failed = |errno| Problem::on("write", &parent.join(name), errno);
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
        let whole = [Segment { offset: 0, length: member.size }];
        let segments = member.sparse.as_ref().map_or(whole.as_slice(), |(segments, _)| segments);
        let real = parent.join(name);
        self.recipe.borrow_mut().begin_file(&real, segments, member.sparse.is_none());
        for segment in segments {
            let told = self.recipe.borrow_mut().contents(&real, *segment);
            told.map_err(|error| Problem::writing("write the recipe", &error))?;
            let mut at = segment.offset;
            let end = segment.offset + segment.length;
            while at < end {
                let mut bytes = members.lend_body(end - at)?;
                if bytes.is_empty() {
                    return Err(Problem::new(format!("`{}` ends early", show(&member.path))));
                }
                while !bytes.is_empty() {
                    let written = rustix::io::pwrite(&file, bytes, at).map_err(failed)?;
                    bytes = &bytes[written..];
                    at += written as u64;
                }
            }
        }
        if let Some((_, length)) = member.sparse {
            rustix::fs::ftruncate(&file, length).map_err(failed)?;
        }
        if (member.uid, member.gid) != (0, 0) {
            rustix::fs::fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(member.uid)),
                Some(rustix::fs::Gid::from_raw(member.gid)),
            )
            .map_err(failed)?;
            if member.mode & 0o6000 != 0 {
                // chown(2) cleared them.
                rustix::fs::fchmod(&file, mode).map_err(failed)?;
            }
        }
        // After chown(2), which also clears file capabilities.
        for (key, value) in kept(&member.xattrs) {
            rustix::fs::fsetxattr(&file, key, value, XattrFlags::empty())
                .map_err(|errno| xattr_problem(&parent.join(name), key, errno))?;
        }
        rustix::fs::futimens(&file, &times(member.modified)).map_err(failed)
    }

    /// A further name of a file of this layer. Links of the target's path are followed, but not one at its end.
    fn make_hard_link(&mut self, parent: &Directory, name: &[u8], member: &Member) -> Result<(), Problem> {
        let real = parent.join(name);
        let target = clean(&member.link);
        let (target_parent, target_name) = split(&target);
        let target_parent = self.tree.directory(target_parent)?;
        let stat = |d: &Directory, name| rustix::fs::statat(&d.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let missing = || {
            Problem::new(format!("`{}` is a hard link to `{}`, which is not in this layer", show(&real), show(&target)))
        };
        let wanted = stat(&target_parent, target_name).map_err(|_| missing())?;
        let is_whiteout = FileType::from_raw_mode(wanted.st_mode) == FileType::CharacterDevice && wanted.st_rdev == 0;
        if target_name.is_empty() || is_whiteout || FileType::from_raw_mode(wanted.st_mode) == FileType::Directory {
            return Err(missing());
        }
        match stat(parent, name) {
            // The same file already: replacing it would remove what it is to be linked to.
            Ok(there) if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino) => Ok(()),
            _ => self.replacing(parent, name, |d| {
                rustix::fs::linkat(&target_parent.fd, target_name, &d.fd, name, AtFlags::empty())
            }),
        }?;
        self.recipe.borrow_mut().linked(&real);
        Ok(())
    }

    /// Removes what is to be replaced, after its contents have been written down.
    fn remove(&mut self, parent: &Directory, name: &[u8]) -> Result<(), Problem> {
        self.tree.keep(parent, name, &mut |path, file| {
            let kept = self.recipe.borrow_mut().replacing(path, &file);
            kept.map_err(|error| Problem::writing("write the recipe", &error))
        })?;
        self.tree.remove(parent, name)
    }

    /// Makes something at `name`, in place of whatever is there.
    fn replacing<T>(
        &mut self,
        parent: &Directory,
        name: &[u8],
        make: impl Fn(&Directory) -> Result<T, Errno>,
    ) -> Result<T, Problem> {
        match make(parent) {
            Err(Errno::EXIST) => {
                self.remove(parent, name)?;
                make(parent)
            }
            other => other,
        }
        .map_err(|errno| Problem::on("make", &parent.join(name), errno))
    }

    /// Owner, attributes and times of what is neither a file nor a directory.
    fn set_attributes(&self, parent: &Directory, name: &[u8], member: &Member) -> Result<(), Problem> {
        let failed = |errno| Problem::on("set the attributes of", &parent.join(name), errno);
        if (member.uid, member.gid) != (0, 0) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(member.uid), rustix::fs::Gid::from_raw(member.gid));
            rustix::fs::chownat(&parent.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            if member.kind != Kind::SymbolicLink && member.mode & 0o6000 != 0 {
                rustix::fs::chmodat(&parent.fd, name, Mode::from_raw_mode(member.mode), AtFlags::empty())
                    .map_err(failed)?;
            }
        }
        // The kernel gives `user.*` to files and directories alone (xattr(7)); Docker passes over it as well.
        for (key, value) in kept(&member.xattrs).filter(|(key, _)| !key.starts_with(b"user.")) {
            // There is no call that takes a descriptor and a name; this process has no other use for its directory.
            rustix::process::fchdir(&parent.fd).map_err(failed)?;
            rustix::fs::lsetxattr(name, key, value, XattrFlags::empty())
                .map_err(|errno| xattr_problem(&parent.join(name), key, errno))?;
        }
        let times = times(member.modified);
        rustix::fs::utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Gives every directory its attributes, now that nothing is made in them any more.
    fn finish(mut self) -> Result<LayerRecord, Problem> {
        let root = self.tree.directory(b"")?;
        for (real, attributes) in &self.tree.attributes {
            let failed = |errno| Problem::on("set the attributes of", real, errno);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
            let path = if real.is_empty() { b"." } else { real.as_slice() };
            let directory = crate::sys::path::openat2(&root.fd, path, flags, Mode::empty(), resolve).map_err(failed)?;
            let (uid, gid) = (rustix::fs::Uid::from_raw(attributes.uid), rustix::fs::Gid::from_raw(attributes.gid));
            rustix::fs::fchown(&directory, Some(uid), Some(gid)).map_err(failed)?;
            for (key, value) in kept(&attributes.xattrs) {
                rustix::fs::fsetxattr(&directory, key, value, XattrFlags::empty())
                    .map_err(|errno| xattr_problem(real, key, errno))?;
            }
            if attributes.opaque {
                rustix::fs::fsetxattr(&directory, c"trusted.overlay.opaque", b"y", XattrFlags::empty())
                    .map_err(failed)?;
            }
            rustix::fs::fchmod(&directory, Mode::from_raw_mode(attributes.mode)).map_err(failed)?;
            rustix::fs::futimens(&directory, &times(attributes.modified)).map_err(failed)?;
            if attributes.implied {
                self.record.implied.push(real.clone());
            }
        }
        self.record.opaque = self.tree.attributes_of(b"").opaque;
        Ok(self.record)
    }
}

/// The extended attributes that are part of an image. `trusted.overlay.*` and `user.overlay.*` would steer overlayfs;
/// labels and signatures (`security.selinux`, `security.ima`) belong to the host's own policy.
fn kept(xattrs: &[Pair]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).filter(|(key, _)| is_kept(key))
}

fn is_kept(key: &[u8]) -> bool {
    let has = |prefix: &[u8]| key.starts_with(prefix) && key.len() > prefix.len();
    match key {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ if has(b"trusted.overlay.") || has(b"user.overlay.") => false,
        _ => has(b"user.") || has(b"trusted."),
    }
}

fn xattr_problem(path: &[u8], key: &[u8], errno: Errno) -> Problem {
    let (key, path) = (key.escape_ascii(), show(path));
    match errno {
        // ext4 says so too of a value that does not fit into a file's one block of attributes (xattr(7)).
        Errno::NOSPC => Problem::new(format!("the file system has no room for the attribute `{key}` of `{path}`")),
        errno => Problem::new(format!("cannot set the attribute `{key}` of `{path}`: {errno}")),
    }
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attributes_of_the_image_are_kept() {
        for key in ["user.a", "security.capability", "trusted.a", "system.posix_acl_access"] {
            assert!(is_kept(key.as_bytes()), "{key}");
        }
        for key in
            ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.whiteout", "security.selinux", "user."]
        {
            assert!(!is_kept(key.as_bytes()), "{key}");
        }
    }
}
