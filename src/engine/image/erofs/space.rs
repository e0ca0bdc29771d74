//! Where in an image what goes: blocks one after the other, and small records together in windows of some.
//!
//! A record is an inode with what follows it. It may not reach over the end of a block, and records have all sizes up to
//! one: so each goes into the first block of the window that has room, and the window is given up when none has.

use rustix::io::Errno;

use super::{BLOCK, SLOT};

/// Blocks of a window.
const WINDOW: usize = 64;

pub struct Space {
    /// The first block that nothing is in.
    next: u64,
    window: Option<Window>,
}

struct Window {
    first: u64,
    used: [u16; WINDOW],
}

impl Space {
    /// All from this block on is free.
    pub fn from(next: u64) -> Space {
        Space { next, window: None }
    }

    /// Bytes of the image so far.
    pub fn end(&self) -> u64 {
        self.next * BLOCK
    }

    /// The first of so many blocks.
    ///
    /// # Errors
    /// EFBIG: blocks have numbers of 32 bits.
    pub fn blocks(&mut self, count: u64) -> Result<u32, Errno> {
        let first = self.next;
        self.next = first.checked_add(count).filter(|end| *end < u64::from(u32::MAX)).ok_or(Errno::FBIG)?;
        u32::try_from(first).map_err(|_| Errno::FBIG)
    }

    /// Where a record of this many bytes begins: within one block if it fits one.
    pub fn record(&mut self, size: usize) -> Result<u64, Errno> {
        if size as u64 > BLOCK {
            return Ok(u64::from(self.blocks((size as u64).div_ceil(BLOCK))?) * BLOCK);
        }
        // At most a block, which 16 bits hold.
        let size = size.next_multiple_of(SLOT as usize) as u16;
        if let Some(at) = self.window.as_mut().and_then(|window| window.place(size)) {
            return Ok(at);
        }
        let first = self.blocks(WINDOW as u64)?.into();
        let window = self.window.insert(Window { first, used: [0; WINDOW] });
        // An empty block has room for whatever is no larger than one.
        window.place(size).ok_or(Errno::FBIG)
    }
}

impl Window {
    fn place(&mut self, size: u16) -> Option<u64> {
        let at = self.used.iter().position(|used| u64::from(used + size) <= BLOCK)?;
        let offset = self.used[at];
        self.used[at] += size;
        Some((self.first + at as u64) * BLOCK + u64::from(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_lie_apart_and_within_blocks() {
        let mut space = Space::from(2);
        let mut records: Vec<(u64, u64)> = (0..2000)
            .map(|n| {
                let size = 64 + n * 677 % 4033;
                (space.record(size).unwrap(), size as u64)
            })
            .collect();
        records.push((u64::from(space.blocks(3).unwrap()) * BLOCK, 3 * BLOCK));
        records.push((space.record(5000).unwrap(), 5000));
        records.sort();
        for pair in records.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
        }
        for (at, size) in records {
            assert!(at % SLOT == 0 && at >= 2 * BLOCK && at + size <= space.end());
            assert!(size > BLOCK || at / BLOCK == (at + size - 1) / BLOCK, "{at} {size}");
        }
    }

    #[test]
    fn an_image_larger_than_block_numbers_is_refused() {
        let mut space = Space::from(2);
        assert_eq!(space.blocks(1 << 31).unwrap(), 2);
        assert_eq!(space.blocks(1 << 31).unwrap_err(), Errno::FBIG);
        assert_eq!(space.blocks(u64::MAX).unwrap_err(), Errno::FBIG);
    }
}
