//! Inodes and extended attributes as they are on disk.

use std::borrow::Cow;

use rustix::io::Errno;

/// Of an extended inode.
pub const SIZE: usize = 64;
/// Where in it the number of links is.
pub const LINKS_AT: u64 = 44;
/// Of the header before an inode's attributes.
const ATTRIBUTES_HEADER: usize = 12;
/// Attributes are counted in these units.
const UNIT: usize = 4;

/// Full names and values of extended attributes.
pub type Attributes<'a> = Vec<(&'a [u8], Cow<'a, [u8]>)>;

/// What all kinds of inodes have.
#[derive(Debug, Clone)]
pub struct Look<'a> {
    /// Permission bits with set-ID and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    pub attributes: Attributes<'a>,
}

/// How contents are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One run of blocks.
    Plain {
        first: u32,
    },
    /// A run of whole blocks, and the rest behind the inode.
    Inline {
        first: u32,
    },
    /// A list of chunks behind the inode, each of 2 to this power blocks.
    Chunks {
        exponent: u8,
    },
    Device(u32),
    Nothing,
}

impl Layout {
    fn number(self) -> u16 {
        match self {
            Layout::Plain { .. } | Layout::Device(_) | Layout::Nothing => 0,
            Layout::Inline { .. } => 2,
            Layout::Chunks { .. } => 4,
        }
    }

    fn word(self) -> u32 {
        match self {
            Layout::Plain { first } | Layout::Inline { first } => first,
            Layout::Chunks { exponent } => exponent.into(),
            Layout::Device(device) => device,
            // No block: what the format has for an address that is none.
            Layout::Nothing => u32::MAX,
        }
    }
}

/// An inode but for what [`Look`] says.
#[derive(Debug, Clone, Copy)]
pub struct Inode {
    /// `S_IFMT` bits (inode(7)).
    pub kind: u32,
    pub size: u64,
    pub links: u32,
    pub layout: Layout,
    /// Only 32-bit programs see it; others see where the inode is.
    pub serial: u32,
}

/// The inode and its attributes, which `attributes` made.
pub fn encode(inode: &Inode, look: &Look<'_>, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE + attributes.len());
    let format = 1 | inode.layout.number() << 1;
    let count = match attributes.len() {
        0 => 0,
        length => (length - ATTRIBUTES_HEADER) / UNIT + 1,
    };
    bytes.extend(format.to_le_bytes());
    // `attributes` makes no more than fit.
    bytes.extend((count as u16).to_le_bytes());
    bytes.extend(((inode.kind | look.mode) as u16).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(inode.size.to_le_bytes());
    bytes.extend(inode.layout.word().to_le_bytes());
    bytes.extend(inode.serial.to_le_bytes());
    bytes.extend(look.uid.to_le_bytes());
    bytes.extend(look.gid.to_le_bytes());
    bytes.extend(look.modified.0.to_le_bytes());
    bytes.extend(look.modified.1.to_le_bytes());
    bytes.extend(inode.links.to_le_bytes());
    bytes.resize(SIZE, 0);
    bytes.extend_from_slice(attributes);
    bytes
}

/// What an inode that is on disk says of its contents: kind, size, layout, and how many bytes of attributes follow it.
pub fn decode(bytes: &[u8; SIZE]) -> (u32, u64, Layout, u64) {
    let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]);
    let mut size = [0; 8];
    size.copy_from_slice(&bytes[8..16]);
    let layout = match short(0) >> 1 {
        2 => Layout::Inline { first: word },
        4 => Layout::Chunks { exponent: word as u8 },
        _ => Layout::Plain { first: word },
    };
    let attributes = match short(2) {
        0 => 0,
        count => ATTRIBUTES_HEADER as u64 + (u64::from(count) - 1) * UNIT as u64,
    };
    (u32::from(short(4)) & 0o170_000, u64::from_le_bytes(size), layout, attributes)
}

/// Names are stored without these, and the number instead.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The attributes as they follow an inode; nothing for none. No two have one name.
///
/// # Errors
/// The attribute that has no room, or that the format has no word for.
pub fn attributes<'a>(all: &[(&'a [u8], Cow<'_, [u8]>)]) -> Result<Vec<u8>, (&'a [u8], Errno)> {
    let mut bytes = Vec::new();
    for (key, value) in all {
        let found = PREFIXES.iter().find_map(|(prefix, number)| Some((key.strip_prefix(*prefix)?, *number)));
        let (name, number) = found.ok_or((*key, Errno::OPNOTSUPP))?;
        let (Ok(name_size), Ok(value_size)) = (u8::try_from(name.len()), u16::try_from(value.len())) else {
            return Err((key, Errno::NOSPC));
        };
        if bytes.is_empty() {
            bytes.resize(ATTRIBUTES_HEADER, 0);
        }
        bytes.extend([name_size, number]);
        bytes.extend(value_size.to_le_bytes());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(UNIT), 0);
        if (bytes.len() - ATTRIBUTES_HEADER) / UNIT >= usize::from(u16::MAX) {
            return Err((key, Errno::NOSPC));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(all: &[(&'a [u8], &'a [u8])]) -> Result<Vec<u8>, (&'a [u8], Errno)> {
        attributes(&all.iter().map(|(key, value)| (*key, Cow::Borrowed(*value))).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_of_contents_is_read_again() {
        let look = Look { mode: 0o4755, uid: 1, gid: 2, modified: (-5, 6), attributes: Vec::new() };
        let attributes = of(&[(b"user.a", b"one"), (b"trusted.b", b"")]).unwrap();
        for layout in [Layout::Plain { first: 7 }, Layout::Inline { first: 9 }, Layout::Chunks { exponent: 3 }] {
            let inode = Inode { kind: 0o100_000, size: 1 << 40, links: 2, layout, serial: 1 };
            let bytes = encode(&inode, &look, &attributes);
            let (kind, size, read, follows) = decode(bytes[..SIZE].try_into().unwrap());
            assert_eq!((kind, size, read, follows), (0o100_000, 1 << 40, layout, attributes.len() as u64));
            assert_eq!(bytes[LINKS_AT as usize..][..4], 2_u32.to_le_bytes());
        }
    }

    #[test]
    fn attributes_follow_a_header_and_what_has_no_room_is_named() {
        let long = vec![0; 70_000];
        let encoded = of(&[(b"user.a", b"2")]).unwrap();
        assert_eq!(encoded, [&[0; 12][..], &[1, 1, 1, 0, b'a', b'2', 0, 0]].concat());
        assert_eq!(of(&[(b"user.a", &long)]).unwrap_err(), (&b"user.a"[..], Errno::NOSPC));
        assert_eq!(of(&[(b"other.a", b"")]).unwrap_err(), (&b"other.a"[..], Errno::OPNOTSUPP));
        assert_eq!(of(&[]).unwrap(), b"");
    }
}
