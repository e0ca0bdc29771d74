//! The superblock: where everything else is found from, with a checksum of its own.
//!
//! Fields are at their places as erofs_fs.h has them, `struct erofs_super_block`; all others are zero.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::writer::Kind;
use super::{BLOCK, SLOT, inode};

/// Where the inode of `/` is: the superblock has but 16 bits for its number.
pub const ROOT_AT: u64 = BLOCK;
/// Where in the image it is.
pub const SUPERBLOCK_AT: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// What the checksum is of: all of the first block that is behind what the format leaves to boot loaders.
pub const SIZE: usize = (BLOCK - SUPERBLOCK_AT) as usize;
/// Where in the superblock what is: the checksum, which is of a superblock that has none; features that a reader may pass
/// over; the number of blocks; the name.
const CHECKSUM_AT: usize = 4;
const COMPATIBLE_AT: usize = 8;
const BLOCKS_AT: usize = 36;
const NAME_AT: usize = 48;
/// One of those features.
const HAS_CHECKSUM: u32 = 1;
/// CRC-32C, bits reflected (RFC 3720, appendix B.4).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The superblock of an image of so many inodes and blocks. `name` tells it from others.
pub fn encode(inodes: u64, blocks: u32, name: [u8; 16]) -> [u8; SIZE] {
    let mut superblock = [0; SIZE];
    let mut field = |at: usize, bytes: &[u8]| superblock[at..at + bytes.len()].copy_from_slice(bytes);
    field(0, &MAGIC.to_le_bytes());
    // Times are those of the contents' last change.
    field(COMPATIBLE_AT, &(HAS_CHECKSUM | 2).to_le_bytes());
    field(12, &[BLOCK.trailing_zeros() as u8]);
    field(14, &((ROOT_AT / SLOT) as u16).to_le_bytes());
    field(16, &inodes.to_le_bytes());
    field(BLOCKS_AT, &blocks.to_le_bytes());
    field(NAME_AT, &name);
    // Files in chunks.
    field(80, &4_u32.to_le_bytes());
    let sum = crc32c(&superblock);
    superblock[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
    superblock
}

/// Whether this file begins like an image that was finished, and is as long. What its other blocks hold is not looked at,
/// but for the root's kind.
pub fn is_whole(file: &File) -> io::Result<bool> {
    let (Some(mut superblock), Some(root)) =
        (read::<SIZE>(file, SUPERBLOCK_AT)?, read::<{ inode::SIZE }>(file, ROOT_AT)?)
    else {
        return Ok(false);
    };
    let word = |at: usize| -> u32 {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| superblock[at + byte]);
        u32::from_le_bytes([a, b, c, d])
    };
    let (magic, blocks, sum) = (word(0), word(BLOCKS_AT), word(CHECKSUM_AT));
    // Those that earlier versions wrote have none.
    let has_checksum = word(COMPATIBLE_AT) & HAS_CHECKSUM != 0;
    superblock[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
    let is_right = !has_checksum || sum == crc32c(&superblock);
    let (kind, ..) = inode::decode(&root);
    let is_long_enough = file.metadata()?.len() >= u64::from(blocks) * BLOCK;
    Ok(magic == MAGIC && is_right && is_long_enough && kind == Kind::Directory.bits())
}

/// What tells an image from others: see [`super::Writer::seal`].
pub fn name(file: &File) -> io::Result<Option<[u8; 16]>> {
    read(file, SUPERBLOCK_AT + NAME_AT as u64)
}

/// `None` where the file ends before.
fn read<const LENGTH: usize>(file: &File, at: u64) -> io::Result<Option<[u8; LENGTH]>> {
    let mut bytes = [0; LENGTH];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Some(bytes)),
    }
}

/// As Linux has it: begun with all ones, and not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |sum, byte| REMAINDERS[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ sum >> 8)
}

/// Of each byte, since every look at the host asks whether its layers are whole.
const REMAINDERS: [u32; 256] = {
    let mut all = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        all[byte] = sum;
        byte += 1;
    }
    all
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_rfc() {
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }
}
