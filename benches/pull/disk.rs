//! A fresh ext4 for each run: ext4 passes over inodes that were freed a moment ago, so a second run on the same file
//! system would look several times slower.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// Image, engine's data and a temporary copy of it.
const SIZE: u64 = 4 << 30;

/// A mounted file system, gone with this.
pub struct Disk {
    pub mount: PathBuf,
}

impl Disk {
    pub fn new(work: &Path) -> Result<Disk> {
        let (mount, image) = (work.join("disk"), work.join("disk.ext4"));
        fs::create_dir_all(&mount)?;
        File::create(&image)?.set_len(SIZE)?;
        let run = |command: &mut Command| -> Result<()> {
            let output = command.stdin(Stdio::null()).output()?;
            match output.status.success() {
                true => Ok(()),
                false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
            }
        };
        let made = run(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0"]).arg(&image))
            .and_then(|()| run(Command::new("mount").args(["-o", "loop"]).args([&image, &mount])));
        // The loop device keeps the file as long as it is mounted.
        fs::remove_file(&image)?;
        made.map(|()| Disk { mount })
    }

    /// Everything on it has reached the image.
    pub fn sync(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.mount)?)?)
    }

    pub fn used(&self) -> Result<u64> {
        let statistics = rustix::fs::statvfs(&self.mount)?;
        Ok((statistics.f_blocks - statistics.f_bfree) * statistics.f_frsize)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", "--quiet"]).arg(&self.mount).status();
        let _ = fs::remove_dir(&self.mount);
    }
}
