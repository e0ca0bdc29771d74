//! Which extended attributes of a layer are kept.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::fields::Pair;
use super::report::{Problem, show};

/// What overlayfs reads on a directory that hides what lower layers have in it.
pub const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

/// What makes overlayfs look for whiteouts when it lists a directory that only one layer has: it says that the directory was
/// copied from somewhere. Without it a name that hides nothing, since no lower layer has it, is listed and cannot be opened.
pub const LISTED_WITH_CARE: (&str, &[u8]) = ("trusted.overlay.origin", b"");

/// Of a name with its prefix, and of a value (limits.h: XATTR_NAME_MAX, XATTR_SIZE_MAX).
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 64 << 10;
/// Of all names of a file, each with its zero byte: what listxattr(2) has room for, but for those that overlayfs adds.
const NAMES_MAX: usize = (64 << 10) - 1024;
const CAPABILITY: &[u8] = b"security.capability";

/// The extended attributes that are part of an image, in order of their names; the last of several with one name counts.
/// What no call sets on any file is refused here, so that a layer means the same whatever it becomes.
///
/// # Errors
/// The attribute, and what a call would say.
pub fn chosen<'a>(all: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<Vec<Pair>, (&'a [u8], Errno)> {
    let chosen: BTreeMap<&[u8], &[u8]> = all.filter(|(key, _)| is_kept(key)).collect();
    let mut names = 0;
    for (key, value) in &chosen {
        names += key.len() + 1;
        let errno = match key.len() {
            length if length > NAME_MAX => Errno::RANGE,
            _ if value.len() > VALUE_MAX || names > NAMES_MAX => Errno::TOOBIG,
            _ if *key == CAPABILITY && !is_capability(value) => Errno::INVAL,
            _ => continue,
        };
        return Err((key, errno));
    }
    Ok(chosen.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

/// Of a revision that is still set (linux/capability.h): the second, or the third with whose root it concerns.
fn is_capability(value: &[u8]) -> bool {
    let word = |at: usize| value.get(at..at + 4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    match (word(0).map(|word| word >> 24), value.len()) {
        (Some(2), 20) => true,
        (Some(3), 24) => word(20) != Some(u32::MAX),
        _ => false,
    }
}

/// Those that [`chosen`] has chosen.
pub fn kept(xattrs: &[Pair]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
}

/// Of those, what something has that is neither a file nor a directory: the kernel gives `user.*` to these alone
/// (xattr(7)), and Docker passes over it as well.
pub fn kept_of_special(xattrs: &[Pair]) -> impl Iterator<Item = (&[u8], &[u8])> {
    kept(xattrs).filter(|(key, _)| !key.starts_with(b"user."))
}

/// `trusted.overlay.*` and `user.overlay.*` would steer overlayfs; labels and signatures (`security.selinux`,
/// `security.ima`) belong to the host's own policy.
fn is_kept(key: &[u8]) -> bool {
    let has = |prefix: &[u8]| key.starts_with(prefix) && key.len() > prefix.len();
    match key {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ if has(b"trusted.overlay.") || has(b"user.overlay.") => false,
        _ => has(b"user.") || has(b"trusted."),
    }
}

pub fn problem(path: &[u8], key: &[u8], errno: Errno) -> Problem {
    let (key, path) = (key.escape_ascii(), show(path));
    match errno {
        // ext4 says so too of a value that does not fit into a file's one block of attributes (xattr(7)).
        Errno::NOSPC => Problem::new(format!("the file system has no room for the attribute `{key}` of `{path}`")),
        errno => Problem::new(format!("cannot set the attribute `{key}` of `{path}`: {errno}")),
    }
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
