//! The image: 57,000 entries and 888 MB of layer tar in 5 layers, in every form in which it can come. It is made once,
//! in a directory that later runs find again, and is the same on every machine.
//!
//! ```text
//! <cache>/N.tar  N.tar.gzip  N.tar.zstd      the layers, as the floor reads them
//! <cache>/gzip.oci.tar                       an OCI archive
//! <cache>/plain.docker.tar                   what `docker save` writes: layers uncompressed
//! <cache>/registry/                          a registry's data, with the tags `gzip` and `zstd`
//! ```
//!
//! Its shape is that of a Debian image with Python in it: sizes from a few bytes to some megabytes, evenly spread by
//! their logarithm, so that most files are small and most bytes are in large ones; text and what looks like programs;
//! some links; twenty files to a directory. It shrinks to about a third.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::engine::image::Platform;
use evenkeel::model::id::Digest;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::registry::Registry;

pub const LAYERS: u64 = 5;
const ENTRIES: u64 = 57_000;
const BYTES: u64 = 888_000_000;
const BLOCK: u64 = 512;

/// How layers are compressed, and with what.
pub const FORMS: [Form; 2] =
    [Form { name: "gzip", arguments: "gzip -6 -c" }, Form { name: "zstd", arguments: "zstd -3 -q -c" }];

/// How those in the OCI archive are.
pub const OCI_FORM: &str = "gzip";

pub struct Form {
    pub name: &'static str,
    arguments: &'static str,
}

pub struct Image {
    pub directory: PathBuf,
}

impl Image {
    /// Makes what is not there yet.
    pub fn ensure(directory: &Path) -> Result<Image> {
        let image = Image { directory: directory.to_owned() };
        let complete = directory.join("complete");
        if complete.exists() {
            return Ok(image);
        }
        eprintln!("making the image in {}", directory.display());
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory)?;
        let mut diff_ids = Vec::new();
        for layer in 0..LAYERS {
            write_layer(&image.layer(layer), layer)?;
            diff_ids.push(digest_of(&image.layer(layer))?);
        }
        let config = configuration(&diff_ids);
        image.write_docker_archive(&config)?;
        let registry = Registry::start(directory)?;
        for form in &FORMS {
            let layout = image.write_layout(form, &config)?;
            registry.push(&layout, form.name)?;
            if form.name == OCI_FORM {
                image.write_oci_archive(&layout)?;
            }
            fs::remove_dir_all(layout)?;
        }
        drop(registry);
        File::open(directory).and_then(|directory| Ok(rustix::fs::syncfs(directory)?))?;
        File::create(complete)?;
        Ok(image)
    }

    pub fn layer(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.tar"))
    }

    pub fn compressed_layer(&self, number: u64, form: &str) -> PathBuf {
        self.directory.join(format!("{number}.tar.{form}"))
    }

    pub fn docker_archive(&self) -> PathBuf {
        self.directory.join("plain.docker.tar")
    }

    pub fn oci_archive(&self) -> PathBuf {
        self.directory.join(format!("{OCI_FORM}.oci.tar"))
    }

    fn write_docker_archive(&self, config: &[u8]) -> Result<()> {
        let mut tar = tar::Builder::new(File::create(self.docker_archive())?);
        let config_name = format!("{}.json", sha256(config).hex());
        let layers: Vec<String> = (0..LAYERS).map(|layer| format!("{layer}/layer.tar")).collect();
        for (layer, name) in (0..LAYERS).zip(&layers) {
            tar.append_file(name, &mut File::open(self.layer(layer))?)?;
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": ["bench:latest"], "Layers": layers }]).to_string();
        for (name, bytes) in [(config_name.as_str(), config), ("manifest.json", manifest.as_bytes())] {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }

    fn write_oci_archive(&self, layout: &Path) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.arg("--create").arg("--file").arg(self.oci_archive());
        let status = tar.arg("--directory").args([layout, Path::new(".")]).status()?;
        if status.success() { Ok(()) } else { Err(format!("tar: {status}").into()) }
    }

    /// Compresses the layers, and makes an OCI layout of them.
    fn write_layout(&self, form: &Form, config: &[u8]) -> Result<PathBuf> {
        let layout = self.directory.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let mut layers = Vec::new();
        for layer in 0..LAYERS {
            let packed = self.compressed_layer(layer, form.name);
            let mut words = form.arguments.split(' ');
            let mut compress = Command::new(words.next().unwrap_or_default());
            let compressed =
                compress.args(words).stdin(File::open(self.layer(layer))?).stdout(File::create(&packed)?).status()?;
            if !compressed.success() {
                return Err(format!("{}: {compressed}", form.name).into());
            }
            let digest = digest_of(&packed)?;
            fs::hard_link(&packed, blobs.join(digest.hex()))?;
            let kind = format!("application/vnd.oci.image.layer.v1.tar+{}", form.name);
            layers.push(json!({ "mediaType": kind, "digest": digest, "size": fs::metadata(&packed)?.len() }));
        }
        let add = |kind: &str, bytes: &[u8]| -> Result<Value> {
            let digest = sha256(bytes);
            fs::write(blobs.join(digest.hex()), bytes)?;
            Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
        };
        let config = add("application/vnd.oci.image.config.v1+json", config)?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        let mut manifest = add(kind, manifest.to_string().as_bytes())?;
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }
}

