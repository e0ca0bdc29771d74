//! An image of 57,000 entries and 888 MB of layer tar in 5 layers, taken from a registry on loopback and from archives:
//! Evenkeel beside Docker, Podman, and the floor, which is the system's `tar` unpacking all layers at once. `file` is
//! that floor without `tar`, each layer inflated into one file: what a store of one file per layer could win at most.
//!
//! ```text
//! cargo bench --bench pull [-- --runs N] [--engine NAME].. [--source NAME].. [--directory DIR] [--cache DIR]
//! ```
//!
//! Each run has a fresh ext4 of its own, in a file in `--directory` (by default the directory for temporary files; one
//! on a tmpfs shows what remains when the disk costs nothing). It ends when everything is on that disk, for all alike.
//! Runs of different engines take turns, so that a machine that grows busy or quiet does so for all. For each engine:
//!
//! ```text
//! seconds    median of all runs, and each        memory   resident, all processes together, at the highest
//! CPU        of its processes                    remove   until the command that removes the image has ended
//! to floor   how many times the floor's seconds  freed    until the disk has its space back
//! ```
//!
//! The image is made once and kept in `--cache`. An engine that is not installed is passed over with a word;
//! `benches/setup.sh` installs them on Debian. Three runs of everything take about ten minutes on two quiet
//! cores; `--source pull-zstd`, for instance, leaves out the others.

mod disk;
mod engine;
mod image;
mod measure;
mod registry;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disk::Disk;
use engine::{Engine, NAMES, SOURCES, Source};
use image::{Image, OCI_FORM};
use measure::{Taken, measure, median};
use registry::Registry;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Arguments {
    runs: usize,
    engines: Vec<String>,
    sources: Vec<String>,
    directory: PathBuf,
    cache: PathBuf,
}

impl Arguments {
    fn parse(mut left: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut arguments = Arguments {
            runs: 3,
            engines: Vec::new(),
            sources: Vec::new(),
            directory: std::env::temp_dir(),
            cache: PathBuf::from("/var/tmp/evenkeel-bench-image"),
        };
        while let Some(argument) = left.next() {
            let mut value = || left.next().ok_or_else(|| format!("{argument}: a value is missing"));
            match argument.as_str() {
                "--runs" => arguments.runs = value()?.parse()?,
                "--engine" => arguments.engines.push(value()?),
                "--source" => arguments.sources.push(value()?),
                "--directory" => arguments.directory = value()?.into(),
                "--cache" => arguments.cache = value()?.into(),
                // Cargo's own.
                "--bench" => {}
                other => return Err(format!("{other}: not understood; see benches/pull/main.rs").into()),
            }
        }
        Ok(arguments)
    }

    fn wants(&self, engine: &str, source: Source) -> bool {
        let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
        wanted(&self.engines, engine) && wanted(&self.sources, &source.name()) && Engine::takes(engine, source)
    }
}

/// All runs of one engine with one source.
struct Case {
    engine: &'static str,
    source: Source,
    taken: Vec<Taken>,
    /// Seconds until the command had ended, and until the space was free.
    removed: Vec<(f64, f64)>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    let image = Image::ensure(&arguments.cache)?;
    let registry = Registry::start(&image.directory)?;
    let work = tempfile::tempdir_in(&arguments.directory)?;
    let mut cases = Vec::new();
    for source in SOURCES {
        for engine in NAMES.into_iter().filter(|engine| arguments.wants(engine, source)) {
            cases.push(Case { engine, source, taken: Vec::new(), removed: Vec::new() });
        }
    }
    cases.retain(|case| is_installed(case.engine));
    for run in 1..=arguments.runs {
        for case in &mut cases {
            eprint!("\r\x1b[Krun {run} of {}: {}, {}", arguments.runs, case.source.name(), case.engine);
            if let Err(error) = case.run(&image, &registry, work.path()) {
                eprintln!(": {error}");
            }
        }
    }
    eprint!("\r\x1b[K");
    print(&cases);
    Ok(())
}

impl Case {
    fn run(&mut self, image: &Image, registry: &Registry, work: &Path) -> Result<()> {
        let disk = Disk::new(work)?;
        let empty = disk.used()?;
        let engine = Engine::start(self.engine, &disk.mount.join("data"))?;
        let taken = measure(engine.daemon(), || {
            engine.take(self.source, image, registry)?;
            disk.sync()
        })?;
        let full = disk.used()?;
        if full - empty < 800_000_000 {
            return Err("there is no image of that size on its disk".into());
        }
        self.taken.push(taken);
        let begun = Instant::now();
        engine.remove()?;
        let ended = begun.elapsed();
        while disk.used()? - empty > (full - empty) / 20 {
            if begun.elapsed() > Duration::from_secs(120) {
                return Err("the space does not become free".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.removed.push((ended.as_secs_f64(), begun.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Whether what the engine needs is there; says so if it is not.
fn is_installed(engine: &str) -> bool {
    let program = match engine {
        "docker" => "dockerd",
        "podman" => "podman",
        _ => return true,
    };
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{engine}: passed over, `{program}` is not installed (benches/setup.sh)");
    }
    found
}

fn print(cases: &[Case]) {
    println!(
        "{:<16}{:<10}{:>9}{:>9}{:>10}{:>10}{:>9}{:>9}   each run",
        "", "", "seconds", "CPU", "to floor", "memory", "remove", "freed"
    );
    for case in cases {
        let Case { engine, source, taken, removed } = case;
        let seconds = |case: &Case| median(case.taken.iter().map(|taken| taken.seconds).collect());
        // An archive's compressed layers are the same as the registry's.
        let same = |floor: &&Case| match (floor.source, source) {
            (Source::Pull(form), Source::OciArchive) => form == OCI_FORM,
            (floor, source) => floor == *source,
        };
        let floor = cases.iter().filter(|case| case.engine == "floor").find(same).map(seconds);
        println!(
            "{:<16}{:<10}{:>7.1} s{:>7.1} s{:>10}{:>6.0} MiB{:>7.2} s{:>7.2} s   {}",
            source.name(),
            engine,
            seconds(case),
            median(taken.iter().map(|taken| taken.cpu).collect()),
            floor.map_or_else(|| "-".to_owned(), |floor| format!("{:.2}", seconds(case) / floor)),
            median(taken.iter().map(|taken| taken.bytes as f64 / f64::from(1 << 20)).collect()),
            median(removed.iter().map(|(ended, _)| *ended).collect()),
            median(removed.iter().map(|(_, freed)| *freed).collect()),
            taken.iter().map(|taken| format!("{:.1}", taken.seconds)).collect::<Vec<_>>().join(" "),
        );
    }
}
