//! What becomes of permission bits and access control lists together, as the kernel has it when both are set (acl(5)).
//!
//! In a directory of the file system the kernel sees to it; in an image nobody does but whoever writes it.

use std::borrow::Cow;

use rustix::io::Errno;

use crate::engine::image::erofs::Look;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
/// Of the attribute's value (linux/posix_acl_xattr.h): this number, and then entries of tag, permissions and id.
const VERSION: u32 = 2;
const NOBODY: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wearer {
    Directory,
    Link,
    Other,
}

/// Settles mode and lists. Of a directory the mode is set last, and of everything else the list.
///
/// # Errors
/// The attribute that the kernel would refuse, and as what.
pub fn settle<'a>(look: &mut Look<'a>, wearer: Wearer) -> Result<(), (&'a [u8], Errno)> {
    if !look.attributes.iter().any(|(key, _)| [ACCESS, DEFAULT].contains(key)) {
        return Ok(());
    }
    for (key, value) in std::mem::take(&mut look.attributes) {
        if ![ACCESS, DEFAULT].contains(&key) {
            look.attributes.push((key, value));
            continue;
        }
        if wearer == Wearer::Link {
            return Err((key, Errno::OPNOTSUPP));
        }
        let list = List::read(&value).map_err(|errno| (key, errno))?;
        look.attributes.retain(|(known, _)| *known != key);
        let Some(mut list) = list else { continue };
        if key == DEFAULT && wearer != Wearer::Directory {
            return Err((key, Errno::ACCESS));
        }
        if key == ACCESS {
            match wearer {
                Wearer::Directory => list.set_mode(look.mode),
                _ => look.mode = look.mode & !0o777 | list.mode(),
            }
            if list.is_a_mode() {
                continue;
            }
        }
        look.attributes.push((key, Cow::Owned(list.write())));
    }
    Ok(())
}

struct List(Vec<(u16, u16, u32)>);

impl List {
    /// Nothing where no entry is.
    fn read(value: &[u8]) -> Result<Option<List>, Errno> {
        let (version, entries) = value.split_first_chunk().ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        let (entries, rest) = entries.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        let entry = |bytes: &[u8; 8]| {
            let [a, b, c, d, e, f, g, h] = *bytes;
            let (tag, permissions) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            let id = if tag & (USER | GROUP) != 0 { u32::from_le_bytes([e, f, g, h]) } else { NOBODY };
            (tag, permissions, id)
        };
        let list = List(entries.iter().map(entry).collect());
        match list.0.is_empty() {
            true => Ok(None),
            false if list.is_valid() => Ok(Some(list)),
            false => Err(Errno::INVAL),
        }
    }

    /// The order of entries, and which there must be.
    fn is_valid(&self) -> bool {
        let (mut expected, mut needs_mask) = (USER_OBJ, false);
        for (tag, permissions, id) in &self.0 {
            expected = match (*tag, expected) {
                (USER_OBJ, USER_OBJ) => USER,
                (USER, USER) | (GROUP, GROUP) if *id != NOBODY => {
                    needs_mask = true;
                    expected
                }
                (GROUP_OBJ, USER) => GROUP,
                (MASK, GROUP) => OTHER,
                (OTHER, OTHER) => 0,
                (OTHER, GROUP) if !needs_mask => 0,
                _ => return false,
            };
            if permissions & !7 != 0 {
                return false;
            }
        }
        expected == 0
    }

    fn has(&self, tag: u16) -> bool {
        self.0.iter().any(|(known, ..)| *known == tag)
    }

    /// It says no more than permission bits do.
    fn is_a_mode(&self) -> bool {
        !self.has(USER) && !self.has(GROUP) && !self.has(MASK)
    }

    fn group(&self) -> u16 {
        if self.has(MASK) { MASK } else { GROUP_OBJ }
    }

    fn mode(&self) -> u32 {
        let group = self.group();
        self.0.iter().fold(0, |mode, (tag, permissions, _)| match *tag {
            USER_OBJ => mode | u32::from(*permissions) << 6,
            OTHER => mode | u32::from(*permissions),
            tag if tag == group => mode | u32::from(*permissions) << 3,
            _ => mode,
        })
    }

    fn set_mode(&mut self, mode: u32) {
        let group = self.group();
        for (tag, permissions, _) in &mut self.0 {
            let shift = match *tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            *permissions = (mode >> shift & 7) as u16;
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in &self.0 {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }
}
