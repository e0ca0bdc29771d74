//! How long a pull takes: 57,000 entries, 888 MB of layer tar in 5 layers, from Debian's `docker-registry` on loopback,
//! gzip and zstd; beside it the floor, which is the system's `tar` unpacking the same layers at once.
//!
//! ```text
//! cargo bench --bench pull [-- --runs N] [--directory DIR]
//! ```
//!
//! Each run has a fresh ext4 of its own where loop devices work, and a fresh directory elsewhere: ext4 passes over
//! inodes that were freed a moment ago, so a second run on the same file system would look several times slower. On a
//! busy machine compare the CPU times: they are of this process and its children, without the registry.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::engine::image::{self, Options, Silent, Store};
use evenkeel::model::id::Digest;
use evenkeel::model::image::ImageSource;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const LAYERS: u64 = 5;
const ENTRIES: u64 = 57_000;
const BYTES: u64 = 888_000_000;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let value =
        |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let runs: usize = value("--runs").map_or(Ok(3), |runs| runs.parse())?;
    let place = value("--directory").map_or_else(std::env::temp_dir, PathBuf::from);
    let work = tempfile::tempdir_in(place)?;
    let layers = work.path().join("layers");
    fs::create_dir(&layers)?;
    println!("making {} layers", LAYERS);
    for layer in 0..LAYERS {
        write_layer(&layers.join(format!("{layer}.tar")), layer)?;
    }
    println!("{:<18}{:>10}{:>10}{:>16}", "", "median", "CPU", "of runs");
    for form in [Form { name: "gzip", program: "gzip", flag: "-6" }, Form { name: "zstd", program: "zstd", flag: "-3" }]
    {
        let registry = Registry::start(work.path())?;
        let layout = write_layout(work.path(), &layers, &form)?;
        registry.push(&layout)?;
        fs::remove_dir_all(&layout)?;
        let floor = measure(runs, work.path(), |root| unpack_with_tar(&layers, &form, root))?;
        show(&format!("tar, {}", form.name), &floor);
        let source = ImageSource::Reference(format!("{}/bench:latest", registry.address));
        let options = Options::new(PathBuf::from(env!("CARGO_BIN_EXE_evenkeel")));
        let pulled = measure(runs, work.path(), |root| {
            Ok(image::ensure(&Store::new(root), &source, &options, &Silent).map(drop)?)
        })?;
        show(&format!("evenkeel, {}", form.name), &pulled);
    }
    Ok(())
}

struct Form {
    name: &'static str,
    program: &'static str,
    flag: &'static str,
}

/// One run: until everything is on the disk.
struct Taken {
    wall: Duration,
    cpu: Duration,
}

fn show(what: &str, taken: &[Taken]) {
    let all: Vec<String> = taken.iter().map(|taken| format!("{:.1}", taken.wall.as_secs_f64())).collect();
    let Taken { wall, cpu } = &taken[taken.len() / 2];
    println!("{what:<18}{:>8.1} s{:>8.1} s{:>16}", wall.as_secs_f64(), cpu.as_secs_f64(), all.join(" "));
}

/// Several runs, the fastest first.
fn measure(runs: usize, work: &Path, run: impl Fn(&Path) -> Result<(), Error>) -> Result<Vec<Taken>, Error> {
    let mut taken = Vec::new();
    for _ in 0..runs {
        let disk = Disk::new(work)?;
        let (start, before) = (Instant::now(), cpu()?);
        run(&disk.mount)?;
        rustix::fs::syncfs(File::open(&disk.mount)?)?;
        taken.push(Taken { wall: start.elapsed(), cpu: cpu()?.saturating_sub(before) });
    }
    taken.sort_by_key(|taken| taken.wall);
    Ok(taken)
}

/// The CPU time of this process and of the children that have ended.
fn cpu() -> Result<Duration, Error> {
    let mut total = Duration::ZERO;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            total += Duration::from_secs(time.tv_sec().try_into()?) + Duration::from_micros(time.tv_usec().try_into()?);
        }
    }
    Ok(total)
}

/// A fresh file system, or a fresh directory where there can be none.
struct Disk {
    mount: PathBuf,
    image: Option<PathBuf>,
}

impl Disk {
    fn new(work: &Path) -> Result<Disk, Error> {
        let (mount, image) = (work.join("disk"), work.join("disk.img"));
        fs::create_dir(&mount)?;
        File::create(&image)?.set_len(8 << 30)?;
        let done = |command: &mut Command| {
            command.stderr(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
        };
        let mounted = done(Command::new("mkfs.ext4").args(["-q", "-E", "lazy_itable_init=0"]).arg(&image))
            && done(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount));
        if !mounted {
            fs::remove_file(&image)?;
        }
        Ok(Disk { mount, image: mounted.then_some(image) })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(image) = &self.image {
            let _ = Command::new("umount").arg(&self.mount).status();
            let _ = fs::remove_file(image);
        }
        let _ = fs::remove_dir_all(&self.mount);
    }
}

