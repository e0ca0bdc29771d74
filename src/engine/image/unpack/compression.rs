//! Compressed streams, told apart by their first bytes.
//!
//! Media types lie and archives have none, so nobody is asked what a stream is.

use std::io::{self, BufRead, BufReader, Read};

use lzma_rust2::XzReader;

/// Large reads keep the number of switches between the two ends of a pipe small.
const BUFFER: usize = 256 << 10;

/// How a stream is compressed, by the magic number at its start (RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2;
/// The .xz File Format 1.2.1, 2.1.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    /// One that is known and not read.
    Other(&'static str),
}

/// What a dictionary may take, in KiB: as much as a window of zstd, and twice what `xz -9` takes. A block that wants more
/// is refused before anything is allocated.
const XZ_MEMORY: u32 = 129 << 10;

/// This much of a stream tells how it is compressed.
pub const MAGIC: usize = 6;

impl Compression {
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame: seekable zstd begins with one or another of them.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Other("bzip2"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Compression::Other("lz4"),
            _ => Compression::None,
        }
    }
}

/// The uncompressed bytes of `input`. An empty stream stays empty.
pub fn decoder<'a>(input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    // A pipe may give its first bytes one by one, but a writer here always sends more than these at once.
    Ok(match Compression::of(input.fill_buf()?) {
        Compression::None => Box::new(input),
        // Several members in a row are one stream: pigz and estargz write them.
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        Compression::Xz => Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY)),
        Compression::Other(name) => {
            let problem = format!(
                "it is compressed with {name}; only gzip, xz, zstd and no compression are read: `{name} -dc` makes it plain"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Of `hello`, by xz(1).
    const XZ: &[u8] = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\x04hello\0\0\0\0\
                        \xb17\xb9\xdb\xe5\xda\x1e\x9b\0\x01\x1d\x05\xb8-\x80\xaf\x1f\xb6\xf3}\x01\0\0\0\0\x04YZ";

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(bytes)?.read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn every_form_gives_the_same_bytes() {
        let zstd = zstd::encode_all(&b"hello"[..], 1).unwrap();
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &zstd].concat();
        let members = [gzip(b"hel"), gzip(b"lo")].concat();
        for stream in [b"hello".to_vec(), gzip(b"hello"), members, zstd, skippable, XZ.to_vec()] {
            assert_eq!(decoded(&stream).unwrap(), b"hello");
        }
        assert_eq!(decoded(b"").unwrap(), b"");
        assert_eq!(decoded(&[XZ, XZ].concat()).unwrap(), b"hellohello", "several streams in a row are one");
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        let long: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for stream in [gzip(&long), zstd::encode_all(&long[..], 1).unwrap()] {
            assert!(decoded(&stream[..stream.len() - 9]).is_err());
        }
        for end in 6..XZ.len() {
            assert!(decoded(&XZ[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn one_bit_is_damage_enough() {
        for bit in 6 * 8..XZ.len() * 8 {
            let mut damaged = XZ.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decoded(&damaged).is_err(), "bit {bit}");
        }
    }
}
