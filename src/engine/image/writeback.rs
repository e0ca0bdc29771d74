//! Bringing layers to the disk while the rest of them is unpacked.
//!
//! An image is not there before all of it is on the disk. Left to the end, that is a time in which nothing else is done:
//! the kernel begins by itself only when a tenth of the memory is to be written, and then has one inode after another
//! to find a place for.
//!
//! # Decisions
//! * By bytes and not by time: syncfs(2) is for everything on the file system, and a slow line would call it for hours.
//! * Not file by file (sync_file_range(2)): for each of tens of thousands of small files it is a call that waits for the
//!   disk, and unpacking took half as long again; for the large ones alone it left the time at the end as it was.
//!   With syncfs(2) that time went from 2.7 s to 0.5 s, for 57,000 entries and 888 MB on a busy machine of two cores.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::error::ImageError;

/// Bytes of layers, as they come, between one time and the next.
const EVERY: u64 = 64 << 20;

/// Counts what is unpacked, and has it brought to the disk every now and then.
pub struct Meter {
    bytes: AtomicU64,
    due: SyncSender<()>,
}

impl Meter {
    pub fn passed(&self, count: u64) {
        let before = self.bytes.fetch_add(count, Ordering::Relaxed);
        if before / EVERY != (before + count) / EVERY {
            // It is still busy with the last time, or has failed and says so at the end.
            let _ = self.due.try_send(());
        }
    }
}

/// Does `work`, and meanwhile brings to the disk what it has written on the file system of `place`.
///
/// # Errors
/// Also when something could not be written. The kernel tells that to one who asks: whoever asks later, before the image
/// is put in place, would hear nothing of it (fsync(2), "ERRORS", EIO).
pub fn meanwhile<T>(place: &Path, work: impl FnOnce(&Meter) -> Result<T, ImageError>) -> Result<T, ImageError> {
    let file = File::open(place).map_err(ImageError::file("open", place))?;
    let (due, is_due) = sync_channel(1);
    std::thread::scope(|scope| {
        let bringing = scope.spawn(|| is_due.into_iter().try_for_each(|()| rustix::fs::syncfs(&file)));
        let done = work(&Meter { bytes: AtomicU64::new(0), due });
        // The meter is gone, so it ends. A panic there is one here.
        let brought = bringing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let done = done?;
        // By the descriptor that was open all the time: another's look may have taken the word from those that come later.
        let brought = brought.and_then(|()| rustix::fs::syncfs(&file));
        brought.map_err(|errno| ImageError::file("sync", place)(errno.into()))?;
        Ok(done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unpacked_is_synced_by_bytes_and_no_oftener() {
        let (due, is_due) = sync_channel(1);
        let meter = Meter { bytes: AtomicU64::new(0), due };
        let mut times = Vec::new();
        for part in 0..8 {
            meter.passed(EVERY / 4);
            times.extend(is_due.try_recv().map(|()| part));
        }
        assert_eq!(times, [3, 7]);
        // Nobody waits for one that is not done yet.
        for _ in 0..8 {
            meter.passed(EVERY);
        }
        assert_eq!(is_due.try_iter().count(), 1);
    }

    #[test]
    fn the_work_is_waited_for_and_its_result_returned() {
        let root = tempfile::tempdir().unwrap();
        let result = meanwhile(root.path(), |meter| {
            meter.passed(EVERY);
            Ok(7)
        });
        assert_eq!(result.unwrap(), 7);
        let error = ImageError::NoImage { word: "x".to_owned() };
        assert!(meanwhile(root.path(), |_| Err::<(), _>(error)).is_err());
    }
}