/// Files of many sizes with contents that shrink to about a third, the same every time.
fn write_layer(path: &Path, layer: u64) -> Result<(), Error> {
    let mut random = Random(layer + 1);
    let words: Vec<Vec<u8>> =
        (0..4096).map(|_| (0..3 + random.next() % 9).map(|_| random.next() as u8).collect()).collect();
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, File::create(path)?));
    let (entries, bytes) = (ENTRIES / LAYERS, BYTES / LAYERS);
    let mut left = bytes;
    for entry in 0..entries {
        let directory = format!("layer{layer}/d{}/e{}", entry / 400, entry / 20 % 20);
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_700_000_000 + entry);
        if entry % 20 == 0 {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, &directory, io::empty())?;
            continue;
        }
        // Most files are small and most bytes are in large ones.
        let mean = left.saturating_sub(512 * (entries - entry)) / (entries - entry);
        let size = match entry % 100 {
            1 => (mean * 60).min(left / 2),
            _ => mean * (random.next() % 100) / 120,
        };
        let mut body = Vec::with_capacity(size as usize + 16);
        while (body.len() as u64) < size {
            body.extend_from_slice(&words[(random.next() % 4096) as usize]);
        }
        body.truncate(size as usize);
        left = left.saturating_sub(size + 1024);
        header.set_mode(0o644);
        header.set_size(size);
        tar.append_data(&mut header, format!("{directory}/f{entry}"), body.as_slice())?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}

fn unpack_with_tar(layers: &Path, form: &Form, root: &Path) -> Result<(), Error> {
    let mut children = Vec::new();
    for layer in 0..LAYERS {
        let to = root.join(layer.to_string());
        fs::create_dir(&to)?;
        let from = layers.join(format!("{layer}.tar.{}", form.name));
        children.push(Command::new("tar").arg("-I").arg(form.program).arg("-xf").arg(from).arg("-C").arg(to).spawn()?);
    }
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

/// An OCI layout of the layers; the compressed ones stay beside the others too.
fn write_layout(work: &Path, layers: &Path, form: &Form) -> Result<PathBuf, Error> {
    let layout = work.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for layer in 0..LAYERS {
        let plain = layers.join(format!("{layer}.tar"));
        let packed = layers.join(format!("{layer}.tar.{}", form.name));
        let to = File::create(&packed)?;
        Command::new(form.program).args([form.flag, "-c"]).arg(&plain).stdout(to).status()?;
        let digest = digest_of(&packed)?;
        fs::copy(&packed, blobs.join(digest.hex()))?;
        diff_ids.push(digest_of(&plain)?);
        let kind = format!("application/vnd.oci.image.layer.v1.tar+{}", form.name);
        descriptors.push(json!({ "mediaType": kind, "digest": digest, "size": fs::metadata(&packed)?.len() }));
    }
    let add = |kind: &str, document: serde_json::Value| -> Result<serde_json::Value, Error> {
        let bytes = document.to_string().into_bytes();
        let digest = Digest::from_sha256(&Sha256::digest(&bytes).into());
        fs::write(blobs.join(digest.hex()), &bytes)?;
        Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
    };
    let platform = image::Platform::host();
    let config = json!({
        "architecture": platform.architecture, "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = add("application/vnd.oci.image.config.v1+json", config)?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let mut manifest =
        add(kind, json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors }))?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(layout)
}

fn digest_of(path: &Path) -> Result<Digest, Error> {
    let (mut file, mut hasher, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_sha256(&hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Debian's registry with its data in the work directory.
struct Registry {
    child: Child,
    address: String,
    data: PathBuf,
}

impl Registry {
    fn start(work: &Path) -> Result<Registry, Error> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (data, config) = (work.join("registry"), work.join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{ accesslog: {{ disabled: true }}, level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: {address} }}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let registry = Registry { child, address, data };
        for _ in 0..500 {
            if TcpStream::connect(&registry.address).is_ok() {
                return Ok(registry);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("the registry does not listen".into())
    }

    fn push(&self, layout: &Path) -> Result<(), Error> {
        let status = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker://{}/bench:latest", self.address))
            .status()?;
        if status.success() { Ok(()) } else { Err("skopeo failed".into()) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}
