//! Who is measured, and how each is asked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::image::{Image, LAYERS};
use crate::registry::Registry;

pub const NAMES: [&str; 5] = ["floor", "file", "evenkeel", "docker", "podman"];

/// Where the image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The registry, by this tag.
    Pull(&'static str),
    DockerArchive,
    /// Layers as the registry has them with the tag `gzip`.
    OciArchive,
}

pub const SOURCES: [Source; 4] =
    [Source::Pull("gzip"), Source::Pull("zstd"), Source::DockerArchive, Source::OciArchive];

impl Source {
    pub fn name(self) -> String {
        match self {
            Source::Pull(form) => format!("pull-{form}"),
            Source::DockerArchive => "load-docker".to_owned(),
            Source::OciArchive => "load-oci".to_owned(),
        }
    }
}

/// One that is measured, with all its data below a directory of its own.
pub enum Engine {
    /// `tar`, all layers at once, each into a directory.
    Floor {
        data: PathBuf,
    },
    /// The same without `tar`: each layer as the one file that comes out of it.
    File {
        data: PathBuf,
    },
    Evenkeel {
        data: PathBuf,
    },
    Docker {
        data: PathBuf,
        daemon: Child,
    },
    Podman {
        data: PathBuf,
    },
}

impl Engine {
    /// Whether it reads such a source.
    pub fn takes(name: &str, source: Source) -> bool {
        // Docker's archives are the only ones that Debian's Docker knows; for the floor a layer is a layer.
        !matches!((name, source), ("docker" | "floor" | "file", Source::OciArchive))
    }

    pub fn start(name: &str, data: &Path) -> Result<Engine> {
        let data = data.to_owned();
        Ok(match name {
            "floor" => Engine::Floor { data },
            "file" => Engine::File { data },
            "evenkeel" => Engine::Evenkeel { data },
            "podman" => Engine::Podman { data },
            "docker" => start_docker(data)?,
            other => return Err(format!("{other}: no such engine, only {NAMES:?}").into()),
        })
    }

    pub fn daemon(&self) -> Option<u32> {
        match self {
            Engine::Docker { daemon, .. } => Some(daemon.id()),
            _ => None,
        }
    }

    pub fn take(&self, source: Source, image: &Image, registry: &Registry) -> Result<()> {
        let archive = match source {
            Source::Pull(_) => PathBuf::new(),
            Source::DockerArchive => image.docker_archive(),
            Source::OciArchive => image.oci_archive(),
        };
        match (self, source) {
            (Engine::Floor { data }, _) => all_layers(data, |layer, to| untar(layer, to, source, image)),
            (Engine::File { data }, _) => all_layers(data, |layer, to| inflate(layer, to, source, image)),
            (Engine::Evenkeel { .. } | Engine::Docker { .. }, Source::Pull(tag)) => {
                run(self.command().args(["image", "pull"]).arg(registry.reference(tag)))
            }
            (Engine::Podman { .. }, Source::Pull(tag)) => {
                run(self.command().args(["pull", "--quiet", "--tls-verify=false"]).arg(registry.reference(tag)))
            }
            (_, _) => run(self.command().args(["image", "load", "--quiet", "--input"]).arg(archive)),
        }
    }

    /// Removes every image.
    pub fn remove(&self) -> Result<()> {
        match self {
            Engine::Floor { data } | Engine::File { data } => run(Command::new("rm").arg("-r").arg(data)),
            Engine::Evenkeel { .. } => run(self.command().args(["image", "rm"]).args(self.images()?)),
            Engine::Docker { .. } | Engine::Podman { .. } => {
                run(self.command().args(["image", "rm", "--force"]).args(self.images()?))
            }
        }
    }

    fn images(&self) -> Result<Vec<String>> {
        let output = self.command().args(["image", "ls", "--quiet"]).output()?;
        let images: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
        if images.is_empty() { Err("there is no image".into()) } else { Ok(images) }
    }

    fn command(&self) -> Command {
        match self {
            Engine::Floor { .. } | Engine::File { .. } => Command::new("false"),
            Engine::Evenkeel { data } => {
                let mut evenkeel = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
                evenkeel.arg("--root").arg(data).arg("--run").arg(data.join("run"));
                evenkeel
            }
            Engine::Docker { data, .. } => {
                let mut docker = Command::new("docker");
                docker.arg("--host").arg(socket(data));
                docker
            }
            Engine::Podman { data } => {
                let mut podman = Command::new("podman");
                podman.arg("--root").arg(data.join("root")).arg("--runroot").arg(data.join("run"));
                podman.arg("--tmpdir").arg(data.join("tmp")).args(["--storage-driver", "overlay"]);
                podman.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
                // Blobs are kept there until they are unpacked.
                podman.env("TMPDIR", data.join("tmp"));
                podman
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Engine::Docker { daemon, .. } = self {
            // It ends its containerd only when it is asked to end.
            let _ = Command::new("kill").arg(daemon.id().to_string()).status();
            let _ = daemon.wait();
        }
    }
}

fn socket(data: &Path) -> String {
    format!("unix://{}/socket", data.display())
}

/// A daemon without a network of its own: images need none but the host's.
fn start_docker(data: PathBuf) -> Result<Engine> {
    std::fs::create_dir_all(&data)?;
    let mut daemon = Command::new("dockerd");
    daemon.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--host"]).arg(socket(&data));
    for (option, file) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
        daemon.arg(option).arg(data.join(file));
    }
    let log = File::create(data.join("log"))?;
    let daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    let engine = Engine::Docker { data, daemon };
    for _ in 0..600 {
        if run(engine.command().arg("version")).is_ok() {
            return Ok(engine);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("the Docker daemon does not answer".into())
}

/// All layers at once, each into a directory of its own.
fn all_layers(data: &Path, start: impl Fn(u64, &Path) -> Result<Child>) -> Result<()> {
    let mut children = Vec::new();
    for layer in 0..LAYERS {
        let to = data.join(layer.to_string());
        std::fs::create_dir_all(&to)?;
        children.push(start(layer, &to)?);
    }
    let ended: Vec<_> = children.into_iter().map(|mut child| child.wait()).collect();
    for status in ended {
        let status = status?;
        if !status.success() {
            return Err(format!("a layer: {status}").into());
        }
    }
    Ok(())
}

fn untar(layer: u64, to: &Path, source: Source, image: &Image) -> Result<Child> {
    let mut tar = Command::new("tar");
    match source {
        Source::Pull(form) => tar.args(["-I", form, "-xf"]).arg(image.compressed_layer(layer, form)),
        _ => tar.arg("-xf").arg(image.layer(layer)),
    };
    Ok(tar.arg("-C").arg(to).spawn()?)
}

fn inflate(layer: u64, to: &Path, source: Source, image: &Image) -> Result<Child> {
    let (mut inflate, from) = match source {
        Source::Pull(form) => (Command::new(form), image.compressed_layer(layer, form)),
        _ => (Command::new("cat"), image.layer(layer)),
    };
    if let Source::Pull(_) = source {
        inflate.args(["-d", "-c"]);
    }
    Ok(inflate.stdin(File::open(from)?).stdout(File::create(to.join("layer"))?).spawn()?)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}: {}", output.status, said.trim()).into())
        }
    }
}
