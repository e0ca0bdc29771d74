//! The examples: each is valid, resolves to itself, and a host without anything converges to it in one plan.

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::engine::fake::Fake;
use evenkeel::engine::{Engine, Scope};
use evenkeel::manifest::{self, FileKind, Loaded, Source, Surroundings};
use evenkeel::model::actual::{Actual, HostFacts};
use evenkeel::model::id::Ids;
use evenkeel::model::security::Capability;
use evenkeel::plan::{self, Plan, Policy};

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut manifests: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().join("evenkeel.toml")).collect();
    manifests.retain(|path| path.exists());
    manifests.sort();
    assert!(manifests.len() >= 7, "the quickstart and six stacks, found {manifests:?}");
    manifests
}

/// Loads with nothing set but what `examples/quickstart.sh` sets.
fn load(inputs: &[PathBuf], rootfs: &Path) -> Loaded {
    let variable = |name: &str| (name == "EVENKEEL_QUICKSTART_ROOTFS").then(|| rootfs.display().to_string());
    manifest::load(inputs, &variable).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A host on which everything can be had.
fn able_host() -> Actual {
    let controllers = ["memory", "cpu", "pids", "cpuset", "devices"].map(str::to_owned);
    let host = HostFacts {
        bounding: Capability::all().collect(),
        controllers: controllers.into(),
        platform: "linux/amd64".to_owned(),
        ..HostFacts::default()
    };
    Actual { host, ..Actual::default() }
}

fn planned(engine: &Fake, loaded: &Loaded) -> Plan {
    let actual = engine.observe(&Scope { images: loaded.desired.images.clone(), ..Scope::default() }).unwrap();
    plan::plan(&loaded.desired, &actual, &Policy::default(), &mut Ids::from_seed(1))
}

#[test]
fn every_example_is_reached_by_one_plan() {
    let rootfs = tempfile::tempdir().unwrap();
    for example in examples() {
        let loaded = load(std::slice::from_ref(&example), rootfs.path());
        let engine = Fake::new(able_host());
        let plan = planned(&engine, &loaded);
        assert!(plan.refusals.is_empty(), "{}: {:?}", example.display(), plan.refusals);
        for step in &plan.steps {
            engine.perform(&step.action).unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        }
        let again = planned(&engine, &loaded);
        assert!(again.is_empty(), "{}: {:?}", example.display(), again.steps);
    }
}

#[test]
fn every_example_resolves_to_itself() {
    let rootfs = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    for example in examples() {
        let loaded = load(std::slice::from_ref(&example), rootfs.path());
        let resolved = directory.path().join("resolved.toml");
        fs::write(&resolved, manifest::to_toml(&loaded)).unwrap();
        assert_eq!(load(&[resolved], rootfs.path()).desired, loaded.desired, "{}", example.display());
    }
}

#[test]
fn an_overlay_runs_an_example_from_another_image() {
    let rootfs = tempfile::tempdir().unwrap();
    let overlay = rootfs.path().join("local.toml");
    fs::write(&overlay, "[images.busybox]\nrootfs = \".\"\n").unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/one-shot/evenkeel.toml");
    let loaded = load(&[example, overlay], rootfs.path());
    let sources: Vec<String> = loaded.desired.images.keys().map(ToString::to_string).collect();
    assert_eq!(sources, [format!("rootfs {}", rootfs.path().display())]);
}

/// What the README shows is read by the same parser; a part of a manifest is shown without its project.
#[test]
fn the_manifests_of_the_readme_are_manifests() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let whole = match block.starts_with("project") {
            true => block.to_owned(),
            false => format!("project = \"readme\"\n{block}"),
        };
        let surroundings = Surroundings {
            directory: Path::new("/"),
            variable: &|_| None,
            file_kind: &|path| Some(if path.ends_with("app") { FileKind::Directory } else { FileKind::File }),
            read_file: &|path| {
                let text = if path.ends_with("Dockerfile") { "ARG VERSION\nFROM scratch AS release\n" } else { "" };
                Ok(text.to_owned())
            },
        };
        let source = Source { path: "README.md".into(), text: whole };
        if let Err(problems) = manifest::parse(vec![vec![source]], &surroundings) {
            panic!("{problems}");
        }
    }
}
