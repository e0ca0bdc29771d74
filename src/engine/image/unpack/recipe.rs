//! What a layer's tar stream is besides the contents of its files, so that it can be made again byte by byte.
//!
//! A tree says nothing of the order of members, of how headers were written, of padding. To push or save a layer whose
//! diff id must stay what it is, all of that is kept beside the tree while it is unpacked: a hundredth of the stream.
//!
//! ```text
//! recipe.zst = zstd(step*)
//! step       = 0, length: u32, bytes                        these bytes
//!            | 1, size: u64, length: u32, path              the contents of a file of the tree
//! ```
//! Numbers are little-endian.
//!
//! Whoever makes a stream by it compares its digest: a member that a later one of the same layer replaces has left
//! nothing to copy from, and the stream comes out as another.

use std::fs::File;
use std::io::{self, Read, Write};

/// The name of the file, beside the tree.
pub const RECIPE: &str = "recipe.zst";

/// Bytes are gathered to steps of about this length.
const RUN: usize = 64 << 10;
/// A stream with more than this beside its files is no layer of files; it gets no recipe.
const MOST: u64 = 1 << 30;
const LONGEST: usize = 1 << 20;
/// Its reader need not hold more than this (zstd's window, as a power of two).
const WINDOW: u32 = 23;

const BYTES: u8 = 0;
const CONTENTS: u8 = 1;

/// Writes a recipe, step by step.
pub struct Recipe {
    /// None when it was given up.
    out: Option<zstd::Encoder<'static, File>>,
    bytes: Vec<u8>,
    written: u64,
}

impl Recipe {
    /// Into this file, which is empty.
    pub fn new(file: File) -> io::Result<Recipe> {
        Ok(Recipe { out: Some(zstd::Encoder::new(file, 1)?), bytes: Vec::new(), written: 0 })
    }

    /// These bytes of the stream.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= RUN {
            self.flush();
        }
    }

    /// The contents of the file at `path`, which are not needed twice.
    pub fn contents(&mut self, size: u64, path: &[u8]) {
        self.flush();
        let step = [&[CONTENTS], &size.to_le_bytes()[..], &(path.len() as u32).to_le_bytes(), path].concat();
        self.put(&step);
    }

    /// Writes what is left.
    pub fn finish(mut self) {
        self.flush();
        if let Some(out) = self.out {
            // As with all of it: whoever follows the recipe sees by the digest that it is not whole.
            let _ = out.finish();
        }
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        for run in bytes.chunks(LONGEST) {
            self.put(&[&[BYTES], &(run.len() as u32).to_le_bytes()[..]].concat());
            self.put(run);
        }
    }

    /// A recipe that cannot be written is one that is not there: the layer itself is as good without.
    fn put(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        let failed = self.out.as_mut().is_some_and(|out| out.write_all(bytes).is_err());
        if failed || self.written > MOST {
            self.out = None;
        }
    }
}

/// A step, read.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Bytes(Vec<u8>),
    Contents { size: u64, path: Vec<u8> },
}

/// Reads the steps of a recipe, which is no more to be trusted than the layer that it is of.
pub struct Steps {
    input: zstd::Decoder<'static, io::BufReader<File>>,
}

impl Steps {
    pub fn new(file: File) -> io::Result<Steps> {
        let mut input = zstd::Decoder::new(file)?;
        input.window_log_max(WINDOW)?;
        Ok(Steps { input })
    }

    /// The next step, or nothing at the end.
    pub fn step(&mut self) -> io::Result<Option<Step>> {
        let mut kind = [0; 1];
        if self.input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        match kind[0] {
            BYTES => Ok(Some(Step::Bytes(self.sized()?))),
            CONTENTS => {
                let mut size = [0; 8];
                self.input.read_exact(&mut size)?;
                Ok(Some(Step::Contents { size: u64::from_le_bytes(size), path: self.sized()? }))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn sized(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    #[test]
    fn steps_come_back_as_they_were_written() {
        let mut file = tempfile::tempfile().unwrap();
        let mut recipe = Recipe::new(file.try_clone().unwrap()).unwrap();
        recipe.bytes(b"head");
        recipe.bytes(b"er");
        recipe.contents(7, b"usr/lib/x");
        recipe.bytes(&vec![0; 3 * LONGEST]);
        recipe.finish();
        file.rewind().unwrap();
        let mut steps = Steps::new(file).unwrap();
        assert_eq!(steps.step().unwrap(), Some(Step::Bytes(b"header".to_vec())));
        assert_eq!(steps.step().unwrap(), Some(Step::Contents { size: 7, path: b"usr/lib/x".to_vec() }));
        let mut zeros = 0;
        while let Some(Step::Bytes(bytes)) = steps.step().unwrap() {
            zeros += bytes.len();
        }
        assert_eq!(zeros, 3 * LONGEST);
    }

    #[test]
    fn nonsense_is_no_recipe() {
        for bytes in [&[BYTES, 255, 255, 255, 255][..], &[7], &[CONTENTS, 1]] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&zstd::encode_all(bytes, 1).unwrap()).unwrap();
            file.rewind().unwrap();
            assert!(Steps::new(file).unwrap().step().is_err(), "{bytes:?}");
        }
    }
}
