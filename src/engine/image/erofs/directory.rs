//! The contents of a directory: blocks, each with a table of entries and the names behind it.
//!
//! Names ascend by their bytes through all blocks, `.` and `..` among them, so that the kernel finds one by halving.

use rustix::io::Errno;

use super::BLOCK;

/// Of an entry in a table.
const ENTRY: usize = 12;

/// A name in a directory, the number of its inode, and its kind as directories write it.
pub struct Named<'a> {
    pub name: &'a [u8],
    pub number: u64,
    pub kind: u8,
}

/// Bytes of a directory with these names, in order.
pub fn size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut whole, mut used) = (0, 0);
    for name in names {
        let more = (ENTRY + name.len()) as u64;
        if used + more > BLOCK {
            whole += BLOCK;
            used = 0;
        }
        used += more;
    }
    whole + used
}

/// Gives the contents of a directory with these names, in order, block by block: a directory may have millions. All but
/// the last are whole.
pub fn encode<'a>(
    names: impl Iterator<Item = Result<Named<'a>, Errno>>,
    mut put: impl FnMut(&[u8]) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let (mut bytes, mut block) = (Vec::with_capacity(BLOCK as usize), Vec::new());
    let mut used = 0;
    for named in names {
        let named = named?;
        let more = (ENTRY + named.name.len()) as u64;
        if used + more > BLOCK {
            fill(&mut bytes, &block);
            bytes.resize(BLOCK as usize, 0);
            put(&bytes)?;
            block.clear();
            used = 0;
        }
        used += more;
        block.push(named);
    }
    fill(&mut bytes, &block);
    put(&bytes)
}

/// The bytes of one block.
fn fill(bytes: &mut Vec<u8>, block: &[Named<'_>]) {
    bytes.clear();
    let mut at = block.len() * ENTRY;
    for Named { name, number, kind } in block {
        bytes.extend(number.to_le_bytes());
        // A block has 4096 bytes.
        bytes.extend((at as u16).to_le_bytes());
        bytes.extend([*kind, 0]);
        at += name.len();
    }
    block.iter().for_each(|named| bytes.extend_from_slice(named.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<'a>(names: impl Iterator<Item = Named<'a>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let put = |block: &[u8]| {
            assert!(bytes.len().is_multiple_of(BLOCK as usize) && block.len() <= BLOCK as usize);
            bytes.extend_from_slice(block);
            Ok(())
        };
        encode(names.map(Ok), put).unwrap();
        bytes
    }

    #[test]
    fn a_directory_has_the_size_that_was_said_before() {
        for count in [0, 1, 2, 16, 17, 1000] {
            let names: Vec<Vec<u8>> = (0..count).map(|n| format!("{n:0>0$}", 4 + n % 250).into_bytes()).collect();
            let named = names.iter().map(|name| Named { name, number: 1, kind: 1 });
            assert_eq!(encoded(named).len() as u64, size(names.iter().map(Vec::as_slice)), "{count}");
        }
    }

    #[test]
    fn names_lie_behind_the_table_that_points_at_them() {
        let named = [(&b"."[..], 1), (b"..", 2), (b"a", 3)];
        let bytes = encoded(named.iter().map(|(name, number)| Named { name, number: *number, kind: 2 }));
        assert_eq!(bytes[36..], *b"...a");
        assert_eq!(bytes[24..36], [3, 0, 0, 0, 0, 0, 0, 0, 39, 0, 2, 0]);
    }
}
