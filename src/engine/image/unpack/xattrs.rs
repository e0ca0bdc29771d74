//! Which extended attributes of a layer are kept.

use rustix::io::Errno;

use super::fields::Pair;
use super::report::{Problem, show};

/// What overlayfs reads on a directory that hides what lower layers have in it.
pub const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");

/// The extended attributes that are part of an image. `trusted.overlay.*` and `user.overlay.*` would steer overlayfs;
/// labels and signatures (`security.selinux`, `security.ima`) belong to the host's own policy.
pub fn kept(xattrs: &[Pair]) -> impl Iterator<Item = (&[u8], &[u8])> {
    xattrs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).filter(|(key, _)| is_kept(key))
}

/// Of those, what something has that is neither a file nor a directory: the kernel gives `user.*` to these alone
/// (xattr(7)), and Docker passes over it as well.
pub fn kept_of_special(xattrs: &[Pair]) -> impl Iterator<Item = (&[u8], &[u8])> {
    kept(xattrs).filter(|(key, _)| !key.starts_with(b"user."))
}

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
