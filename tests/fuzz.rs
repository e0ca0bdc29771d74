//! Every fuzz target for a bounded time, on real inputs that are damaged at random and on layers made up at random.
//!
//! `EVENKEEL_FUZZ_SECONDS` is the time for each target (2 by default), `EVENKEEL_FUZZ_SEED` repeats a run. What makes a
//! target fail is kept in a file whose name is printed, and goes where the target's other inputs are.

#[path = "fuzz/inputs.rs"]
mod inputs;
#[path = "fuzz/targets.rs"]
mod targets;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use inputs::Random;
use targets::Target;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The target meets its inputs as they are, and then damaged until its time is over.
fn run((name, target): Target, seeds: &[Vec<u8>], words: &[&[u8]]) {
    assert!(!seeds.is_empty(), "there are inputs for {name}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = setting("EVENKEEL_FUZZ_SEED").unwrap_or(now.as_nanos() as u64);
    let mut random = Random(seed | 1);
    let begun = Instant::now();
    let time = Duration::from_secs(setting("EVENKEEL_FUZZ_SECONDS").unwrap_or(2));
    let mut runs = 0u64;
    while runs < 2 * seeds.len() as u64 || begun.elapsed() < time {
        let mut input = seeds[runs as usize % seeds.len()].clone();
        if runs >= seeds.len() as u64 {
            inputs::damage(&mut input, seeds, words, &mut random);
        }
        runs += 1;
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            let path = std::env::temp_dir().join(format!("evenkeel-fuzz-{name}-{seed}"));
            std::fs::write(&path, &input).unwrap();
            panic!("{name} fails after {runs} inputs (EVENKEEL_FUZZ_SEED={seed}) on {}", path.display());
        }
    }
    println!("{name}: {runs} inputs");
}

/// `fuzz/` is a crate of its own, which nobody builds who does not fuzz: each of its programs is one line around a target
/// that is built here.
#[test]
fn every_target_is_given_to_libfuzzer_too() {
    let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest: toml::Table = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap().parse().unwrap();
    let mut paths = BTreeSet::new();
    for (name, _) in targets::ALL {
        let program = manifest["bin"].as_array().unwrap().iter().find(|bin| bin["name"].as_str() == Some(name));
        let path = fuzz.join(program.unwrap_or_else(|| panic!("a program `{name}`"))["path"].as_str().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(&format!("fuzz_target!(|bytes: &[u8]| targets::{name}(bytes));\n")), "{text}");
        paths.insert(path);
    }
    let there = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(there.collect::<BTreeSet<_>>(), paths);
}

#[test]
fn layers_of_any_bytes_change_nothing_outside_and_never_panic() {
    let words: Vec<&[u8]> = inputs::TAR_WORDS.to_vec();
    let seeds = inputs::layers(&mut Random(7));
    run(targets::ALL[0], &seeds, &words);
}

#[test]
fn whatever_a_registry_answers_is_read_or_refused() {
    run(targets::ALL[1], &inputs::documents(), &inputs::JSON_WORDS);
    run(targets::ALL[3], &inputs::challenges(), &[b"\"", b"\\", b",", b"=", b" ", b"Bearer ", "é".as_bytes()]);
}

#[test]
fn whatever_somebody_writes_is_read_or_refused_with_a_place() {
    run(targets::ALL[2], &inputs::files(&["examples", "tests"], "Dockerfile"), &inputs::DOCKERFILE_WORDS);
    run(targets::ALL[4], &inputs::files(&["examples", "tests/manifest"], ".toml"), &inputs::TOML_WORDS);
    run(targets::ALL[5], &inputs::files(&["examples", "tests/host_file"], "host.toml"), &inputs::TOML_WORDS);
}