fn configuration(diff_ids: &[Digest]) -> Vec<u8> {
    let config = json!({
        "architecture": Platform::host().architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_sha256(&Sha256::digest(bytes).into())
}

fn digest_of(path: &Path) -> Result<Digest> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_sha256(&hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// What an entry of a layer is.
enum Entry {
    Directory,
    Link,
    /// As many bytes, before all are made larger or smaller together.
    File(f64),
}

fn write_layer(path: &Path, layer: u64) -> Result<()> {
    let mut random = Random(layer + 1);
    let entries: Vec<Entry> = (0..ENTRIES / LAYERS)
        .map(|entry| match entry % 20 {
            0 => Entry::Directory,
            1 if entry % 40 == 1 => Entry::Link,
            // From 2^5 to 2^21 bytes.
            _ => Entry::File((random.fraction() * 16.0 + 5.0).exp2()),
        })
        .collect();
    let total: f64 = entries.iter().map(|entry| if let Entry::File(size) = entry { *size } else { 0.0 }).sum();
    // Headers, and half a block of padding for each.
    let contents = (BYTES - ENTRIES * (BLOCK + BLOCK / 2)) / LAYERS;
    let scale = contents as f64 / total;
    let writer = Writer::new(&mut random);
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, File::create(path)?));
    for (number, entry) in entries.iter().enumerate() {
        let directory = format!("usr/lib/layer{layer}/d{}/e{}", number / 400, number / 20 % 20);
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000 + number as u64);
        header.set_size(0);
        match entry {
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, &directory, io::empty())?;
            }
            Entry::Link => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, format!("{directory}/f{number}"), format!("f{}", number + 1))?;
            }
            Entry::File(size) => {
                let body = writer.body(&mut random, (size * scale) as usize);
                header.set_mode(0o644);
                header.set_size(body.len() as u64);
                tar.append_data(&mut header, format!("{directory}/f{number}"), body.as_slice())?;
            }
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// Contents: phrases of words, or of what instructions look like.
struct Writer {
    words: Vec<Vec<u8>>,
    phrases: Vec<Vec<u8>>,
}

impl Writer {
    fn new(random: &mut Random) -> Writer {
        let word = |_| -> Vec<u8> {
            let length = 2 + random.below(10);
            (0..length).map(|_| b'a' + (random.below(26) * random.below(26) / 26) as u8).collect()
        };
        let words: Vec<Vec<u8>> = (0..8192).map(word).collect();
        let phrase = |_| {
            let parts: Vec<&[u8]> = (0..3 + random.below(9)).map(|_| words[random.below(8192)].as_slice()).collect();
            parts.join(&b' ')
        };
        let phrases = (0..4096).map(phrase).collect();
        Writer { words, phrases }
    }

    fn body(&self, random: &mut Random, size: usize) -> Vec<u8> {
        let mut body = Vec::with_capacity(size + 128);
        let is_text = random.below(2) == 0;
        while body.len() < size {
            match (is_text, random.below(4)) {
                (true, 0..2) => body.extend_from_slice(&self.phrases[random.below(4096)]),
                (true, _) => {
                    body.extend_from_slice(&self.words[random.below(8192) * random.below(8192) / 8192]);
                    body.push(b' ');
                }
                (false, 0) => body.extend_from_slice(&(random.next() as u32 & 0x00ff_0fff).to_le_bytes()),
                (false, _) => {
                    let word = &self.words[random.below(512)];
                    body.extend_from_slice(word);
                    body.extend_from_slice(&[0x48, 0x8b, random.next() as u8, 0]);
                }
            }
        }
        body.truncate(size);
        body
    }
}

/// Xorshift: the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.next() % (1 << 20)) as f64 / f64::from(1 << 20)
    }
}
